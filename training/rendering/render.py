"""Renders examples to token ids and labels: the one place where text becomes tokens.

Only what the assistant says is trained on, including the token that ends its turn. How an answer's tokens are found and
checked is in `chat_turns`. A template may render an answer differently once more turns follow, as Qwen3's does with
reasoning: such a chat becomes several rows, in each of which the trained answers are as the engine will see them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from training.data.examples import Example, Message
from training.rendering.chat_rows import (
    Row,
    find_omitted_in_example,
    is_without_text,
    make_answer_rows,
    make_only_answer,
    make_whole_row,
)
from training.rendering.chat_turns import Answer, ChatError, ChatTemplate, tokenize_continuation
from training.rendering.omitted_parts import OmittedPartsError
from training.rendering.pieces import Part
from training.rendering.special_tokens import find_stop_token_ids

IGNORED = -100
"""Label of a token that isn't trained on; ignored by PyTorch's cross-entropy."""
TrainOn = Literal["assistant", "last_assistant", "all"]


class RenderError(ValueError):
    """An example that this tokenizer can't make trainable; the text has its line."""

    def __init__(
        self, line: int, reason: str, *, is_too_long: bool = False, omitted: frozenset[Part] = frozenset()
    ) -> None:
        self.line = line
        self.reason = reason
        self.omitted = omitted
        """The parts that the chat template omits, if that is the reason."""
        self.is_too_long = is_too_long
        """Whether a larger `max_length` would fix it."""
        super().__init__(f"line {line}: {reason}" if line else reason)


class ChatTemplateError(RenderError):
    """A chat template with which nothing can be trained, whatever the example; its `line` is 0."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, reason)


@dataclass(frozen=True)
class Rendered:
    """One row of tokens, as the model sees it."""

    input_ids: list[int]
    labels: list[int]
    """As long as `input_ids`: the id if it is trained on, else `IGNORED`. Not shifted; the model does that."""
    truncated: bool
    """Whether tokens at the end were cut off."""
    omitted: frozenset[Part] = frozenset()
    """The parts of the example that the chat template omits from all of its rows."""


@dataclass(frozen=True)
class RenderedPreference:
    """A better and a worse answer to the same prompt."""

    prompt_ids: list[int]
    """As passed to the engine, including the generation prompt."""
    chosen_ids: list[int]
    """The better answer with its end token."""
    rejected_ids: list[int]
    """The worse answer with its end token."""
    truncated: bool
    """Whether an answer was cut off."""
    omitted: frozenset[Part] = frozenset()
    """The parts of the example that the chat template omits."""


@dataclass(frozen=True)
class RenderedLabelled:
    """A prompt, an answer, and whether the answer is a good one."""

    prompt_ids: list[int]
    """As passed to the engine, including the generation prompt."""
    completion_ids: list[int]
    """The answer with its end token."""
    label: bool
    """True for a good answer."""
    truncated: bool
    """Whether the answer was cut off."""
    omitted: frozenset[Part] = frozenset()
    """The parts of the example that the chat template omits."""


def render(example: Example, tokenizer: Any, max_length: int, train_on: TrainOn = "assistant") -> Rendered:
    """Render the one row of `example`, at most `max_length` tokens; see `render_all`.

    Raises:
        RenderError: see `render_all`; also if one row can't contain everything to train on.
    """
    rows = render_all(example, tokenizer, max_length, train_on)
    if len(rows) > 1:
        raise RenderError(
            example.line,
            "the base model's chat template renders earlier answers differently when more turns follow, so they "
            "don't fit in one row; set `train_on` to last_assistant, or split the chat so that each part ends in "
            "one answer",
        )
    return rows[0]


def render_all(example: Example, tokenizer: Any, max_length: int, train_on: TrainOn = "assistant") -> list[Rendered]:
    """Render the rows of a chat or prompt and completion, each at most `max_length` tokens. Each answer is in one row.

    There is one row unless the template renders earlier answers differently once more turns follow; then an answer
    whose rendering the longer chat changes gets a row of its own, which ends with it. A row ends with its last trained
    answer: later questions teach nothing. Of several rows, those of which `max_length` leaves nothing to train on are
    dropped and the last one kept counts as truncated.

    Args:
        tokenizer: of the base model, a `PreTrainedTokenizerBase`.
        train_on: which answers are trained on, except those with weight 0; `all`: every token but those answers'.

    Raises:
        RenderError: nothing would be trained on, or only the end of an answer; the template rejects the chat, isn't
            reliable, or omits a part that changes the chat's meaning; a message contains a control token.
    """
    if example.kind not in ("chat", "prompt_completion"):
        method = {"preference": "dpo", "labelled": "kto"}.get(example.kind, "text")
        raise RenderError(example.line, f"it is of kind {example.kind}; set `method` to {method}")
    with _render_errors_at(example.line):
        if example.kind == "prompt_completion":
            rows = [_make_completion_row(example, tokenizer)]
        elif train_on == "all":
            rows = [make_whole_row(example, tokenizer)]
        else:
            rows = make_answer_rows(example, tokenizer, last_only=train_on == "last_assistant")
    cut = [_cut_row(row, max_length, tokenizer) for row in rows]
    kept = [row for row in cut if _is_trainable(row)]
    if not kept:
        longest = max(len(row.ids) for row in rows)
        before = f"its {longest} tokens are cut at `max_length` {max_length}, before any" if cut[0].truncated else "no"
        raise RenderError(
            example.line,
            f"{before} trained token; check that the chat has an answer, and raise `max_length`",
            is_too_long=cut[0].truncated,
        )
    if len(kept) < len(cut):
        kept[-1] = replace(kept[-1], truncated=True)
    return kept


def render_texts(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Rendered]:
    """Return rows of exactly `max_length` tokens, the last one shorter, cut from all texts joined by the end token.

    All of it is trained on. A text is tokenised as the engine tokenises a bare prompt, so with the tokenizer's
    beginning token if it has one.

    Raises:
        RenderError: an example isn't a text, or all of them have less than two tokens in total.
    """
    stream: list[int] = []
    for place, example in enumerate(examples):
        if example.text is None:
            raise RenderError(example.line, f"it is of kind {example.kind}, but a text is needed; set another `method`")
        if place and tokenizer.eos_token_id is not None:
            stream.append(tokenizer.eos_token_id)
        stream += _strip_end(list(tokenizer(example.text, verbose=False)["input_ids"]), tokenizer)
    rows = [stream[start : start + max_length] for start in range(0, len(stream), max_length)]
    # A row of one token teaches nothing: its first token is never predicted.
    rendered = [Rendered(row, list(row), truncated=False) for row in rows if len(row) > 1]
    if not rendered:
        line = examples[0].line if examples else 1
        raise RenderError(
            line, "the texts have fewer than two tokens in total, so there is nothing to train on; add text"
        )
    return rendered


def render_preference(example: Example, tokenizer: Any, max_length: int) -> RenderedPreference:
    """Render prompt, better and worse answer, the prompt with the longer of them at most `max_length` tokens.

    Raises:
        RenderError: see `render_all`; also if both answers are the same within `max_length`.
    """
    if example.kind != "preference":
        raise RenderError(
            example.line, f"it is of kind {example.kind}, but dpo needs a preferred and a rejected answer"
        )
    with _render_errors_at(example.line):
        (chosen, of_chosen), (rejected, of_rejected) = (
            make_only_answer((*example.messages, *answer), example, tokenizer, named=named)
            for answer, named in ((example.chosen, "the preferred answer"), (example.rejected, "the rejected answer"))
        )
    room = _answer_room(example, chosen, max_length)
    longer = max(len(chosen.answer_ids), len(rejected.answer_ids))
    if chosen.answer_ids[:room] == rejected.answer_ids[:room]:
        within = f"within `max_length` {max_length} " if longer > room else ""
        raise RenderError(
            example.line,
            f"{within}the preferred and the rejected answer have the same tokens; raise `max_length` or drop it",
            is_too_long=longer > room,
        )
    _refuse_empty_cut(example, (chosen, rejected), max_length, tokenizer)
    return RenderedPreference(
        chosen.prompt_ids,
        chosen.answer_ids[:room],
        rejected.answer_ids[:room],
        truncated=longer > room,
        omitted=of_chosen | of_rejected,
    )


def render_labelled(example: Example, tokenizer: Any, max_length: int) -> RenderedLabelled:
    """Render prompt, answer and label, at most `max_length` tokens.

    Raises:
        RenderError: see `render_all`.
    """
    if example.label is None:
        raise RenderError(example.line, f"it is of kind {example.kind}, but kto needs an answer with a label")
    with _render_errors_at(example.line):
        answer, omitted = make_only_answer(example.messages, example, tokenizer)
    room = _answer_room(example, answer, max_length)
    _refuse_empty_cut(example, (answer,), max_length, tokenizer)
    return RenderedLabelled(
        answer.prompt_ids,
        answer.answer_ids[:room],
        example.label,
        truncated=len(answer.answer_ids) > room,
        omitted=omitted,
    )


def find_omitted(example: Example, tokenizer: Any, train_on: TrainOn = "assistant") -> frozenset[Part]:
    """Return the parts of `example` that the chat template omits, without tokenising: for files of many examples.

    Raises:
        RenderError: an omitted part changes the example's meaning, or the template rejects it.
    """
    if not example.messages:
        return frozenset()
    with _render_errors_at(example.line):
        return find_omitted_in_example(example, tokenizer, last_only=train_on == "last_assistant")


def check_template(tokenizer: Any) -> None:
    """Check with a small chat that the tokenizer's chat template can be trained with.

    Raises:
        ChatTemplateError: it can't: no template, answers that can't be separated, or no token to end them.
    """
    question, reply = Message("user", "What comes after one?"), Message("assistant", "Two, I think.")
    try:
        answer = ChatTemplate(tokenizer).answer((question, reply))
    except ChatError as error:
        raise ChatTemplateError(str(error)) from error
    prompt, learned = (
        tokenizer.decode(ids) for ids in (answer.prompt_ids, [answer.ids[place] for place in sorted(answer.learned)])
    )
    if question.content not in prompt or reply.content not in learned:
        raise ChatTemplateError(
            f"the base model's chat template turns a question and its answer into {prompt!r} and {learned!r}, where "
            "they can't be located; use another template"
        )
    if answer.ids[answer.end - 1] not in find_stop_token_ids(tokenizer):
        raise ChatTemplateError(
            "the base model has no end token, so answers would never end; set `eos_token` in its tokenizer_config.json"
        )


@contextmanager
def _render_errors_at(line: int) -> Iterator[None]:
    try:
        yield
    except OmittedPartsError as error:
        raise RenderError(line, str(error), omitted=error.parts) from error
    except ChatError as error:
        raise RenderError(line, str(error)) from error


def _make_completion_row(example: Example, tokenizer: Any) -> Row:
    """Return the prompt's ids, then the completion's and the end token's, without a chat template."""
    prompt, completion = example.prompt or "", example.completion or ""
    n_prompt, ids = tokenize_continuation(prompt, prompt + completion, tokenizer, add_special_tokens=True)
    ids = _strip_end(ids, tokenizer)
    if len(ids) == n_prompt:
        raise ChatError("the completion has no tokens, so the model would learn to say nothing; drop the example")
    if tokenizer.eos_token_id is not None:
        ids = [*ids, tokenizer.eos_token_id]
    return Row(ids, set(range(n_prompt, len(ids))), {n_prompt: ""})


def _strip_end(ids: list[int], tokenizer: Any) -> list[int]:
    """Return `ids` without the end token that some tokenizers add to every text."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _cut_row(row: Row, max_length: int, tokenizer: Any) -> Rendered:
    end, ids = row.end_within(max_length, tokenizer), row.ids[:max_length]
    labels = [token if place in row.learned and place < end else IGNORED for place, token in enumerate(ids)]
    return Rendered(ids, labels, truncated=len(row.ids) > max_length, omitted=row.omitted)


def _is_trainable(rendered: Rendered) -> bool:
    """Return whether any token is trained on; the first is never predicted, so its label doesn't count."""
    return any(label != IGNORED for label in rendered.labels[1:])


def _refuse_empty_cut(example: Example, answers: Sequence[Answer], max_length: int, tokenizer: Any) -> None:
    """Raise `RenderError` when `max_length` leaves no more of an answer than the template's opening of any."""
    for answer in answers:
        left = answer.ids[answer.n_prompt : max_length]
        if len(answer.answer_ids) > len(left) and is_without_text(left, answer.opening, tokenizer):
            raise RenderError(
                example.line,
                f"`max_length` {max_length} cuts an answer before its first word; shorten it or raise `max_length`",
                is_too_long=True,
            )


def _answer_room(example: Example, answer: Answer, max_length: int) -> int:
    """Return the tokens that the prompt leaves for the answer, at least one. Raises: RenderError."""
    room = max_length - answer.n_prompt
    if room < 1:
        raise RenderError(
            example.line,
            f"the prompt alone has {answer.n_prompt} tokens, so `max_length` {max_length} leaves none for the "
            "answer; shorten it or raise `max_length`",
            is_too_long=True,
        )
    return room
