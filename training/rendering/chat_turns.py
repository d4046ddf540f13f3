"""One answer in a chat as token ids: the prompt for the engine, and what is to be generated after it.

Nothing is guessed. The prompt is the chat template's rendering of the messages before the answer, with its generation
prompt, as in the engine; the answer is what follows it in the rendering of the chat including the answer. If the second
doesn't start with the first, the chat is rejected.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from jinja2 import TemplateError

from training.data.examples import Message
from training.rendering.chat_messages import prepare_conversation
from training.rendering.special_tokens import find_special_token, find_stop_token_ids, special_token_ids

_MARKS = re.compile(r"\{%-?\s*generation\b")


class ChatError(ValueError):
    """A chat that this tokenizer or its template can't make trainable; the text says why."""


@dataclass(frozen=True)
class Answer:
    """A chat up to and including one answer."""

    ids: list[int]
    """Ids of the prompt, the answer, and what the template adds after it."""
    n_prompt: int
    """Number of `ids` in the prompt for the engine."""
    end: int
    """One past the last id to be generated, the one at which the engine stops."""
    template_end: int
    """Like `end`, without an end token that the template doesn't add by itself."""
    learned: frozenset[int]
    """The positions in `ids` that are trained on: the answer's, or those marked by the template, and its end."""
    prompt: str
    """The text of the prompt."""
    text_after: str
    """The text after it: the answer's, and what the template adds around it."""
    opening: str = ""
    """The start of `text_after` whatever the answer, such as an empty reasoning block."""

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt for the engine."""
        return self.ids[: self.n_prompt]

    @property
    def answer_ids(self) -> list[int]:
        """What is to be generated, including the end token."""
        return self.ids[self.n_prompt : self.end]


class ChatTemplate:
    """A tokenizer's chat template, for chats with the same tools."""

    def __init__(self, tokenizer: Any, tools: list[dict[str, Any]] | None = None) -> None:
        """Raises: ChatError when there is no chat template, or a tool's definition contains a control token."""
        if not getattr(tokenizer, "chat_template", None):
            raise ChatError("the base model has no chat template; use a chat model, or prompt/completion data")
        self._tokenizer, self._tools = tokenizer, tools
        self._template: str = tokenizer.get_chat_template(None, self._tools)
        _refuse_special(json.dumps(self._tools, ensure_ascii=False), "the definition of a tool", tokenizer)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools' definitions as passed to the template."""
        return self._tools or []

    def with_tools(self, tools: list[dict[str, Any]]) -> ChatTemplate:
        """Return the same template for chats with other tools."""
        other = copy.copy(self)
        other._tools = tools or None
        return other

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Render `messages` with the template. Raises: ChatError when it rejects them."""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    prepare_conversation(self._template, messages),
                    tools=self._tools,
                    add_generation_prompt=add_generation_prompt,
                    tokenize=False,
                )
            )
        except (TemplateError, TypeError) as error:
            raise ChatError(f"the base model's chat template rejects the chat: {error}") from error

    def ids(self, text: str) -> list[int]:
        """Tokenise a text that the template rendered, without adding anything."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def answer(self, messages: Sequence[Message]) -> Answer:
        """Return the last of `messages` as an answer to the others. Raises: ChatError."""
        place = len(messages)
        if place == 1:
            raise ChatError(
                "message 1 is from the assistant, with no message before it to answer; remove it or give it weight 0"
            )
        prompt, whole = self.text(messages[:-1], add_generation_prompt=True), self.text(messages)
        if not whole.startswith(prompt):
            raise ChatError(
                f"the base model's chat template starts message {place} differently than the generation prompt, "
                f"which ends in {prompt[-40:]!r}, so training wouldn't match serving; use a template whose answers "
                "start with its generation prompt"
            )
        n_prompt, ids = tokenize_continuation(prompt, whole, self._tokenizer, add_special_tokens=False)
        template_end = self._find_turn_end(ids, n_prompt)
        stop = self._find_missing_stop(ids[:template_end], messages)
        learned = self._find_marked(messages, ids, range(n_prompt, template_end))
        text_after = whole[len(prompt) :]
        if stop is None:
            return Answer(ids, n_prompt, template_end, template_end, learned, prompt, text_after)
        ids = [*ids[:template_end], stop]
        return Answer(ids, n_prompt, len(ids), template_end, learned | {template_end}, prompt, text_after)

    def check_learnable(self, answer: Answer, messages: Sequence[Message]) -> Answer:
        """Return `answer`, the last of `messages`, with its `opening`. Raises: ChatError when only its end is left."""
        opening, specials = self._find_opening(messages, answer), special_token_ids(self._tokenizer)
        if opening == answer.text_after or all(answer.ids[place] in specials for place in answer.learned):
            raise ChatError(
                "the base model's chat template and tokenizer leave only the end of the turn from message "
                f"{len(messages)}, an answer, so the model would learn to say nothing; add some text, or use "
                "another base model"
            )
        return replace(answer, opening=opening)

    def _find_opening(self, messages: Sequence[Message], answer: Answer) -> str:
        """Return the text before the answer's own words, or, if those can't be found, what an empty answer shares."""
        own = messages[-1].content.strip()
        if own and own in answer.text_after:
            return answer.text_after[: answer.text_after.index(own)]
        try:
            empty = self.text([*messages[:-1], Message(messages[-1].role, "")])
        except ChatError:
            return ""  # a template that allows no empty answer
        shared = takewhile(
            lambda pair: pair[0] == pair[1], zip(answer.text_after, empty[len(answer.prompt) :], strict=False)
        )
        return "".join(sign for sign, _ in shared)

    def _find_turn_end(self, ids: list[int], n_prompt: int) -> int:
        """Return one past the turn's last control token, if only white space follows: the engine has stopped."""
        specials = special_token_ids(self._tokenizer)
        last = next((place for place in reversed(range(n_prompt, len(ids))) if ids[place] in specials), None)
        if last is None or self._tokenizer.decode(ids[last + 1 :]).strip():
            return len(ids)
        return last + 1

    def _find_missing_stop(self, ids: list[int], messages: Sequence[Message]) -> int | None:
        """Return the id that must follow `ids`, a turn that doesn't end in one at which the engine stops; else None.

        It is what the template puts there before another turn, as with GLM, if the engine stops at that; else the
        tokenizer's end token.
        """
        stops = find_stop_token_ids(self._tokenizer)
        if ids[-1] in stops:
            return None
        follows = Message("tool", "-") if messages[-1].extra.get("tool_calls") else Message("user", "-")
        try:
            longer = self.ids(self.text([*messages, follows]))
        except ChatError:
            longer = []  # a template that allows nothing after it
        if longer[: len(ids)] == ids and len(longer) > len(ids) and longer[len(ids)] in stops:
            return longer[len(ids)]
        end: int | None = self._tokenizer.eos_token_id
        return end

    def _find_marked(self, messages: Sequence[Message], ids: list[int], places: range) -> frozenset[int]:
        """Return those of `places` within the template's `{% generation %}` tags, and the end of the turn; or all."""
        if not _MARKS.search(self._template):
            return frozenset(places)
        rendered = self._tokenizer.apply_chat_template(
            prepare_conversation(self._template, messages),
            tools=self._tools,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        if rendered["input_ids"][: places.stop] != ids[: places.stop]:
            return frozenset(places)  # prompt and answer were tokenised separately, so the tags' positions don't apply
        marked = {place for place in places if rendered["assistant_masks"][place]}
        specials = special_token_ids(self._tokenizer)
        if not self._tokenizer.decode([ids[place] for place in sorted(marked) if ids[place] not in specials]).strip():
            raise ChatError(
                f"the chat template's generation marks leave out message {len(messages)}, so it wouldn't be trained "
                "on; correct the marks or remove them"
            )
        ends_in_special = ids[places.stop - 1] in specials
        return frozenset(marked | ({places.stop - 1} if ends_in_special else set()))


def tokenize_continuation(
    beginning: str, whole: str, tokenizer: Any, *, add_special_tokens: bool
) -> tuple[int, list[int]]:
    """Return (number of ids of `beginning`, ids of `whole`), where the ids start with those of `beginning` alone.

    The engine tokenises a prompt alone, so no token may span the boundary; if one would, both sides are tokenised
    separately.

    Raises:
        ChatError: separately they don't spell the same text.
    """
    prompt_ids = list(tokenizer(beginning, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])
    if add_special_tokens and prompt_ids and prompt_ids[-1] == tokenizer.eos_token_id:
        prompt_ids.pop()  # some tokenizers add an end token to every text
    ids = list(tokenizer(whole, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])
    if ids[: len(prompt_ids)] == prompt_ids:
        return len(prompt_ids), ids
    apart = prompt_ids + list(tokenizer(whole[len(beginning) :], add_special_tokens=False, verbose=False)["input_ids"])
    if tokenizer.decode(apart) != tokenizer.decode(ids):
        raise ChatError(
            f"the tokenizer merges the prompt's end {beginning[-20:]!r} and the answer's start into one token; "
            "change the end of the prompt, for example remove a trailing space"
        )
    return len(prompt_ids), apart


def refuse_control_tokens(messages: Iterable[Message], tokenizer: Any) -> None:
    """Raise `ChatError` when a message contains the text of a control token, such as the one that ends a turn.

    Tokenizer and engine would read it as that token: the chat would have other turns than its messages.
    """
    for place, message in enumerate(messages, start=1):
        texts = [message.content, *(json.dumps(value, ensure_ascii=False) for value in message.extra.values())]
        _refuse_special("\n".join(texts), f"message {place}", tokenizer)


def _refuse_special(text: str, where: str, tokenizer: Any) -> None:
    if found := find_special_token(text, tokenizer):
        raise ChatError(
            f"{where} has the text {found!r}, which this base model reads as a control token, here and when it is "
            "served; remove it, or put a space inside it"
        )
