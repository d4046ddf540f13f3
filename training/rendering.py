"""Examples to token ids and what of them is learned: the one place where text becomes tokens.

Only what the assistant says is learned, its end-of-turn token included. Which tokens those are, the chat template
itself says where it has `{% generation %}` marks. Elsewhere they are found by rendering the chat up to each turn, and
that is checked: a template for which a shorter chat isn't the beginning of the longer one is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from training.examples import Example

IGNORED = -100
"""Label of a token that isn't learned; what PyTorch's cross-entropy leaves out."""


class RenderError(ValueError):
    """An example that this tokenizer can't turn into something to learn; the text has its line."""

    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        self.reason = reason
        super().__init__(f"line {line}: {reason}")


@dataclass(frozen=True)
class Rendered:
    """An example as the model sees it."""

    input_ids: list[int]
    labels: list[int]
    """As long as `input_ids`: the id again where it is learned, else `IGNORED`. Not shifted; the model does that."""
    truncated: bool
    """Whether tokens at the end were cut off."""


def render(example: Example, tokenizer: Any, max_length: int) -> Rendered:
    """The tokens of `example`, at most `max_length` of them.

    Args:
        tokenizer: of the base model, a `PreTrainedTokenizerBase`.

    Raises:
        RenderError: nothing would be learned, or the template refuses the chat or can't be relied on.
    """
    if example.prompt is not None:
        input_ids, learned = _prompt_and_completion(example, tokenizer)
    else:
        input_ids, learned = _chat(example, tokenizer)
    truncated = len(input_ids) > max_length
    labels = [token if on else IGNORED for token, on in zip(input_ids, learned, strict=True)][:max_length]
    # The first token is never predicted, so a label there alone would teach nothing.
    if all(label == IGNORED for label in labels[1:]):
        cut = f"its {len(input_ids)} tokens are cut at `max_length` {max_length}, before any" if truncated else "no"
        raise RenderError(
            example.line, f"{cut} token to learn; check that the chat holds an answer and raise `max_length`"
        )
    return Rendered(input_ids[:max_length], labels, truncated)


def _prompt_and_completion(example: Example, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """The prompt's ids, then the completion's and the end token's; each is tokenised alone, so no token spans both."""
    prompt = tokenizer(example.prompt)["input_ids"]
    if prompt and prompt[-1] == tokenizer.eos_token_id:
        prompt = prompt[:-1]
    completion = tokenizer(example.completion, add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token_id is not None:
        completion = [*completion, tokenizer.eos_token_id]
    return prompt + completion, [False] * len(prompt) + [True] * len(completion)


def _chat(example: Example, tokenizer: Any) -> tuple[list[int], list[bool]]:
    template = tokenizer.chat_template
    if not template:
        raise RenderError(
            example.line, "the base model has no chat template; use a chat model, or prompt/completion data"
        )
    weights_matter = any(message.weight == 0 for message in example.messages if message.role == "assistant")
    try:
        if not weights_matter and isinstance(template, str) and re.search(r"\{%-?\s*generation\b", template):
            return _by_marks(example, tokenizer)
        return _by_prefixes(example, tokenizer)
    except TemplateError as error:
        raise RenderError(example.line, f"the base model's chat template refuses the chat: {error}") from error


def _by_marks(example: Example, tokenizer: Any) -> tuple[list[int], list[bool]]:
    rendered = tokenizer.apply_chat_template(
        [message.for_template() for message in example.messages],
        tools=list(example.tools) or None,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return rendered["input_ids"], [bool(on) for on in rendered["assistant_masks"]]


def _by_prefixes(example: Example, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """An assistant's tokens are those between the chat before it, with its generation prompt, and the chat with it."""
    input_ids = _ids(example, tokenizer, len(example.messages))
    learned = [False] * len(input_ids)
    for place, message in enumerate(example.messages):
        if message.role != "assistant" or message.weight == 0:
            continue
        before = _ids(example, tokenizer, place, add_generation_prompt=True)
        through = _ids(example, tokenizer, place + 1)
        if input_ids[: len(before)] != before or input_ids[: len(through)] != through:
            raise RenderError(
                example.line,
                f"the base model's chat template renders the chat up to message {place + 1} differently from the same "
                "part of the whole chat, so what the assistant said can't be told apart; "
                "split the chat so that each ends in one answer",
            )
        learned[len(before) : len(through)] = [True] * (len(through) - len(before))
    return input_ids, learned


def _ids(example: Example, tokenizer: Any, count: int, *, add_generation_prompt: bool = False) -> list[int]:
    """Ids of the first `count` messages."""
    rendered = tokenizer.apply_chat_template(
        [message.for_template() for message in example.messages[:count]],
        tools=list(example.tools) or None,
        add_generation_prompt=add_generation_prompt,
        return_dict=True,
    )
    return list(rendered["input_ids"])
