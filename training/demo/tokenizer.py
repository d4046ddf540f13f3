"""The embedded base model's tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, SYSTEM, USER, ASSISTANT, TOOL, END = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"
VOCABULARY_SIZE = 1024

# Every turn is `<|role|>text<|end|>` with nothing between turns, so a longer chat starts with the shorter's ids.
CHAT_TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{- content -}}
{%- elif content -%}
{%- for part in content -%}{%- if part.type == 'text' -%}{{- part.text -}}{%- endif -%}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if tools -%}{{- '<|system|>Tools: ' + (tools | tojson) + '<|end|>' -}}{%- endif -%}
{%- for message in messages -%}
{%- if message.role in ('system', 'developer') -%}{{- '<|system|>' + text(message.content) + '<|end|>' -}}
{%- elif message.role == 'user' -%}{{- '<|user|>' + text(message.content) + '<|end|>' -}}
{%- elif message.role in ('tool', 'function') -%}{{- '<|tool|>' + text(message.content) + '<|end|>' -}}
{%- elif message.role == 'assistant' -%}
{{- '<|assistant|>' -}}
{%- generation -%}
{{- text(message.content) -}}
{%- for call in message.tool_calls or [] -%}
{{- '<tool_call>\\n{"name": ' + (call.function.name | tojson) + ', "arguments": ' -}}
{{- call.function.arguments if call.function.arguments is string else (call.function.arguments | tojson) -}}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|end|>' -}}
{%- endgeneration -%}
{%- else -%}{{- raise_exception('unknown role: ' + message.role) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str], *, max_length: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which has no unknown token for any Unicode text.

    Args:
        texts: to learn the merges from.
        max_length: number of the model's positions, in tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, SYSTEM, USER, ASSISTANT, TOOL, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_max_length=max_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
