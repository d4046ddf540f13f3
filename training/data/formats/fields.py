"""Checks of single fields of a record. Faults are collected, not raised, so that all are reported.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from training.data.formats.json_records import MAX_DEPTH, is_too_deep

_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def describe_kind(value: Any) -> str:
    """Describe the JSON type of `value` in words."""
    return _KINDS.get(type(value), f"a value of the type {type(value).__name__}")


def read_text_field(record: Mapping[str, Any], key: str, faults: list[str], *, required: bool = True) -> str:
    """Return the text under `key`; empty if it is absent and not `required`, or has a fault."""
    value = record.get(key)
    if isinstance(value, str):
        if required and not value.strip():
            faults.append(f"`{key}` is empty")
        return value
    if value is not None:
        faults.append(f"`{key}` is {describe_kind(value)}, but must be a string")
    elif required:
        faults.append(f"`{key}` is missing")
    return ""


def read_bool_field(record: Mapping[str, Any], key: str, faults: list[str]) -> bool:
    """Return the truth value under `key`; False if it has a fault."""
    value = record.get(key)
    if isinstance(value, bool):
        return value
    shown = "missing" if value is None else shorten(value)
    faults.append(f"`{key}` is {shown}, but must be true (a good answer) or false (a bad one)")
    return False


def read_tools(record: Mapping[str, Any], faults: list[str], *, bare: bool = False) -> tuple[Mapping[str, Any], ...]:
    """Return the tools of a chat in OpenAI's form: `tools`, or the older `functions`.

    Args:
        bare: whether a function may be given without its wrapper, as in ShareGPT files.
    """
    key = "tools" if record.get("tools") is not None else "functions"
    given = record.get(key)
    if given is None or given in ([], ""):
        return ()
    given = _decode_json(given)
    if not isinstance(given, list):
        faults.append(f"`{key}` must be a list of objects, or such a list as a JSON string")
        return ()
    bare = bare or key == "functions"
    tools = [_check_tool(tool, f"{key[:-1]} {place}", faults, bare=bare) for place, tool in enumerate(given, start=1)]
    if not isinstance(record.get("parallel_tool_calls", True), bool | None):
        faults.append("`parallel_tool_calls` must be true or false")
    return tuple(tool for tool in tools if tool is not None)


def shorten(value: Any) -> str:
    """Return `value` for an error message, at most about 60 characters of it."""
    if isinstance(value, dict | list):
        return describe_kind(value)
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


def _check_tool(tool: Any, place: str, faults: list[str], *, bare: bool) -> Mapping[str, Any] | None:
    if not isinstance(tool, dict):
        faults.append(f"{place} is {describe_kind(tool)}; `tools` must be a list of objects")
        return None
    spelled: Mapping[str, Any] = {"type": "function", "function": tool} if bare and "function" not in tool else tool
    function = spelled.get("function")
    if spelled.get("type") != "function" or not isinstance(function, dict):
        faults.append(f'{place} must be {{"type": "function", "function": {{"name": …, "parameters": …}}}}')
    elif not isinstance(function.get("name"), str) or not function["name"].strip():
        faults.append(f"{place} has no `function.name`; add the function's name")
    elif not isinstance(function.get("description"), str | None):
        faults.append(
            f"{place}: `function.description` is {describe_kind(function['description'])}, but must be a string"
        )
    elif not isinstance(function.get("parameters"), dict | None):
        faults.append(f"{place}: `function.parameters` must be a JSON schema, which is an object")
    elif is_too_deep(function.get("parameters")):
        faults.append(f"{place}: `function.parameters` is nested more than {MAX_DEPTH} levels deep; flatten it")
    return spelled


def _decode_json(value: Any) -> Any:
    """Return `value`, or the decoded JSON text in it; the text itself if it isn't JSON."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except ValueError:
        return value
