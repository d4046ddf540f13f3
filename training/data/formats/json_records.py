"""Decodes one JSON text: with a fast parser first, and a careful one only to explain a fault.

Rejects what parsers disagree about, because it would be silently trained on wrongly: duplicate keys, NaN, numbers that
overflow, lone surrogates, the NUL character. Imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

MAX_DEPTH = 100
"""Maximum nesting of lists and objects; far deeper than any chat or tool schema, and safe for every later reader."""

_KEY_ENDS = re.compile(rb'"[ \t\r\n]*:')
_QUOTED_KEY_ENDS = re.compile(rb'\\"[ \t\r\n]*:')


@dataclass(frozen=True)
class Broken:
    """Stands for a record that couldn't be decoded."""

    reason: str
    """What is wrong and what was expected."""
    encoding: bool = False
    """Whether the text isn't UTF-8, which is reported once per file."""
    place: int | None = None
    """The line in the text at which it breaks, counted from 1, if known."""


Record = tuple[str, int | None, Any]
"""The unit of the position (`line`, `element`, `row`), the position from 1, and a decoded value or a `Broken`."""


def decode(text: bytes) -> Any:
    """Decode the JSON in `text`; return a `Broken` with the reason if that fails."""
    try:
        value = orjson.loads(text)
        return decode_carefully(text) if needs_careful_parser(text, value) else value
    except orjson.JSONDecodeError:
        return decode_carefully(text)


def needs_careful_parser(text: bytes, value: Any) -> bool:
    """Return whether the careful parser must check: never False for duplicate keys, sometimes True in vain."""
    if b"\\u0000" in text or b'\\\\"' in text:
        return True
    try:
        # Each key is followed by a colon; more such places than keys left: one was a duplicate, or a text looks so.
        return len(_KEY_ENDS.findall(text)) - len(_QUOTED_KEY_ENDS.findall(text)) != _count_keys(value, MAX_DEPTH)
    except RecursionError:
        return True


def _count_keys(value: Any, depth: int) -> int:
    """Count the keys of all objects in `value`."""
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


class _RejectedValueError(ValueError):
    """A value that JSON, or a parser of it, would accept."""


def decode_carefully(text: bytes) -> Any:
    """Like `decode`, with the careful parser right away."""
    try:
        return _parse_carefully(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        return encoding_fault(error, text)
    except json.JSONDecodeError as error:
        return Broken(f"it isn't JSON: {_explain_json_error(error)} at column {error.colno}", place=error.lineno)
    except RecursionError:
        return Broken(f"it isn't usable JSON: it is nested too deeply, more than {MAX_DEPTH} levels")
    except ValueError as error:
        return Broken(f"it isn't usable JSON: {str(error).split(';')[0]}")


def encoding_fault(error: UnicodeDecodeError, text: bytes) -> Broken:
    """Return the fault of `text`, which `error` found not to be UTF-8."""
    reason = (
        f"it isn't UTF-8: byte {text[error.start]:#04x} at position {error.start + 1}; save the file as UTF-8 (more "
        "lines may have such bytes; reported only once)"
    )
    return Broken(reason, encoding=True, place=text.count(b"\n", 0, error.start) + 1)


def _parse_carefully(text: str) -> Any:
    """Decode `text`.

    Raises:
        ValueError: for everything that the fast parser may accept.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text, parse_constant=_reject_constant, parse_float=_parse_float, object_pairs_hook=_make_object)
    _count_keys(value, MAX_DEPTH)
    # Escapes are decoded only now; encoding finds lone surrogates, and NUL is searched for.
    if "\\u" in text:
        decoded = json.dumps(value, ensure_ascii=False)
        try:
            decoded.encode()
        except UnicodeEncodeError as error:
            half = "it contains half a surrogate pair (\\ud800 to \\udfff), which isn't a character"
            raise _RejectedValueError(f"{half}, write the character itself") from error
        if "\\u0000" in decoded and has_nul(value):
            raise _RejectedValueError("it contains the NUL character (\\u0000), remove it")
    return value


def is_too_deep(value: Any) -> bool:
    """Return whether a value that was decoded elsewhere has more than `MAX_DEPTH` nested lists and objects."""
    try:
        _count_keys(value, MAX_DEPTH)
    except RecursionError:
        return True
    return False


def has_nul(value: Any) -> bool:
    """Return whether any text in `value` contains the NUL character."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(has_nul(key) or has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(has_nul(item) for item in value)


def _reject_constant(name: str) -> None:
    raise _RejectedValueError(f"{name} isn't a JSON value, write a number or null")


def _parse_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _RejectedValueError(f"the number {digits[:20]} is too large")
    return value


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _RejectedValueError(f"the key `{key[:40]}` occurs twice in one object, keep one of them")
        result[key] = value
    return result


def _explain_json_error(error: json.JSONDecodeError) -> str:
    """Return the standard parser's message, plainer for common mistakes."""
    if error.msg == "Extra data":
        rest = error.doc[error.pos :].strip()
        if rest == ",":
            return "there is a comma after the record, but JSONL has none between lines,"
        return "there is more after the end of the value; put each record on its own line; it begins"
    return error.msg
