"""A chat as rows of token ids, each with the places that are learned. Knows no limit on their length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.examples import Example, Message
from training.rendering.chat_turns import Answer, ChatError, ChatTemplate, refuse_control_tokens


@dataclass
class Row:
    """Token ids and which of them are learned."""

    ids: list[int]
    learned: set[int]
    """Places in `ids`."""

    def take(self, answer: Answer) -> bool:
        """Whether `answer` stands in this row just as the engine will see it; if so, it is learned here from now on."""
        for end in (answer.end, answer.template_end):
            if self.ids[:end] == answer.ids[:end]:
                self.learned |= {place for place in answer.learned if place < end}
                return True
        return False


def answer_rows(example: Example, tokenizer: Any, *, last_only: bool) -> list[Row]:
    """As few rows as hold every answer that is learned, in the order of the chat. Raises: ChatError."""
    template = ChatTemplate(tokenizer, example.tools_for_template())
    refuse_control_tokens(example.messages, tokenizer)
    places = [place for place, message in enumerate(example.messages) if _is_learned(message)]
    rows: list[Row] = []
    for place in reversed(places[-1:] if last_only else places):
        answer = template.answer(example.messages[: place + 1])
        if not any(row.take(answer) for row in rows):
            rows.append(Row(answer.ids, set(answer.learned)))
    return rows[::-1]


def whole_row(example: Example, tokenizer: Any) -> Row:
    """The whole chat, all of it learned but the answers with weight 0.

    Raises:
        ChatError: as for answers, and when an answer with weight 0 can't be told apart in the whole chat.
    """
    template = ChatTemplate(tokenizer, example.tools_for_template())
    refuse_control_tokens(example.messages, tokenizer)
    ids = _whole_ids(example.messages, template)
    learned = set(range(len(ids)))
    for place, message in enumerate(example.messages):
        if message.role != "assistant" or message.weight:
            continue
        unlearned = Row(ids, set())
        if not unlearned.take(template.answer(example.messages[: place + 1])):
            raise ChatError(
                f"message {place + 1} has weight 0, but the base model's chat template renders it differently in the "
                "whole chat, so it can't be left out; leave `train_on` at assistant, or remove the weight"
            )
        learned -= unlearned.learned
    return Row(ids, learned)


def only_answer(messages: Sequence[Message], example: Example, tokenizer: Any) -> Answer:
    """The last of `messages` as an answer to the others, with the tools of `example`. Raises: ChatError."""
    refuse_control_tokens(messages, tokenizer)
    return ChatTemplate(tokenizer, example.tools_for_template()).answer(messages)


def _whole_ids(messages: Sequence[Message], template: ChatTemplate) -> list[int]:
    if messages[-1].role == "assistant" and len(messages) > 1:
        return template.answer(messages).ids
    return template.ids(template.text(messages))


def _is_learned(message: Message) -> bool:
    return message.role == "assistant" and message.weight != 0
