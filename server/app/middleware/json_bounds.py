"""Limits on the shape of a JSON body, checked before it is parsed.

Validation multiplies a body's size: vLLM tries each message as every known type and records why it doesn't match, 16 to
26 faults of 1.3 kB each, or 233 for an item of a Responses input with an unknown type. So lists are limited here, for
all routes. First, commas and brackets outside strings are counted, which costs almost nothing and gives an upper bound.
Few bodies need more than that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from server.app.middleware.responses_input import MAX_WEIGHT, RESPONSES, weight
from server.wire.errors import BadRequest

MAX_ENTRIES = 2048
"""Entries of one list or object: 0.6 s and 190 MB for the worst messages that vLLM's validation was seen with. OpenAI
takes 2048 messages as well, 128 tools and 300 biases."""
MAX_VALUES = 65_536
"""Entries of all lists and objects together, token ids excepted: they mean objects in memory, a hundred bytes each."""
MAX_TOKEN_IDS = 2**20
"""Commas outside strings: about 4 MiB of token ids, as in a batch of tokenized prompts."""
MAX_DEPTH = 512
"""Nesting depth of lists and objects: more than any schema has, and safe for every parser's stack."""
MAX_DIGITS = 1000
"""Consecutive digits. A double has 17 significant ones; Python rejects 4300, others take quadratic time."""
_LONG_INTEGER = re.compile(rb"(?<![\d.+\-eE])-?\d{19,}(?![\d.eE])")
"""An integer that may exceed 64 bits; one digit less always fits."""
_NINETEEN_DIGITS, _DIGITS_ALIKE = b"0" * 19, bytes.maketrans(b"123456789", b"0" * 9)
ENGINE_MAX_ITEMS = 4096
"""Items of all lists together, where vLLM validates them: content parts and tool calls multiply as messages do."""
MAX_ITEMS = 16_384
"""The same for other routes, where an item has one or two faults: a campaign's 1000 prompts may have 15 messages
each."""

_TOO_DEEP = f"lists and objects are nested more than {MAX_DEPTH} deep"
_DEPTH_SEEN_BYTES = 2**17
_BUT_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_TOKEN_IDS: Mapping[str, tuple[str, ...]] = {
    "/v1/completions": ("prompt", "stop_token_ids", "allowed_token_ids"),
    "/v1/chat/completions": ("stop_token_ids", "allowed_token_ids"),
    "/v1/embeddings": ("input",),
    "/v1/responses": (),
}
"""The bodies that vLLM validates, and where they may have long lists of numbers, or lists of such lists."""


def refuse_unwieldy(body: bytes, path: str) -> None:
    """Raise BadRequest for a JSON body that is too expensive to parse; its reader reports other faults. path: the
    request's, which determines the reader.
    """
    if b"\0" in body:  # UTF-16, which Python's reader would take, and this one would miscount
        raise _invalid_error("it isn't UTF-8")
    pieces = _split_at_strings(body)
    outside = b"".join(pieces[::2])
    opened, commas = outside.count(b"{") + outside.count(b"["), outside.count(b",")
    if opened > MAX_DEPTH and _is_nested_too_deep(outside[:_DEPTH_SEEN_BYTES]):
        raise _invalid_error(_TOO_DEEP)
    if opened > MAX_VALUES or len(pieces) > 4 * MAX_VALUES or commas > MAX_TOKEN_IDS:
        key, length = _find_longest(pieces)
        raise _too_long_error(key, length, []) if length > MAX_ENTRIES else _too_many_error("values", MAX_VALUES)
    if _has_long_number(outside):
        raise _invalid_error(f"a number has more than {MAX_DIGITS} digits")
    if path in _TOKEN_IDS and _NINETEEN_DIGITS in outside.translate(_DIGITS_ALIKE):
        for integer in map(int, _LONG_INTEGER.findall(outside)):
            if not -(2**63) <= integer < 2**64:
                raise BadRequest(
                    f"The integer {str(integer)[:30]} doesn't fit into 64 bits. Send a smaller one.",
                    code="invalid_value",
                )
    if opened > MAX_DEPTH or opened + commas > (MAX_WEIGHT if path == RESPONSES else MAX_ENTRIES):
        _check_values(_parse(body), path)


def _split_at_strings(body: bytes) -> list[bytes]:
    """Return the parts outside and inside strings, alternating."""
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    return bare.split(b'"', 4 * MAX_VALUES + 1)


def _find_longest(pieces: list[bytes]) -> tuple[str, int]:
    """Return key and length of what seems to be the longest list by its text; in a list of strings, no piece is
    long."""
    at = max(range(0, len(pieces), 2), key=lambda index: pieces[index].count(b","))
    key = pieces[at - 1] if at and pieces[at].lstrip().startswith(b":") else b""
    return key.decode(errors="replace"), pieces[at].count(b",") + 1


def _is_nested_too_deep(outside: bytes) -> bool:
    """Return whether more brackets are opened in a row than the allowed depth."""
    opening = outside.translate(_BRACKETS, delete=_BUT_BRACKETS)
    return b"[" * (MAX_DEPTH + 1) in opening


def _has_long_number(outside: bytes) -> bool:
    """Return whether there are MAX_DIGITS + 1 consecutive digits: any such run covers one of the sampled positions."""
    for at in range(MAX_DIGITS, len(outside), MAX_DIGITS):
        if outside[at : at + 1].isdigit():
            before, after = outside[at - MAX_DIGITS : at], outside[at : at + MAX_DIGITS]
            row = len(before) - len(before.rstrip(b"0123456789")) + len(after) - len(after.lstrip(b"0123456789"))
            if row > MAX_DIGITS:
                return True
    return False


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:  # also where it is nested too deeply for it
        try:
            return json.loads(body)  # takes NaN
        except (ValueError, RecursionError) as error:
            raise _invalid_error(str(error)) from error


def _check_values(content: Any, path: str) -> None:
    """Raise BadRequest if a parsed body has too long lists, too many items or too deep nesting."""
    if path == RESPONSES and isinstance(content, dict) and weight(content.get("input")) > MAX_WEIGHT:
        raise BadRequest(
            f"`input` has more than {MAX_WEIGHT} items and parts other than plain messages and tool calls. Send "
            "fewer, or send their text.",
            code="array_above_max_length",
            param="input",
        )
    most_items = ENGINE_MAX_ITEMS if path in _TOKEN_IDS else MAX_ITEMS
    level, values, items = [_Container(_drop_token_ids(content, path))], 0, 0
    for _ in range(MAX_DEPTH):
        for held in level:
            length = len(held.content)
            values, items = values + length, items + length * isinstance(held.content, list)
            if length > MAX_ENTRIES:
                raise _too_long_error(held.name, length, held.content)
        if values > MAX_VALUES:
            raise _too_many_error("values", MAX_VALUES)
        if items > most_items:
            raise _too_many_error("items in its lists", most_items)
        level = [child for held in level for child in held.children()]
        if not level:
            return
    raise _invalid_error(_TOO_DEEP)


class _Container(NamedTuple):
    """A list or object and its path."""

    content: Any
    parent: _Container | None = None
    key: str | int = ""

    def children(self) -> list[_Container]:
        pairs = self.content.items() if isinstance(self.content, dict) else enumerate(self.content)
        return [_Container(value, self, key) for key, value in pairs if isinstance(value, dict | list)]

    @property
    def name(self) -> str:
        """Its path in the body, such as `messages[3].content`."""
        if self.parent is None:
            return ""
        before = self.parent.name
        return f"{before}[{self.key}]" if isinstance(self.key, int) else f"{before}.{self.key}".lstrip(".")


def _drop_token_ids(content: Any, path: str) -> Any:
    """Return the body without the lists that may be long."""
    if not isinstance(content, dict):
        return content if isinstance(content, list) else []
    token_ids = _TOKEN_IDS.get(path, ())
    return {
        key: value
        for key, value in content.items()
        if not (key in token_ids and _are_token_ids(value)) and not (key == "part_ids" and _are_names(value))
    }


def _are_token_ids(value: Any) -> bool:
    """Return whether it is a list of numbers that can be token ids, or a list of such lists."""
    if not isinstance(value, list) or not value:
        return False
    if isinstance(value[0], list):
        return len(value) <= MAX_ENTRIES and all(not inner or _are_numbers(inner) for inner in value)
    return _are_numbers(value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and set(map(type, value)) == {int} and min(value) >= 0


def _are_names(value: Any) -> bool:
    """Return whether it is a list of non-empty strings: an upload may have any number of parts."""
    return isinstance(value, list) and set(map(type, value)) == {str} and all(value)


def _too_long_error(name: str, length: int, content: Any) -> BadRequest:
    what, code = (
        ("items", "array_above_max_length") if isinstance(content, list) else ("keys", "object_above_max_properties")
    )
    return BadRequest(
        f"{name or 'The body'} has {length} {what}, more than the maximum of {MAX_ENTRIES}. Send fewer.",
        code=code,
        param=name or None,
    )


def _too_many_error(what: str, most: int) -> BadRequest:
    return BadRequest(f"The body has more than {most} {what}. Split the request.", code="array_above_max_length")


def _invalid_error(why: str) -> BadRequest:
    return BadRequest(f"The request body isn't accepted as JSON: {why}. Send simpler JSON.", code="invalid_json")
