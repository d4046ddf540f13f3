"""The example, independent of file and format. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["chat", "prompt_completion", "preference", "labelled", "text"]
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class ExampleError(ValueError):
    """A record that isn't an example; `faults` says what is wrong with it, without its position."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        """One sentence for each fault."""
        super().__init__("; ".join(faults))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    """One of `ROLES`."""
    content: str
    """The text; empty if an assistant only calls tools."""
    weight: int = 1
    """Of an assistant's turn: 1 if it is trained on, 0 if it is only context."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other fields, as in OpenAI's API: tool_calls (arguments as JSON text), tool_call_id, name; reasoning."""

    def for_template(self) -> dict[str, Any]:
        """Return the message for chat templates: equal, including the order of keys, to what vLLM 0.32 passes to them.

        The arguments of tool calls, JSON text in the file, are decoded: templates render an object.
        """
        given = {"role": self.role, "content": self.content, **self.extra}
        if "tool_calls" in given:
            given["tool_calls"] = [_order_call(call) for call in given["tool_calls"]]
        if "reasoning" in given:  # vLLM passes it under both names; model families differ in which they read
            given["reasoning_content"] = given["reasoning"]
        if self.role == "developer":
            given["tools"] = None
        return given

    def to_record(self) -> dict[str, Any]:
        """Return the message as in OpenAI's JSONL; `weight` only if it is 0."""
        content = None if not self.content and "tool_calls" in self.extra else self.content
        weight = {} if self.weight else {"weight": 0}
        return {"role": self.role, "content": content, **self.extra, **weight}


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a chat, a prompt and its completion, a preference, a labelled answer, or a text."""

    line: int
    """Its position in the file: the line, in a JSON array the element, in Parquet the row, counted from 1."""
    messages: tuple[Message, ...] = ()
    """The chat; of a preference the chat before the answers; empty for a prompt and completion."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The tools available in the chat, as in OpenAI's API."""
    prompt: str | None = None
    """Text given as context, without a chat template; None for a chat."""
    completion: str | None = None
    """Text that is trained on after `prompt`."""
    chosen: tuple[Message, ...] = ()
    """Of a preference: the better answer to `messages`, one assistant turn; else empty."""
    rejected: tuple[Message, ...] = ()
    """Of a preference: the worse answer to `messages`."""
    label: bool | None = None
    """Of KTO: whether the last answer in `messages` is a good one; else None."""
    text: str | None = None
    """Plain text, all of it trained on, without a chat template; else None."""

    @property
    def kind(self) -> Kind:
        """The kind of example."""
        if self.text is not None:
            return "text"
        if self.chosen:
            return "preference"
        if self.label is not None:
            return "labelled"
        return "chat" if self.prompt is None else "prompt_completion"

    def tools_for_template(self) -> list[dict[str, Any]] | None:
        """Return the tools as vLLM 0.32 passes them to chat templates, which print them as JSON; None without tools."""
        return [_order_tool(tool) for tool in self.tools] or None

    def to_record(self) -> dict[str, Any]:
        """Return the example as a JSONL record, in OpenAI's form if possible. Read again, only `line` differs."""
        if self.text is not None:
            return {"text": self.text}
        if self.prompt is not None:
            return {"prompt": self.prompt, "completion": self.completion}
        chat: dict[str, Any] = {"messages": _to_records(self.messages)}
        if self.tools:
            chat["tools"] = [dict(tool) for tool in self.tools]
        if self.chosen:
            answers = {
                "preferred_output": _to_records(self.chosen),
                "non_preferred_output": _to_records(self.rejected),
            }
            return {"input": chat, **answers}
        return chat if self.label is None else {**chat, "label": self.label}


def _to_records(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [message.to_record() for message in messages]


def _order_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return `call` in vLLM's order of keys, which matters if a template prints the call as JSON (Mistral's do)."""
    function = call["function"]
    arguments = function.get("arguments")
    decoded = json.loads(arguments) if isinstance(arguments, str) and arguments else arguments or {}
    return {"id": call["id"], "function": {"arguments": decoded, "name": function["name"]}, "type": "function"}


def _order_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tool` with the keys that vLLM keeps, in its order; a missing description becomes null there, too."""
    function = tool["function"]
    known = {key: function.get(key) for key in ("name", "description", "parameters")}
    strict = {} if function.get("strict") is None else {"strict": function["strict"]}
    return {"type": "function", "function": {**known, **strict}}
