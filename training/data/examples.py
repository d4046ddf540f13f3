"""What an example is, whatever file it came from. Knows no file, no format and no tokenizer; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["chat", "prompt_completion", "preference", "labelled", "text"]
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class ExampleError(ValueError):
    """A record that is no example; `faults` says what is wrong with it, without saying where it stood."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        """One sentence for each thing that is wrong."""
        super().__init__("; ".join(faults))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    """One of `ROLES`."""
    content: str
    """What was said; empty where an assistant only calls tools."""
    weight: int = 1
    """Of an assistant's turn: 1 it is learned, 0 it is only context."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else there was, as OpenAI spells it: tool_calls (arguments as JSON text), tool_call_id, name; reasoning."""

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates take it: equal, order of keys included, to what vLLM 0.32 hands its templates.

        The arguments of tool calls, a JSON text in the file, are decoded: templates render an object.
        """
        given = {"role": self.role, "content": self.content, **self.extra}
        if "tool_calls" in given:
            given["tool_calls"] = [_call_for_template(call) for call in given["tool_calls"]]
        if "reasoning" in given:  # vLLM hands it over under both names; families differ in which they read
            given["reasoning_content"] = given["reasoning"]
        if self.role == "developer":
            given["tools"] = None
        return given

    def to_record(self) -> dict[str, Any]:
        """The message as OpenAI's JSONL has it; `weight` only where it is 0."""
        content = None if not self.content and "tool_calls" in self.extra else self.content
        weight = {} if self.weight else {"weight": 0}
        return {"role": self.role, "content": content, **self.extra, **weight}


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn: a chat, a prompt and its completion, a preference, a labelled answer, or a text."""

    line: int
    """Where it stood in its file: the line, in a JSON array the element, in Parquet the row, counted from 1."""
    messages: tuple[Message, ...] = ()
    """The chat; of a preference what was answered; empty for a prompt and completion."""
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

    def tools_for_template(self) -> list[dict[str, Any]] | None:
        """The tools as vLLM 0.32 hands them to chat templates, which print them as JSON; None where there are none."""
        return [_tool_for_template(tool) for tool in self.tools] or None

    def to_record(self) -> dict[str, Any]:
        """The example as a line of JSONL: OpenAI's form where it has one. Read again, it is equal but for `line`."""
        if self.text is not None:
            return {"text": self.text}
        if self.prompt is not None:
            return {"prompt": self.prompt, "completion": self.completion}
        chat: dict[str, Any] = {"messages": _records(self.messages)}
        if self.tools:
            chat["tools"] = [dict(tool) for tool in self.tools]
        if self.chosen:
            answers = {
                "preferred_output": _records(self.chosen),
                "non_preferred_output": _records(self.rejected),
            }
            return {"input": chat, **answers}
        return chat if self.label is None else {**chat, "label": self.label}


def _records(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [message.to_record() for message in messages]


def _call_for_template(call: Mapping[str, Any]) -> dict[str, Any]:
    """`call` in vLLM's order of keys, which shows wherever a template prints the call as JSON (Mistral's do)."""
    function = call["function"]
    arguments = function.get("arguments")
    decoded = json.loads(arguments) if isinstance(arguments, str) and arguments else arguments or {}
    return {"id": call["id"], "function": {"arguments": decoded, "name": function["name"]}, "type": "function"}


def _tool_for_template(tool: Mapping[str, Any]) -> dict[str, Any]:
    """`tool` with the keys that vLLM knows, in its order; a description that is missing is null there too."""
    function = tool["function"]
    told = {key: function.get(key) for key in ("name", "description", "parameters")}
    strict = {} if function.get("strict") is None else {"strict": function["strict"]}
    return {"type": "function", "function": {**told, **strict}}
