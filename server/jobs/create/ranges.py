"""Checks of single values in a request, told in OpenAI's codes with the value and the range. Knows no request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import PydanticCustomError

MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512
"""Of metadata: pairs, and characters of a key and of a value."""

Check = Callable[[Any], Any]


def whole_number(low: int, high: int, *, null: bool = False) -> Check:
    """Lets through whole numbers from `low` to `high`."""

    def check(value: Any) -> Any:
        if value is None and null:
            return value
        if type(value) is not int:
            raise _wrong("invalid_type", value, f"a whole number from {low} to {high}")
        if value < low:
            raise _wrong("integer_below_min_value", value, f"from {low} to {high}")
        if value > high:
            raise _wrong("integer_above_max_value", value, f"from {low} to {high}")
        return value

    return check


def whole_or_auto(low: int, high: int) -> Check:
    """Lets through `auto` and whole numbers from `low` to `high`; null means `auto`."""
    number = whole_number(low, high)

    def check(value: Any) -> Any:
        if value is None or value == "auto":
            return "auto"
        if type(value) is not int:
            raise _wrong("invalid_type", value, f'"auto" or a whole number from {low} to {high}')
        return number(value)

    return check


def number_or_auto(high: float) -> Check:
    """Lets through `auto` and numbers above 0 up to `high`; null means `auto`."""

    def check(value: Any) -> Any:
        if value is None or value == "auto":
            return "auto"
        if type(value) not in (int, float):
            raise _wrong("invalid_type", value, f'"auto" or a number above 0 up to {high:g}')
        if value <= 0:
            raise _wrong("decimal_below_min_value", value, f"above 0 and at most {high:g}")
        if value > high:
            raise _wrong("decimal_above_max_value", value, f"above 0 and at most {high:g}")
        return float(value)

    return check


def text(longest: int, *, null: bool = False) -> Check:
    """Lets through texts of 1 to `longest` characters."""

    def check(value: Any) -> Any:
        if value is None and null:
            return value
        if not isinstance(value, str):
            raise _wrong("invalid_type", value, "a text")
        if not value:
            raise PydanticCustomError("string_below_min_length", "it is empty, but needs at least 1 character")
        if len(value) > longest:
            raise PydanticCustomError(
                "string_above_max_length",
                "it has {length} characters, and {longest} are allowed",
                {"length": len(value), "longest": longest},
            )
        return value

    return check


def metadata_pairs(value: Any) -> Any:
    """Lets through null and what OpenAI takes as metadata."""
    if value is None:
        return value
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _wrong("invalid_type", value, "an object whose values are texts")
    if len(value) > MAX_PAIRS:
        raise PydanticCustomError(
            "object_above_max_properties",
            "it has {count} pairs, and {most} are allowed",
            {"count": len(value), "most": MAX_PAIRS},
        )
    for key, item in value.items():
        for what, one, longest in (("key", key, MAX_KEY), ("value", item, MAX_VALUE)):
            if len(one) > longest:
                raise PydanticCustomError(
                    "string_above_max_length",
                    "the {what} of {key} has {length} characters, and {longest} are allowed",
                    {"what": what, "key": key[:MAX_KEY], "length": len(one), "longest": longest},
                )
    return value


def is_storable(value: Any) -> bool:
    """Whether every text in `value` is one that databases take: no NUL, no half of a surrogate pair."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return all(is_storable(key) and is_storable(item) for key, item in value.items())
    return all(is_storable(item) for item in value) if isinstance(value, list) else True


def _wrong(code: str, value: Any, allowed: str) -> PydanticCustomError:
    # Not part of the template: a value with braces would be taken for a place to fill.
    return PydanticCustomError(
        code,
        "it is {value}, but must be {allowed}",
        {"value": repr(value)[:100], "allowed": allowed},
    )
