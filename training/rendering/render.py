"""Examples to token ids and what of them is learned: the one place where text becomes tokens.

Only what the assistant says is learned, the token that ends its turn included. How an answer's tokens are found and
checked is in `chat_turns`. A template may render an answer otherwise once more turns follow, as Qwen3's does with
thoughts: such a chat becomes several rows, in each of which the learned answers stand as the engine will see them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from training.data.examples import Example, Message
from training.rendering.chat_rows import Row, answer_rows, example_passed_over, only_answer, says_nothing, whole_row
from training.rendering.chat_turns import Answer, ChatError, ChatTemplate, continued
from training.rendering.passed_over import PassedOverError
from training.rendering.pieces import Part
from training.rendering.special_tokens import stop_token_ids

IGNORED = -100
"""Label of a token that isn't learned; what PyTorch's cross-entropy leaves out."""
TrainOn = Literal["assistant", "last_assistant", "all"]


class RenderError(ValueError):
    """An example that this tokenizer can't turn into something to learn; the text has its line."""

    def __init__(
        self, line: int, reason: str, *, is_too_long: bool = False, passed_over: frozenset[Part] = frozenset()
    ) -> None:
        self.line = line
        self.reason = reason
        self.passed_over = passed_over
        """What the chat template doesn't render, where that is why."""
        self.is_too_long = is_too_long
        """Whether a larger `max_length` would mend it."""
        super().__init__(f"line {line}: {reason}" if line else reason)


class ChatTemplateError(RenderError):
    """A chat template on which nothing can be trained, whatever the example; its `line` is 0."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, reason)


@dataclass(frozen=True)
class Rendered:
    """One row of tokens, as the model sees it."""

    input_ids: list[int]
    labels: list[int]
    """As long as `input_ids`: the id again where it is learned, else `IGNORED`. Not shifted; the model does that."""
    truncated: bool
    """Whether tokens at the end were cut off."""
    passed_over: frozenset[Part] = frozenset()
    """What of the example the chat template doesn't render in any of its rows."""


@dataclass(frozen=True)
class RenderedPreference:
    """A better and a worse answer to the same prompt."""

    prompt_ids: list[int]
    """As the engine is given it, generation prompt included."""
    chosen_ids: list[int]
    """The better answer with the token that ends it."""
    rejected_ids: list[int]
    """The worse answer, as `chosen_ids`."""
    truncated: bool
    """Whether an answer's end was cut off."""
    passed_over: frozenset[Part] = frozenset()
    """What of the example the chat template doesn't render."""


@dataclass(frozen=True)
class RenderedLabelled:
    """A prompt, an answer, and whether the answer is a good one."""

    prompt_ids: list[int]
    """As the engine is given it, generation prompt included."""
    completion_ids: list[int]
    """The answer with the token that ends it."""
    label: bool
    """True for a good answer."""
    truncated: bool
    """Whether the answer's end was cut off."""
    passed_over: frozenset[Part] = frozenset()
    """What of the example the chat template doesn't render."""


def render(example: Example, tokenizer: Any, max_length: int, train_on: TrainOn = "assistant") -> Rendered:
    """The one row of `example`, at most `max_length` tokens; see `render_all`.

    Raises:
        RenderError: as `render_all`, and where one row can't hold what is to be learned.
    """
    rows = render_all(example, tokenizer, max_length, train_on)
    if len(rows) > 1:
        raise RenderError(
            example.line,
            "the base model's chat template renders earlier answers differently once more turns follow, so one row "
            "can't hold them all; set `train_on` to last_assistant, or split the chat so that each ends in one answer",
        )
    return rows[0]


def render_all(example: Example, tokenizer: Any, max_length: int, train_on: TrainOn = "assistant") -> list[Rendered]:
    """The rows of a chat or of a prompt and completion, each at most `max_length` tokens. Each answer is in one row.

    There is one row unless the template renders earlier answers otherwise once more turns follow; then an answer whose
    rendering the longer chat changes gets a row of its own, which ends with it. A row ends with its last learned
    answer: later questions teach nothing. Of several rows, those of which `max_length` leaves nothing to learn are left
    out and the last one that is kept counts as truncated.

    Args:
        tokenizer: of the base model, a `PreTrainedTokenizerBase`.
        train_on: which answers are learned, of those without weight 0; `all`: every token that isn't such an answer's.

    Raises:
        RenderError: nothing would be learned, or nothing but the end of an answer; the template refuses the chat,
            can't be relied on, or doesn't render what changes the chat's meaning; a message spells a control token.
    """
    if example.kind not in ("chat", "prompt_completion"):
        method = {"preference": "dpo", "labelled": "kto"}.get(example.kind, "text")
        raise RenderError(example.line, f"it is of kind {example.kind}; set `method` to {method}")
    with _errors_at(example.line):
        if example.kind == "prompt_completion":
            rows = [_prompt_and_completion(example, tokenizer)]
        elif train_on == "all":
            rows = [whole_row(example, tokenizer)]
        else:
            rows = answer_rows(example, tokenizer, last_only=train_on == "last_assistant")
    cut = [_cut(row, max_length, tokenizer) for row in rows]
    kept = [row for row in cut if _teaches(row)]
    if not kept:
        longest = max(len(row.ids) for row in rows)
        before = f"its {longest} tokens are cut at `max_length` {max_length}, before any" if cut[0].truncated else "no"
        raise RenderError(
            example.line,
            f"{before} token to learn; check that the chat holds an answer and raise `max_length`",
            is_too_long=cut[0].truncated,
        )
    if len(kept) < len(cut):
        kept[-1] = replace(kept[-1], truncated=True)
    return kept


def render_texts(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Rendered]:
    """Rows of exactly `max_length` tokens, the last one shorter, cut from all texts with the end token between them.

    All of it is learned. A text is tokenised as the engine tokenises a bare prompt, so with a beginning token where the
    tokenizer has one.

    Raises:
        RenderError: an example is no text, or all of them together have less than two tokens.
    """
    stream: list[int] = []
    for place, example in enumerate(examples):
        if example.text is None:
            raise RenderError(example.line, f"it is of kind {example.kind}, but a text is needed; set another `method`")
        if place and tokenizer.eos_token_id is not None:
            stream.append(tokenizer.eos_token_id)
        stream += _without_end(list(tokenizer(example.text, verbose=False)["input_ids"]), tokenizer)
    rows = [stream[start : start + max_length] for start in range(0, len(stream), max_length)]
    # A row of one token teaches nothing: its first token is never predicted.
    rendered = [Rendered(row, list(row), truncated=False) for row in rows if len(row) > 1]
    if not rendered:
        line = examples[0].line if examples else 1
        raise RenderError(line, "the texts have less than two tokens together, so there is nothing to learn; add text")
    return rendered


def render_preference(example: Example, tokenizer: Any, max_length: int) -> RenderedPreference:
    """Prompt, better and worse answer, the prompt with the longer of them at most `max_length` tokens.

    Raises:
        RenderError: as `render_all`, or within `max_length` both answers are the same.
    """
    if example.kind != "preference":
        raise RenderError(example.line, f"it is of kind {example.kind}, but dpo needs a better and a worse answer")
    with _errors_at(example.line):
        (chosen, of_chosen), (rejected, of_rejected) = (
            only_answer((*example.messages, *answer), example, tokenizer, named=named)
            for answer, named in ((example.chosen, "the better answer"), (example.rejected, "the worse answer"))
        )
    room = _room(example, chosen, max_length)
    longer = max(len(chosen.answer_ids), len(rejected.answer_ids))
    if chosen.answer_ids[:room] == rejected.answer_ids[:room]:
        within = f"within `max_length` {max_length} " if longer > room else ""
        raise RenderError(
            example.line,
            f"{within}the better and the worse answer have the same tokens; raise `max_length` or drop it",
            is_too_long=longer > room,
        )
    _refuse_cut_to_nothing(example, (chosen, rejected), max_length, tokenizer)
    return RenderedPreference(
        chosen.prompt_ids,
        chosen.answer_ids[:room],
        rejected.answer_ids[:room],
        truncated=longer > room,
        passed_over=of_chosen | of_rejected,
    )


def render_labelled(example: Example, tokenizer: Any, max_length: int) -> RenderedLabelled:
    """Prompt, answer and label, at most `max_length` tokens.

    Raises:
        RenderError: as `render_all`.
    """
    if example.label is None:
        raise RenderError(example.line, f"it is of kind {example.kind}, but kto needs an answer with a label")
    with _errors_at(example.line):
        answer, passed_over = only_answer(example.messages, example, tokenizer)
    room = _room(example, answer, max_length)
    _refuse_cut_to_nothing(example, (answer,), max_length, tokenizer)
    return RenderedLabelled(
        answer.prompt_ids,
        answer.answer_ids[:room],
        example.label,
        truncated=len(answer.answer_ids) > room,
        passed_over=passed_over,
    )


def passed_over(example: Example, tokenizer: Any, train_on: TrainOn = "assistant") -> frozenset[Part]:
    """What of `example` the chat template doesn't render, found without making tokens: for files of many examples.

    Raises:
        RenderError: what is missing changes what the example means, or the template refuses it.
    """
    if not example.messages:
        return frozenset()
    with _errors_at(example.line):
        return example_passed_over(example, tokenizer, last_only=train_on == "last_assistant")


def check_template(tokenizer: Any) -> None:
    """Returns when chats can be trained with the tokenizer's chat template, found out with a small one.

    Raises:
        ChatTemplateError: they can't: no template, answers that can't be told apart, or no token to end them.
    """
    question, said = Message("user", "What comes after one?"), Message("assistant", "Two, I think.")
    try:
        answer = ChatTemplate(tokenizer).answer((question, said))
    except ChatError as error:
        raise ChatTemplateError(str(error)) from error
    prompt, learned = (
        tokenizer.decode(ids) for ids in (answer.prompt_ids, [answer.ids[place] for place in sorted(answer.learned)])
    )
    if question.content not in prompt or said.content not in learned:
        raise ChatTemplateError(
            f"the base model's chat template turns a question and its answer into {prompt!r} and {learned!r}, where "
            "they can't be found again; give the base model another template"
        )
    if answer.ids[answer.end - 1] not in stop_token_ids(tokenizer):
        raise ChatTemplateError(
            "the base model has no end token, so answers would never end; set `eos_token` in its tokenizer_config.json"
        )


@contextmanager
def _errors_at(line: int) -> Iterator[None]:
    try:
        yield
    except PassedOverError as error:
        raise RenderError(line, str(error), passed_over=error.parts) from error
    except ChatError as error:
        raise RenderError(line, str(error)) from error


def _prompt_and_completion(example: Example, tokenizer: Any) -> Row:
    """The prompt's ids, then the completion's and the end token's; no chat template is around them."""
    prompt, completion = example.prompt or "", example.completion or ""
    n_prompt, ids = continued(prompt, prompt + completion, tokenizer, add_special_tokens=True)
    ids = _without_end(ids, tokenizer)
    if len(ids) == n_prompt:
        raise ChatError("the tokenizer makes no token of the completion, so only silence would be learned; drop it")
    if tokenizer.eos_token_id is not None:
        ids = [*ids, tokenizer.eos_token_id]
    return Row(ids, set(range(n_prompt, len(ids))), {n_prompt: ""})


def _without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """`ids` without the end token that some tokenizers put behind every text."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _cut(row: Row, max_length: int, tokenizer: Any) -> Rendered:
    end, ids = row.end_within(max_length, tokenizer), row.ids[:max_length]
    labels = [token if place in row.learned and place < end else IGNORED for place, token in enumerate(ids)]
    return Rendered(ids, labels, truncated=len(row.ids) > max_length, passed_over=row.passed_over)


def _teaches(rendered: Rendered) -> bool:
    """The first token is never predicted, so a label there alone would teach nothing."""
    return any(label != IGNORED for label in rendered.labels[1:])


def _refuse_cut_to_nothing(example: Example, answers: Sequence[Answer], max_length: int, tokenizer: Any) -> None:
    """Raises `RenderError` when `max_length` leaves of an answer no more than how the template opens any."""
    for answer in answers:
        left = answer.ids[answer.n_prompt : max_length]
        if len(answer.answer_ids) > len(left) and says_nothing(left, answer.opening, tokenizer):
            raise RenderError(
                example.line,
                f"`max_length` {max_length} cuts an answer before its first word; shorten it or raise `max_length`",
                is_too_long=True,
            )


def _room(example: Example, answer: Answer, max_length: int) -> int:
    """Tokens that the prompt leaves to the answer, at least one. Raises: RenderError."""
    room = max_length - answer.n_prompt
    if room < 1:
        raise RenderError(
            example.line,
            f"the prompt alone has {answer.n_prompt} tokens, so `max_length` {max_length} leaves none to the answer; "
            "shorten it or raise `max_length`",
            is_too_long=True,
        )
    return room
