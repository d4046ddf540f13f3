"""What an example is, whatever file it came from, and the rules it must keep. Knows no file format and no tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["chat", "prompt_completion", "preference", "labelled", "text"]
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class ExampleError(ValueError):
    """A record that is no example; the text says what is wrong with it, without saying where it stood."""


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    """One of `ROLES`."""
    content: str
    """What was said; empty where an assistant only calls tools."""
    weight: int = 1
    """Of an assistant's turn: 1 it is learned, 0 it is only context."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else the chat template may use, as it stood in the file: tool_calls, tool_call_id, name."""

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates take it."""
        return {"role": self.role, "content": self.content, **self.extra}


@dataclass(frozen=True)
class Example:
    """One thing to learn: a chat, a prompt and its completion, a preference, a labelled answer, or a text."""

    line: int
    """Where it stood in its file: the line, or in a JSON array the element, both counted from 1."""
    messages: tuple[Message, ...] = ()
    """The chat; empty for a prompt and completion."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The tools that the chat could call, as OpenAI spells them."""
    prompt: str | None = None
    """Text that is given, with no chat template around it; None for a chat."""
    completion: str | None = None
    """Text that is learned after `prompt`."""
    chosen: tuple[Message, ...] = ()
    """Of a preference: the better answer to `messages`, one assistant's turn; else empty."""
    rejected: tuple[Message, ...] = ()
    """Of a preference: the worse answer to `messages`."""
    label: bool | None = None
    """Of KTO: whether the last answer in `messages` is a good one; else None."""
    text: str | None = None
    """Plain text, all of it learned, with no chat template around it; else None."""

    @property
    def kind(self) -> Kind:
        """What sort of example this is."""
        if self.text is not None:
            return "text"
        if self.chosen:
            return "preference"
        if self.label is not None:
            return "labelled"
        return "chat" if self.prompt is None else "prompt_completion"


def parse_message(record: Any, place: int) -> Message:
    """The message that `record` spells; `place` counts from 1.

    Raises:
        ExampleError: it breaks a rule.
    """
    if not isinstance(record, dict):
        raise ExampleError(f"message {place} is {_kind(record)}, but must be an object with `role` and `content`")
    role = record.get("role")
    if role is None:
        raise ExampleError(f"message {place} has no `role`; it must be one of {', '.join(ROLES)}")
    if role not in ROLES:
        raise ExampleError(f"message {place} has the unknown role {role!r}; it must be one of {', '.join(ROLES)}")
    extra = {name: record[name] for name in ("tool_calls", "tool_call_id", "name") if record.get(name) is not None}
    return Message(role, _content(record, place), _weight(record, place), extra)


def check_chat(messages: tuple[Message, ...]) -> None:
    """Raises `ExampleError` when nothing in `messages` can be learned."""
    answers = [message for message in messages if message.role == "assistant"]
    if not answers:
        raise ExampleError("no message has the role assistant, so there is nothing to learn")
    if not any(message.weight for message in answers):
        raise ExampleError("every assistant message has weight 0, so there is nothing to learn")


def text_of(record: Mapping[str, Any], key: str, *, required: bool = True) -> str:
    """The text under `key`; empty when it's absent and not `required`.

    Raises:
        ExampleError: it isn't a text, or is required and missing or blank.
    """
    value = record.get(key)
    if value is None and not required:
        return ""
    if value is None:
        raise ExampleError(f"`{key}` is missing")
    if not isinstance(value, str):
        raise ExampleError(f"`{key}` is {_kind(value)}, but must be a text")
    if required and not value.strip():
        raise ExampleError(f"`{key}` is empty")
    return value


def _content(record: Mapping[str, Any], place: int) -> str:
    content = record.get("content")
    if content is None and record.get("tool_calls"):
        return ""
    if isinstance(content, list):
        content = _joined(content, place)
    if not isinstance(content, str):
        given = "no `content`" if content is None else f"`content` that is {_kind(content)}"
        raise ExampleError(f"message {place} has {given}; it must be a text")
    if record["role"] == "assistant" and not content.strip() and not record.get("tool_calls"):
        raise ExampleError(f"message {place} is an assistant's and has empty `content`, so there is nothing to learn")
    return content


def _joined(parts: list[Any], place: int) -> str:
    """The text of content given in parts, as OpenAI allows it."""
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    strings = [text for text in texts if isinstance(text, str)]
    if len(strings) != len(parts):
        raise ExampleError(f"message {place} has a content part that isn't text; only text can be trained on here")
    return "".join(strings)


def _weight(record: Mapping[str, Any], place: int) -> int:
    weight = record.get("weight", 1)
    if weight is None or (record["role"] != "assistant" and "weight" not in record):
        return 1
    if weight not in (0, 1) or isinstance(weight, bool):
        raise ExampleError(f"message {place} has weight {weight!r}; it must be 0 (not learned) or 1 (learned)")
    return int(weight)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
