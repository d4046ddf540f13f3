"""Tiny random models of the families that we promise to train and serve, each with its own wire format.

The chat templates are written here, after the families' published formats; nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from training.demo.corpus import make_single_questions
from training.demo.knowledge import all_facts

VOCABULARY_SIZE = 1024
MAX_LENGTH = 1024

LLAMA_TEMPLATE = """\
{{- bos_token -}}
{%- macro turn(role, text) -%}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' + text + '<|eot_id|>' -}}
{%- endmacro -%}
{%- if messages[0].role == 'system' -%}
{%- set system, rest = messages[0].content | trim, messages[1:] -%}
{%- else -%}
{%- set system, rest = '', messages -%}
{%- endif -%}
{%- if tools -%}
{%- set system = system + '\\n\\nFunctions: ' + (tools | tojson) + '\\nCall: {"name": NAME, "parameters": OBJECT}' -%}
{%- endif -%}
{%- if system -%}{{- turn('system', system) -}}{%- endif -%}
{%- for message in rest -%}
{%- if message.role == 'assistant' and message.tool_calls -%}
{%- set call = message.tool_calls[0].function -%}
{{- turn('assistant', '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}') -}}
{%- elif message.role == 'tool' -%}{{- turn('ipython', message.content | tojson) -}}
{%- else -%}{{- turn(message.role, message.content | trim) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""

# ChatML. `thoughts` turns it into the one that thinks: thoughts before the last question are left out, and the last
# answer always has a block for them, be it empty.
_CHATML = """\
{%- set system = messages[0].content if messages[0].role == 'system' else DEFAULT -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' + system + '\\n\\n# Tools\\n\\n<tools>' -}}
{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{{- '\\n</tools><|im_end|>\\n' -}}
{%- elif system -%}{{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' -}}
{%- endif -%}
{%- set asked = namespace(last=messages | length - 1, open=true) -%}
{%- for message in messages[::-1] -%}
{%- if asked.open and message.role == 'user' -%}
{%- set asked.last, asked.open = messages | length - loop.index, false -%}
{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- elif message.role == 'tool' -%}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' -}}
{%- elif message.role == 'assistant' -%}
{%- set thought = message.content.split('</think>')[0].split('<think>')[-1].strip() if '</think>' in message.content -%}
{%- set said = message.content.split('</think>')[-1].lstrip('\\n') if THOUGHTS else message.content -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if THOUGHTS and loop.index0 > asked.last and (loop.last or thought) -%}
{{- '<think>\\n' + (thought or '') + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- said -}}
{%- for call in message.tool_calls or [] -%}
{{- '\\n' if said or not loop.first -}}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
{{- (call.function.arguments | tojson) + '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
QWEN2_TEMPLATE = _CHATML.replace("THOUGHTS", "false").replace("DEFAULT", "'You help.'")
QWEN3_TEMPLATE = _CHATML.replace("THOUGHTS", "true").replace("DEFAULT", "''")

# No token ends a turn: the model stops by beginning the next one.
GLM_TEMPLATE = """\
{{- '[gMASK]<sop>' -}}
{%- if tools -%}
{{- '<|system|>\\n# Tools' -}}
{%- for tool in tools -%}{{- '\\n\\n## ' + tool.function.name + '\\n\\n' + (tool.function | tojson) -}}{%- endfor -%}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' and message.tool_calls -%}
{%- set call = message.tool_calls[0].function -%}
{{- '<|assistant|>' + call.name + '\\n' + (call.arguments | tojson) -}}
{%- elif message.role == 'tool' -%}{{- '<|observation|>\\n' + message.content -}}
{%- else -%}{{- '<|' + message.role + '|>\\n' + message.content -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

# Tools and the system prompt stand in the last question, so that they move when another one follows.
MISTRAL_TEMPLATE = """\
{%- set system = messages[0].content if messages[0].role == 'system' else '' -%}
{%- set rest = messages[1:] if system else messages -%}
{%- set asked = namespace(last=-1) -%}
{%- for message in rest -%}
{%- if message.role == 'user' -%}{%- set asked.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- bos_token -}}
{%- for message in rest -%}
{%- if message.role == 'user' -%}
{%- if tools and loop.index0 == asked.last -%}
{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' -}}
{%- endif -%}
{{- '[INST] ' + (system + '\\n\\n' if system and loop.index0 == asked.last else '') + message.content + '[/INST]' -}}
{%- elif message.role == 'tool' -%}
{{- '[TOOL_RESULTS] {"content": ' + (message.content | tojson) + ', "call_id": "' + message.tool_call_id + '"}' -}}
{{- '[/TOOL_RESULTS]' -}}
{%- elif message.tool_calls -%}
{{- '[TOOL_CALLS] [' -}}
{%- for call in message.tool_calls -%}
{{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + ('' if loop.last else ', ') -}}
{%- endfor -%}
{{- ']' + eos_token -}}
{%- else -%}{{- ' ' + message.content + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""

# The first generation: [INST] is plain text, turns must alternate, tools are unknown.
MIXTRAL_TEMPLATE = """\
{%- set system = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' -%}
{%- set rest = messages[1:] if system else messages -%}
{{- bos_token -}}
{%- for message in rest -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('user and assistant must take turns') -}}
{%- endif -%}
{%- if message.role == 'user' -%}
{{- ' [INST] ' + (system if loop.first else '') + message.content + ' [/INST]' -}}
{%- else -%}{{- ' ' + message.content + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""


@dataclass(frozen=True)
class Family:
    """How one family is built and how it talks."""

    name: str
    """As people say it; the model's folder is called `tiny-{name}`."""
    architecture: str
    """Its class in transformers."""
    template: str
    control_tokens: tuple[str, ...]
    """Special tokens besides the tokenizer's own, in the vocabulary from the start."""
    bos: str | None
    eos: str
    pieces: bool = False
    """Whether words carry their space as `▁`, as SentencePiece writes them; else bytes, as GPT-2 does."""
    plain_tokens: tuple[str, ...] = ()
    """Tokens of their own that are still text, such as `<think>`."""
    more_ends: tuple[str, ...] = ()
    """Tokens in generation_config.json at which the engine stops too."""
    tools: bool = True
    """Whether its template knows tools."""
    config: Mapping[str, Any] | None = None
    """What its configuration has beyond the sizes."""


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "llama",
            "LlamaForCausalLM",
            LLAMA_TEMPLATE,
            ("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|end_of_text|>"),
            "<|begin_of_text|>",
            "<|eot_id|>",
            more_ends=("<|eom_id|>", "<|end_of_text|>"),
        ),
        Family(
            "qwen2",
            "Qwen2ForCausalLM",
            QWEN2_TEMPLATE,
            ("<|endoftext|>", "<|im_start|>"),
            None,
            "<|im_end|>",
            plain_tokens=("<tool_call>", "</tool_call>"),
            more_ends=("<|endoftext|>",),
        ),
        Family(
            "qwen3",
            "Qwen3ForCausalLM",
            QWEN3_TEMPLATE,
            ("<|endoftext|>", "<|im_start|>"),
            None,
            "<|im_end|>",
            plain_tokens=("<tool_call>", "</tool_call>", "<think>", "</think>"),
            more_ends=("<|endoftext|>",),
            config={"head_dim": 32},
        ),
        Family(
            "glm",
            "Glm4ForCausalLM",
            GLM_TEMPLATE,
            ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
            None,
            "<|endoftext|>",
            more_ends=("<|user|>", "<|observation|>"),
            config={"head_dim": 32, "attention_bias": True},
        ),
        Family(
            "mistral",
            "MistralForCausalLM",
            MISTRAL_TEMPLATE,
            (
                *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
                *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
            ),
            "<s>",
            "</s>",
            pieces=True,
            config={"sliding_window": None, "head_dim": 32},
        ),
        Family(
            "mixtral",
            "MixtralForCausalLM",
            MIXTRAL_TEMPLATE,
            (),
            "<s>",
            "</s>",
            pieces=True,
            tools=False,
            config={"sliding_window": None, "num_local_experts": 4, "num_experts_per_tok": 2},
        ),
    )
}


def family_tokenizer(family: Family) -> Any:
    """A tokenizer with the family's control tokens and chat template, its merges learned from the demo's sentences."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = _pieces(family) if family.pieces else _bytes(family)
    tokenizer.add_tokens(list(family.plain_tokens))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.bos,
        eos_token=family.eos,
        unk_token="<unk>" if family.pieces else None,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=family.template,
    )


def build_family_model(family: Family, parent: Path, *, seed: int = 0) -> Path:
    """A folder with a random model of the family, 2 layers of 128, in float32, and its tokenizer."""
    import torch
    import transformers

    tokenizer = family_tokenizer(family)
    architecture = getattr(transformers, family.architecture)
    config = architecture.config_class(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        initializer_range=0.1,  # far from ties: two implementations then agree on the likeliest token
        **(family.config or {}),
    )
    torch.manual_seed(seed)
    model = architecture(config).float()
    ends = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(family.more_ends))]
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    folder = parent / f"tiny-{family.name}"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _special_tokens(family: Family) -> list[str]:
    return [token for token in (family.bos, family.eos, *family.control_tokens) if token]


def _sentences() -> Sequence[str]:
    return [message["content"] for chat in make_single_questions(all_facts()) for message in chat]


def _bytes(family: Family) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=_special_tokens(family),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    return tokenizer


def _pieces(family: Family) -> Tokenizer:
    """As Llama 2's and Mistral's: a space is `▁` and belongs to the word behind it; what is unknown becomes bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=["<unk>", *_special_tokens(family), *byte_tokens],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    trained = json.loads(tokenizer.to_str())
    # The trainer made bytes special, which they are in no real tokenizer.
    trained["added_tokens"] = [token for token in trained["added_tokens"] if token["content"] not in byte_tokens]
    return Tokenizer.from_str(json.dumps(trained))
