"""JSON text in, one decoded value out. A fast parser first; a careful one only to explain what is wrong.

Refuses what parsers disagree about, because it would be learned silently wrong: keys that stand twice, NaN, numbers
that overflow, half surrogates, the NUL character. Imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

MAX_DEPTH = 100
"""Deepest nesting of lists and objects; far deeper than any chat or tool schema, and safe for every later reader."""

_KEY_ENDS = re.compile(rb'"[ \t\r\n]*:')
_QUOTED_KEY_ENDS = re.compile(rb'\\"[ \t\r\n]*:')


@dataclass(frozen=True)
class Broken:
    """What stood in the place of a record that couldn't be decoded."""

    reason: str
    """What is wrong and what was expected."""
    encoding: bool = False
    """Whether the text isn't UTF-8, which is told once for a file."""
    place: int | None = None
    """The line in the text at which it breaks, counted from 1, where that is known."""


Record = tuple[str, int | None, Any]
"""What the place counts (`line`, `element`, `row`), the place counted from 1, and a decoded value or a `Broken`."""


def decode(text: bytes) -> Any:
    """The value of the JSON in `text`, or a `Broken` that explains why there is none."""
    try:
        value = orjson.loads(text)
        return explained(text) if suspicious(text, value) else value
    except orjson.JSONDecodeError:
        return explained(text)


def suspicious(text: bytes, value: Any) -> bool:
    """Whether the careful parser must look again: never False where a key stands twice, sometimes True in vain."""
    if b"\\u0000" in text or b'\\\\"' in text:
        return True
    try:
        # Each key is followed by a colon; more such places than keys are left: one stood twice, or a text looks so.
        return len(_KEY_ENDS.findall(text)) - len(_QUOTED_KEY_ENDS.findall(text)) != _count_keys(value, MAX_DEPTH)
    except RecursionError:
        return True


def _count_keys(value: Any, depth: int) -> int:
    """Keys of all objects in `value`."""
    if depth == 0:
        raise RecursionError
    count = 0
    if type(value) is dict:
        count = len(value)
        for item in value.values():
            if type(item) is list or type(item) is dict:
                count += _count_keys(item, depth - 1)
    elif type(value) is list:
        for item in value:
            if type(item) is dict or type(item) is list:
                count += _count_keys(item, depth - 1)
    return count


class _Refused(ValueError):
    """A value that JSON, or a parser of it, would let pass."""


def explained(text: bytes) -> Any:
    """As `decode`, by the careful parser at once."""
    try:
        return _careful(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        return not_utf8(error, text)
    except json.JSONDecodeError as error:
        return Broken(f"it isn't JSON: {_remedy(error)} at column {error.colno}", place=error.lineno)
    except RecursionError:
        return Broken(f"it isn't JSON that can be used: it is nested too deeply, more than {MAX_DEPTH} levels")
    except ValueError as error:
        return Broken(f"it isn't JSON that can be used: {str(error).split(';')[0]}")


def not_utf8(error: UnicodeDecodeError, text: bytes) -> Broken:
    """The fault of `text`, which `error` found not to be UTF-8."""
    reason = (
        f"it isn't UTF-8: byte {text[error.start]:#04x} at position {error.start + 1}; save the file as UTF-8 "
        "(more lines may hold such bytes; this is told once)"
    )
    return Broken(reason, encoding=True, place=text.count(b"\n", 0, error.start) + 1)


def _careful(text: str) -> Any:
    """The value in `text`.

    Raises:
        ValueError: with everything that the fast parser may have let pass.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text, parse_constant=_constant, parse_float=_float, object_pairs_hook=_object)
    _count_keys(value, MAX_DEPTH)
    # What was escaped is seen only now; encoding it finds half surrogates, and NUL is looked for.
    if "\\u" in text:
        told = json.dumps(value, ensure_ascii=False)
        try:
            told.encode()
        except UnicodeEncodeError as error:
            half = "it holds half a surrogate pair (\\ud800 to \\udfff), which is no character"
            raise _Refused(f"{half}, write the character itself") from error
        if "\\u0000" in told and has_nul(value):
            raise _Refused("it holds the NUL character (\\u0000), which no text has, take it out")
    return value


def is_too_deep(value: Any) -> bool:
    """Whether more than `MAX_DEPTH` lists and objects stand in each other in a value that was decoded elsewhere."""
    try:
        _count_keys(value, MAX_DEPTH)
    except RecursionError:
        return True
    return False


def has_nul(value: Any) -> bool:
    """Whether any text in `value` holds the NUL character."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(has_nul(key) or has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(has_nul(item) for item in value)


def _constant(name: str) -> None:
    raise _Refused(f"{name} isn't a JSON value, write a number or null")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Refused(f"the number {digits[:20]} is too large")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise _Refused(f"the key `{key[:40]}` stands twice in one object, keep one of them")
        made[key] = value
    return made


def _remedy(error: json.JSONDecodeError) -> str:
    """What the standard parser says, plainer where beginners meet it often."""
    if error.msg == "Extra data":
        rest = error.doc[error.pos :].strip()
        if rest == ",":
            return "a comma follows the record, but lines of JSONL have none between them,"
        return "more follows after the end of the value; put each record on a line of its own; it begins"
    return error.msg
