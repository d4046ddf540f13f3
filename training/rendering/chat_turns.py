"""One answer in a chat as token ids: the prompt that the engine will be given, and what is to be generated after it.

Nothing is guessed. The prompt is what the chat template makes of the messages before the answer, with its generation
prompt, as the engine renders a request; the answer is what follows it when the template renders the chat through the
answer. Where the second doesn't begin with the first the chat is refused.
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
from training.rendering.chat_messages import conversation_for
from training.rendering.special_tokens import special_token_ids, special_token_in, stop_token_ids

_MARKS = re.compile(r"\{%-?\s*generation\b")


class ChatError(ValueError):
    """A chat that this tokenizer or its template can't make trainable; the text says why."""


@dataclass(frozen=True)
class Answer:
    """A chat up to and with one answer."""

    ids: list[int]
    """The prompt's, the answer's, and what the template puts behind it."""
    n_prompt: int
    """How many of `ids` the engine will be given."""
    end: int
    """One past the last id that is to be generated, the one at which the engine stops."""
    template_end: int
    """As `end`, without an end token that the template doesn't put there by itself."""
    learned: frozenset[int]
    """The places in `ids` that are learned: those of the answer, or of them what the template marks, and its end."""
    prompt: str
    """The text of the prompt."""
    said: str
    """The text behind it: the answer's, and what the template puts around that."""
    opening: str = ""
    """How `said` begins whatever the answer says, such as an empty block for thoughts."""

    @property
    def prompt_ids(self) -> list[int]:
        """What the engine will be given."""
        return self.ids[: self.n_prompt]

    @property
    def answer_ids(self) -> list[int]:
        """What is to be generated, end token included."""
        return self.ids[self.n_prompt : self.end]


class ChatTemplate:
    """A tokenizer's chat template, for chats with the same tools."""

    def __init__(self, tokenizer: Any, tools: list[dict[str, Any]] | None = None) -> None:
        """Raises: ChatError when there is no chat template, or tools spell a control token."""
        if not getattr(tokenizer, "chat_template", None):
            raise ChatError("the base model has no chat template; use a chat model, or prompt/completion data")
        self._tokenizer, self._tools = tokenizer, tools
        self._template: str = tokenizer.get_chat_template(None, self._tools)
        _refuse_special(json.dumps(self._tools, ensure_ascii=False), "the definition of a tool", tokenizer)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools' definitions as the template is given them."""
        return self._tools or []

    def with_tools(self, tools: list[dict[str, Any]]) -> ChatTemplate:
        """The same template for chats with other tools."""
        other = copy.copy(self)
        other._tools = tools or None
        return other

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """`messages` as the template spells them. Raises: ChatError when it refuses them."""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    conversation_for(self._template, messages),
                    tools=self._tools,
                    add_generation_prompt=add_generation_prompt,
                    tokenize=False,
                )
            )
        except (TemplateError, TypeError) as error:
            raise ChatError(f"the base model's chat template refuses the chat: {error}") from error

    def ids(self, text: str) -> list[int]:
        """Token ids of a text that the template made; nothing is added to it."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def answer(self, messages: Sequence[Message]) -> Answer:
        """The last of `messages` as an answer to the others. Raises: ChatError."""
        place = len(messages)
        if place == 1:
            raise ChatError(
                "message 1 is the assistant's, with nothing before it to answer; remove it or give it weight 0"
            )
        prompt, whole = self.text(messages[:-1], add_generation_prompt=True), self.text(messages)
        if not whole.startswith(prompt):
            raise ChatError(
                f"the base model's chat template begins message {place} otherwise than the prompt that asks for it, "
                f"which ends in {prompt[-40:]!r}, so training wouldn't match serving; give the base model a template "
                "whose answers begin with its generation prompt"
            )
        n_prompt, ids = continued(prompt, whole, self._tokenizer, add_special_tokens=False)
        template_end = self._end_of_turn(ids, n_prompt)
        stop = self._missing_stop(ids[:template_end], messages)
        learned = self._marked(messages, ids, range(n_prompt, template_end))
        said = whole[len(prompt) :]
        if stop is None:
            return Answer(ids, n_prompt, template_end, template_end, learned, prompt, said)
        ids = [*ids[:template_end], stop]
        return Answer(ids, n_prompt, len(ids), template_end, learned | {template_end}, prompt, said)

    def learnable(self, answer: Answer, messages: Sequence[Message]) -> Answer:
        """`answer`, the last of `messages`, with its `opening`. Raises: ChatError when nothing but its end is left."""
        opening, specials = self._opening(messages, answer), special_token_ids(self._tokenizer)
        if opening == answer.said or all(answer.ids[place] in specials for place in answer.learned):
            raise ChatError(
                f"of message {len(messages)}, an answer, the base model's chat template and tokenizer leave nothing "
                "but the end of a turn, so only silence would be learned; give it a text, or take another base model"
            )
        return replace(answer, opening=opening)

    def _opening(self, messages: Sequence[Message], answer: Answer) -> str:
        """What stands before the answer's own words, or, where those can't be found, what an empty answer shares."""
        own = messages[-1].content.strip()
        if own and own in answer.said:
            return answer.said[: answer.said.index(own)]
        try:
            empty = self.text([*messages[:-1], Message(messages[-1].role, "")])
        except ChatError:
            return ""  # a template that lets no answer be empty
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(answer.said, empty[len(answer.prompt) :], strict=False))
        return "".join(sign for sign, _ in shared)

    def _end_of_turn(self, ids: list[int], n_prompt: int) -> int:
        """One past the turn's last control token, when only white space follows it: the engine has stopped by then."""
        specials = special_token_ids(self._tokenizer)
        last = next((place for place in reversed(range(n_prompt, len(ids))) if ids[place] in specials), None)
        if last is None or self._tokenizer.decode(ids[last + 1 :]).strip():
            return len(ids)
        return last + 1

    def _missing_stop(self, ids: list[int], messages: Sequence[Message]) -> int | None:
        """The id that must follow `ids`, a turn that doesn't end in one at which the engine stops; else None.

        It is what the template puts there when another turn follows, as with GLM, if the engine stops at that; else
        the tokenizer's end token.
        """
        stops = stop_token_ids(self._tokenizer)
        if ids[-1] in stops:
            return None
        follows = Message("tool", "-") if messages[-1].extra.get("tool_calls") else Message("user", "-")
        try:
            longer = self.ids(self.text([*messages, follows]))
        except ChatError:
            longer = []  # a template that lets nothing follow
        if longer[: len(ids)] == ids and len(longer) > len(ids) and longer[len(ids)] in stops:
            return longer[len(ids)]
        end: int | None = self._tokenizer.eos_token_id
        return end

    def _marked(self, messages: Sequence[Message], ids: list[int], places: range) -> frozenset[int]:
        """Those of `places` that the template's `{% generation %}` marks hold, and the end of the turn; or all."""
        if not _MARKS.search(self._template):
            return frozenset(places)
        rendered = self._tokenizer.apply_chat_template(
            conversation_for(self._template, messages),
            tools=self._tools,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        if rendered["input_ids"][: places.stop] != ids[: places.stop]:
            return frozenset(places)  # prompt and answer were tokenised apart, so the marks' places don't apply
        marked = {place for place in places if rendered["assistant_masks"][place]}
        specials = special_token_ids(self._tokenizer)
        if not self._tokenizer.decode([ids[place] for place in sorted(marked) if ids[place] not in specials]).strip():
            raise ChatError(
                f"the chat template's generation marks leave out message {len(messages)}, so nothing of it would be "
                "learned; correct the marks or remove them"
            )
        ends_in_special = ids[places.stop - 1] in specials
        return frozenset(marked | ({places.stop - 1} if ends_in_special else set()))


def continued(beginning: str, whole: str, tokenizer: Any, *, add_special_tokens: bool) -> tuple[int, list[int]]:
    """(how many ids `beginning` has, ids of `whole`), where the ids begin with those of `beginning` alone.

    The engine tokenises a prompt alone, so no token may span the seam; where one would, both sides are tokenised apart.

    Raises:
        ChatError: apart they don't spell the same text.
    """
    prompt_ids = list(tokenizer(beginning, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])
    if add_special_tokens and prompt_ids and prompt_ids[-1] == tokenizer.eos_token_id:
        prompt_ids.pop()  # some tokenizers end every text
    ids = list(tokenizer(whole, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])
    if ids[: len(prompt_ids)] == prompt_ids:
        return len(prompt_ids), ids
    apart = prompt_ids + list(tokenizer(whole[len(beginning) :], add_special_tokens=False, verbose=False)["input_ids"])
    if tokenizer.decode(apart) != tokenizer.decode(ids):
        raise ChatError(
            f"the tokenizer joins the prompt's end {beginning[-20:]!r} and the answer's beginning into one token and "
            "can't tell them apart; let the prompt end otherwise, without a space"
        )
    return len(prompt_ids), apart


def refuse_control_tokens(messages: Iterable[Message], tokenizer: Any) -> None:
    """Raises `ChatError` when a message spells a control token, such as the one that ends a turn.

    Tokenizer and engine would read it as that token: the chat would have other turns than its messages.
    """
    for place, message in enumerate(messages, start=1):
        said = [message.content, *(json.dumps(value, ensure_ascii=False) for value in message.extra.values())]
        _refuse_special("\n".join(said), f"message {place}", tokenizer)


def _refuse_special(text: str, where: str, tokenizer: Any) -> None:
    if found := special_token_in(text, tokenizer):
        raise ChatError(
            f"{where} has the text {found!r}, which this base model reads as a control token, here and when it is "
            "served; remove it, or put a space inside it"
        )
