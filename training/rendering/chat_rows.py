"""A chat as rows of token ids, each with the places that are learned. Knows no limit on their length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.data.examples import Example, Message
from training.rendering.chat_turns import Answer, ChatError, ChatTemplate, refuse_control_tokens
from training.rendering.passed_over import is_only_talk, parts_passed_over
from training.rendering.pieces import Part
from training.rendering.special_tokens import special_token_ids


@dataclass
class Row:
    """Token ids and which of them are learned."""

    ids: list[int]
    learned: set[int]
    """Places in `ids`."""
    openings: dict[int, str] = field(default_factory=dict)
    """Place at which a learned answer begins → how the template opens any answer there."""
    passed_over: frozenset[Part] = frozenset()
    """What of the example is in none of its rows."""

    def take(self, answer: Answer) -> bool:
        """Whether `answer` stands in this row just as the engine will see it; if so, it is learned here from now on."""
        for end in (answer.end, answer.template_end):
            if self.ids[:end] == answer.ids[:end]:
                self.learned |= {place for place in answer.learned if place < end}
                self.openings[answer.n_prompt] = answer.opening
                return True
        return False

    def end_within(self, max_length: int, tokenizer: Any) -> int:
        """One past the last place that is worth learning of the first `max_length`.

        An answer of which they hold no more than what the template puts before any answer isn't.
        """
        begun = [place for place in self.openings if place < max_length]
        if len(self.ids) <= max_length or not begun:
            return max_length
        start = max(begun)
        return start if says_nothing(self.ids[start:max_length], self.openings[start], tokenizer) else max_length


def answer_rows(example: Example, tokenizer: Any, *, last_only: bool) -> list[Row]:
    """As few rows as hold every answer that is learned, in the order of the chat. Raises: ChatError."""
    template = ChatTemplate(tokenizer, example.tools_for_template())
    refuse_control_tokens(example.messages, tokenizer)
    rows: list[Row] = []
    for answer, passed_over in _answers(template, example.messages, learned_places(example, last_only=last_only)[::-1]):
        if not any(row.take(answer) for row in rows):
            rows.append(Row(answer.ids, set(answer.learned), {answer.n_prompt: answer.opening}, passed_over))
    return rows[::-1]


def whole_row(example: Example, tokenizer: Any) -> Row:
    """The whole chat, all of it learned but the answers with weight 0.

    Raises:
        ChatError: as for answers, and when an answer with weight 0 can't be told apart in the whole chat.
    """
    template = ChatTemplate(tokenizer, example.tools_for_template())
    refuse_control_tokens(example.messages, tokenizer)
    messages, ids = example.messages, _whole_ids(example.messages, template)
    passed_over = parts_passed_over(
        template, messages, [len(messages)], learned=learned_places(example, last_only=False)
    )
    learned = set(range(len(ids)))
    for place, message in enumerate(messages):
        if message.role != "assistant" or message.weight:
            continue
        unlearned = Row(ids, set())
        if not unlearned.take(template.answer(messages[: place + 1])):
            raise ChatError(
                f"message {place + 1} has weight 0, but the base model's chat template renders it differently in the "
                "whole chat, so it can't be left out; leave `train_on` at assistant, or remove the weight"
            )
        learned -= unlearned.learned
    return Row(ids, learned, passed_over=passed_over)


def only_answer(
    messages: Sequence[Message], example: Example, tokenizer: Any, *, named: str | None = None
) -> tuple[Answer, frozenset[Part]]:
    """The last of `messages` as an answer to the others, with the tools of `example`; and what isn't rendered of them.

    named: how faults call the answer. Default: by its number.

    Raises:
        ChatError: they can't be learned.
    """
    refuse_control_tokens(messages, tokenizer)
    template = ChatTemplate(tokenizer, example.tools_for_template())
    return next(_answers(template, messages, [len(messages) - 1], named))


def example_passed_over(example: Example, tokenizer: Any, *, last_only: bool) -> frozenset[Part]:
    """What of a chat, a preference or a labelled answer is in none of its rows; no tokens are made.

    Raises:
        ChatError: what is missing changes what the chat means, or the template refuses the chat.
    """
    template = ChatTemplate(tokenizer, example.tools_for_template())
    chats = [(*example.messages, *answer) for answer in (example.chosen, example.rejected)]
    found = frozenset[Part]()
    for messages in chats if example.chosen else [example.messages]:
        places = learned_places(example, last_only=last_only)[::-1] if example.kind == "chat" else [len(messages) - 1]
        if places and not is_only_talk(template, messages[: places[0] + 1]):
            found |= _passed_over(template, messages, places, None)
    return found


def learned_places(example: Example, *, last_only: bool) -> list[int]:
    """Where the answers stand that are learned of a chat."""
    places = [place for place, message in enumerate(example.messages) if message.role == "assistant" and message.weight]
    return places[-1:] if last_only else places


def says_nothing(ids: Sequence[int], opening: str, tokenizer: Any) -> bool:
    """Whether `ids`, the beginning of an answer, hold no more than control tokens, white space and its `opening`."""
    specials = special_token_ids(tokenizer)
    text = tokenizer.decode(ids).strip()
    return opening.strip().startswith(text) or all(token in specials for token in ids)


def _answers(
    template: ChatTemplate, messages: Sequence[Message], places: Sequence[int], last_named: str | None = None
) -> Iterator[tuple[Answer, frozenset[Part]]]:
    """The answers at `places`, the last first, each with what isn't rendered for any. Raises: ChatError."""
    messages = messages[: places[0] + 1] if places else messages
    is_talk, passed_over = is_only_talk(template, messages), frozenset[Part]()
    for place in places:
        if place == places[0] and not is_talk:
            passed_over = _passed_over(template, messages, places, last_named)
        answer = template.answer(messages[: place + 1])
        if place == places[0] and is_talk and not _spells(answer, messages):
            passed_over = _passed_over(template, messages, places, last_named)
        yield template.learnable(answer, messages[: place + 1]), passed_over


def _passed_over(
    template: ChatTemplate, messages: Sequence[Message], places: Sequence[int], last_named: str | None
) -> frozenset[Part]:
    ends = [place + 1 for place in places]
    return parts_passed_over(template, messages, ends, learned=places, last_named=last_named)


def _spells(answer: Answer, messages: Sequence[Message]) -> bool:
    """Whether the content of all `messages` is in the text that they are rendered as, to the letter."""
    text = answer.prompt + answer.said
    return all(message.content.strip() in text for message in messages)


def _whole_ids(messages: Sequence[Message], template: ChatTemplate) -> list[int]:
    if messages[-1].role == "assistant" and len(messages) > 1:
        return template.answer(messages).ids
    return template.ids(template.text(messages))
