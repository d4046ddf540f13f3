"""A chat as rows of token ids, each with the positions that are trained on. Doesn't limit their length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.data.examples import Example, Message
from training.rendering.chat_turns import Answer, ChatError, ChatTemplate, refuse_control_tokens
from training.rendering.omitted_parts import find_omitted_parts, is_only_talk
from training.rendering.pieces import Part
from training.rendering.special_tokens import special_token_ids


@dataclass
class Row:
    """Token ids, and which of them are trained on."""

    ids: list[int]
    learned: set[int]
    """Positions in `ids`."""
    openings: dict[int, str] = field(default_factory=dict)
    """Position where a trained answer starts → the template's opening of any answer there."""
    omitted: frozenset[Part] = frozenset()
    """Parts of the example that are in none of its rows."""

    def add_answer(self, answer: Answer) -> bool:
        """Add `answer` if this row contains it exactly as the engine will see it; return whether it does."""
        for end in (answer.end, answer.template_end):
            if self.ids[:end] == answer.ids[:end]:
                self.learned |= {place for place in answer.learned if place < end}
                self.openings[answer.n_prompt] = answer.opening
                return True
        return False

    def end_within(self, max_length: int, tokenizer: Any) -> int:
        """Return one past the last position worth training on among the first `max_length`.

        An answer cut so short that only the template's opening of any answer is left isn't.
        """
        started = [place for place in self.openings if place < max_length]
        if len(self.ids) <= max_length or not started:
            return max_length
        start = max(started)
        return start if is_without_text(self.ids[start:max_length], self.openings[start], tokenizer) else max_length


def make_answer_rows(example: Example, tokenizer: Any, *, last_only: bool) -> list[Row]:
    """Return as few rows as contain every trained answer, in the order of the chat. Raises: ChatError."""
    template = ChatTemplate(tokenizer, example.tools_for_template())
    refuse_control_tokens(example.messages, tokenizer)
    rows: list[Row] = []
    for answer, omitted in _iter_answers(
        template, example.messages, find_learned_places(example, last_only=last_only)[::-1]
    ):
        if not any(row.add_answer(answer) for row in rows):
            rows.append(Row(answer.ids, set(answer.learned), {answer.n_prompt: answer.opening}, omitted))
    return rows[::-1]


def make_whole_row(example: Example, tokenizer: Any) -> Row:
    """Return the whole chat, all of it trained on except answers with weight 0.

    Raises:
        ChatError: as for answers, and when an answer with weight 0 can't be separated in the whole chat.
    """
    template = ChatTemplate(tokenizer, example.tools_for_template())
    refuse_control_tokens(example.messages, tokenizer)
    messages, ids = example.messages, _tokenize_whole(example.messages, template)
    omitted = find_omitted_parts(
        template, messages, [len(messages)], learned=find_learned_places(example, last_only=False)
    )
    learned = set(range(len(ids)))
    for place, message in enumerate(messages):
        if message.role != "assistant" or message.weight:
            continue
        unlearned = Row(ids, set())
        if not unlearned.add_answer(template.answer(messages[: place + 1])):
            raise ChatError(
                f"message {place + 1} has weight 0, but the base model's chat template renders it differently in "
                "the complete chat, so it can't be left out; set `train_on` to assistant, or remove the weight"
            )
        learned -= unlearned.learned
    return Row(ids, learned, omitted=omitted)


def make_only_answer(
    messages: Sequence[Message], example: Example, tokenizer: Any, *, named: str | None = None
) -> tuple[Answer, frozenset[Part]]:
    """Return the last of `messages` as an answer to the others, with the tools of `example`; and the parts omitted.

    named: the answer's name in faults. Default: its number.

    Raises:
        ChatError: they can't be trained on.
    """
    refuse_control_tokens(messages, tokenizer)
    template = ChatTemplate(tokenizer, example.tools_for_template())
    return next(_iter_answers(template, messages, [len(messages) - 1], named))


def find_omitted_in_example(example: Example, tokenizer: Any, *, last_only: bool) -> frozenset[Part]:
    """Return the parts of a chat, preference or labelled answer that are in none of its rows; nothing is tokenised.

    Raises:
        ChatError: an omitted part changes the chat's meaning, or the template rejects the chat.
    """
    template = ChatTemplate(tokenizer, example.tools_for_template())
    chats = [(*example.messages, *answer) for answer in (example.chosen, example.rejected)]
    found = frozenset[Part]()
    for messages in chats if example.chosen else [example.messages]:
        places = (
            find_learned_places(example, last_only=last_only)[::-1] if example.kind == "chat" else [len(messages) - 1]
        )
        if places and not is_only_talk(template, messages[: places[0] + 1]):
            found |= _find_omitted(template, messages, places, None)
    return found


def find_learned_places(example: Example, *, last_only: bool) -> list[int]:
    """Return the positions of the answers in a chat that are trained on."""
    places = [place for place, message in enumerate(example.messages) if message.role == "assistant" and message.weight]
    return places[-1:] if last_only else places


def is_without_text(ids: Sequence[int], opening: str, tokenizer: Any) -> bool:
    """Return whether `ids`, the start of an answer, are only control tokens, white space and its `opening`."""
    specials = special_token_ids(tokenizer)
    text = tokenizer.decode(ids).strip()
    return opening.strip().startswith(text) or all(token in specials for token in ids)


def _iter_answers(
    template: ChatTemplate, messages: Sequence[Message], places: Sequence[int], last_named: str | None = None
) -> Iterator[tuple[Answer, frozenset[Part]]]:
    """Yield the answers at `places`, the last first, each with the parts omitted from all. Raises: ChatError."""
    messages = messages[: places[0] + 1] if places else messages
    is_talk, omitted = is_only_talk(template, messages), frozenset[Part]()
    for place in places:
        if place == places[0] and not is_talk:
            omitted = _find_omitted(template, messages, places, last_named)
        answer = template.answer(messages[: place + 1])
        if place == places[0] and is_talk and not _is_verbatim(answer, messages):
            omitted = _find_omitted(template, messages, places, last_named)
        yield template.check_learnable(answer, messages[: place + 1]), omitted


def _find_omitted(
    template: ChatTemplate, messages: Sequence[Message], places: Sequence[int], last_named: str | None
) -> frozenset[Part]:
    ends = [place + 1 for place in places]
    return find_omitted_parts(template, messages, ends, learned=places, last_named=last_named)


def _is_verbatim(answer: Answer, messages: Sequence[Message]) -> bool:
    """Return whether the content of all `messages` is in the rendered text verbatim."""
    text = answer.prompt + answer.text_after
    return all(message.content.strip() in text for message in messages)


def _tokenize_whole(messages: Sequence[Message], template: ChatTemplate) -> list[int]:
    if messages[-1].role == "assistant" and len(messages) > 1:
        return template.answer(messages).ids
    return template.ids(template.text(messages))
