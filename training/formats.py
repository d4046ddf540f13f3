"""Data files in, examples out. Owns what each format looks like and where each fault stood; knows no tokenizer.

A format is an entry in `_FORMATS`: the keys by which its records are known, and the function that parses one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.examples import Example, ExampleError, Message, check_chat, parse_message, text_of

FAULTS_SHOWN = 20
"""Faults that the text of a `DataError` lists; its `faults` has them all."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a data file."""

    line: int | None
    """The line, or in a JSON array the element, counted from 1; None when it's the file as a whole."""
    reason: str
    """What is wrong and what was expected."""
    unit: str = "line"
    """What `line` counts: `line`, or `element` in a JSON array."""

    def __str__(self) -> str:
        return self.reason if self.line is None else f"{self.unit} {self.line}: {self.reason}"


class DataError(ValueError):
    """A data file with faults, all of them at once."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.path = path
        self.faults = faults
        shown = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
        more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        super().__init__(f"{path} has {len(faults)} fault(s):{shown}{more}")


def read_examples(path: Path) -> list[Example]:
    """The examples in the file at `path`, in their order; each line may be of another format.

    Raises:
        DataError: the file can't be read, holds nothing, or has faults; all are listed.
    """
    examples: list[Example] = []
    faults: list[Fault] = []
    for unit, place, record in _records(path):
        if isinstance(record, _Broken):
            faults.append(Fault(place, record.reason, unit))
            continue
        try:
            examples.append(parse_record(record, place))
        except ExampleError as error:
            faults.append(Fault(place, str(error), unit))
    if faults:
        raise DataError(path, faults)
    if not examples:
        raise DataError(path, [Fault(None, "it is empty; give at least one example")])
    return examples


def parse_record(record: Any, line: int) -> Example:
    """The example that the decoded JSON value `record` spells, in whichever format.

    Raises:
        ExampleError: no format knows it, or it breaks its format's rules.
    """
    if not isinstance(record, dict):
        raise ExampleError(f"an object was expected, such as {_SHAPES}")
    for keys, parse in _FORMATS:
        if keys <= record.keys():
            return parse(record, line)
    found = ", ".join(f"`{key}`" for key in list(record)[:8]) or "nothing"
    raise ExampleError(f"no format has these keys: {found}; expected {_SHAPES}")


def _chat(record: Mapping[str, Any], line: int) -> Example:
    """OpenAI: https://platform.openai.com/docs/api-reference/fine-tuning/chat-input"""
    turns = record["messages"]
    if not isinstance(turns, list) or not turns:
        raise ExampleError("`messages` must be a list with at least one message")
    messages = tuple(parse_message(turn, place) for place, turn in enumerate(turns, start=1))
    check_chat(messages)
    tools = record.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ExampleError("`tools` must be a list of objects")
    return Example(line, messages, tuple(tools))


def _alpaca(record: Mapping[str, Any], line: int) -> Example:
    """Stanford Alpaca: instruction and input become one user turn, joined by a blank line."""
    given = [text_of(record, "instruction"), text_of(record, "input", required=False)]
    system = text_of(record, "system", required=False)
    opening = (Message("system", system),) if system else ()
    user = Message("user", "\n\n".join(text for text in given if text))
    return Example(line, (*opening, user, Message("assistant", text_of(record, "output"))))


def _prompt_completion(record: Mapping[str, Any], line: int) -> Example:
    return Example(line, prompt=text_of(record, "prompt"), completion=text_of(record, "completion"))


_FORMATS: tuple[tuple[frozenset[str], Callable[[Mapping[str, Any], int], Example]], ...] = (
    (frozenset({"messages"}), _chat),
    (frozenset({"instruction", "output"}), _alpaca),
    (frozenset({"instruction"}), _alpaca),
    (frozenset({"prompt", "completion"}), _prompt_completion),
)
_SHAPES = '{"messages": […]}, {"instruction": …, "output": …} or {"prompt": …, "completion": …}'


@dataclass(frozen=True)
class _Broken:
    """A line that couldn't be decoded."""

    reason: str


def _records(path: Path) -> Iterator[tuple[str, int, Any]]:
    """What `line` counts, where the record stood, and the decoded record or a `_Broken`."""
    try:
        with path.open("rb") as file:
            first = _first_byte(file)
            if first == b"[":
                yield from _array(file.read())
            else:
                yield from _lines(file)
    except OSError as error:
        raise DataError(path, [Fault(None, f"it can't be read: {error.strerror}; check the path")]) from error


def _first_byte(file: Any) -> bytes:
    """The first byte that isn't white space or a byte order mark; leaves `file` at its start."""
    start: bytes = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    file.seek(0)
    return start


def _lines(file: Any) -> Iterator[tuple[str, int, Any]]:
    for line, text in enumerate(file, start=1):
        if text.strip() not in (b"", b"\xef\xbb\xbf"):
            yield "line", line, _decoded(text)


def _array(content: bytes) -> Iterator[tuple[str, int, Any]]:
    decoded = _decoded(content)
    if isinstance(decoded, _Broken):
        yield "line", _broken_line(content), decoded
        return
    for place, record in enumerate(decoded, start=1):
        yield "element", place, record


def _broken_line(content: bytes) -> int:
    """The line, counted from 1, on which the JSON in `content` breaks; of its first bad byte when it isn't UTF-8."""
    try:
        json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    except json.JSONDecodeError as error:
        return error.lineno
    except (ValueError, RecursionError):
        pass  # neither says where: a number too long, a nesting too deep
    return 1


def _decoded(text: bytes) -> Any:
    try:
        decoded = json.loads(text.decode("utf-8-sig"), parse_constant=_no_constant)
        if b"\\ud" in text.lower():
            json.dumps(decoded, ensure_ascii=False).encode()
        return decoded
    except UnicodeEncodeError:
        return _Broken(
            "it holds half a surrogate pair (\\ud800 to \\udfff), which is no character; write the character itself"
        )
    except UnicodeDecodeError as error:
        return _Broken(f"it isn't UTF-8: byte {text[error.start]:#04x}; save the file as UTF-8")
    except json.JSONDecodeError as error:
        return _Broken(f"it isn't JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return _Broken("it isn't JSON that can be used: it is nested too deeply")
    except ValueError as error:
        return _Broken(f"it isn't JSON that can be used: {str(error).split(';')[0]}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} isn't a JSON value")
