"""Validators for single values of a request; their errors have OpenAI's codes, the value and the range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import PydanticCustomError

MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512
"""Limits of metadata: pairs, and characters of a key and of a value."""

Validator = Callable[[Any], Any]


def integer_validator(low: int, high: int, *, null: bool = False) -> Validator:
    """Return a validator for whole numbers from `low` to `high`."""

    def validate(value: Any) -> Any:
        if value is None and null:
            return value
        if type(value) is not int:
            raise _build_error("invalid_type", value, f"a whole number from {low} to {high}")
        if value < low:
            raise _build_error("integer_below_min_value", value, f"from {low} to {high}")
        if value > high:
            raise _build_error("integer_above_max_value", value, f"from {low} to {high}")
        return value

    return validate


def integer_or_auto_validator(low: int, high: int) -> Validator:
    """Return a validator for `auto` and whole numbers from `low` to `high`; null means `auto`."""
    number = integer_validator(low, high)

    def validate(value: Any) -> Any:
        if value is None or value == "auto":
            return "auto"
        if type(value) is not int:
            raise _build_error("invalid_type", value, f'"auto" or a whole number from {low} to {high}')
        return number(value)

    return validate


def number_or_auto_validator(high: float) -> Validator:
    """Return a validator for `auto` and numbers above 0 up to `high`; null means `auto`."""

    def validate(value: Any) -> Any:
        if value is None or value == "auto":
            return "auto"
        if type(value) not in (int, float):
            raise _build_error("invalid_type", value, f'"auto" or a number above 0 up to {high:g}')
        if value <= 0:
            raise _build_error("decimal_below_min_value", value, f"above 0 and at most {high:g}")
        if value > high:
            raise _build_error("decimal_above_max_value", value, f"above 0 and at most {high:g}")
        return float(value)

    return validate


def text_validator(max_length: int, *, null: bool = False) -> Validator:
    """Return a validator for texts of 1 to `max_length` characters."""

    def validate(value: Any) -> Any:
        if value is None and null:
            return value
        if not isinstance(value, str):
            raise _build_error("invalid_type", value, "a string")
        if not value:
            raise PydanticCustomError("string_below_min_length", "it is empty, but needs at least 1 character")
        if len(value) > max_length:
            raise PydanticCustomError(
                "string_above_max_length",
                "it has {length} characters, but at most {longest} are allowed",
                {"length": len(value), "longest": max_length},
            )
        return value

    return validate


def validate_metadata(value: Any) -> Any:
    """Return the value if it is null or valid metadata by OpenAI's rules."""
    if value is None:
        return value
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _build_error("invalid_type", value, "an object whose values are strings")
    if len(value) > MAX_PAIRS:
        raise PydanticCustomError(
            "object_above_max_properties",
            "it has {count} pairs, but at most {most} are allowed",
            {"count": len(value), "most": MAX_PAIRS},
        )
    for key, item in value.items():
        for what, text, longest in (("key", key, MAX_KEY), ("value", item, MAX_VALUE)):
            if len(text) > longest:
                raise PydanticCustomError(
                    "string_above_max_length",
                    "the {what} of {key} has {length} characters, but at most {longest} are allowed",
                    {"what": what, "key": key[:MAX_KEY], "length": len(text), "longest": longest},
                )
    return value


def is_storable(value: Any) -> bool:
    """Return whether databases accept every text in `value`: no NUL, no half of a surrogate pair."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return all(is_storable(key) and is_storable(item) for key, item in value.items())
    return all(is_storable(item) for item in value) if isinstance(value, list) else True


def _build_error(code: str, value: Any, allowed: str) -> PydanticCustomError:
    # Not in the template itself: braces in the value would be taken for placeholders.
    return PydanticCustomError(
        code,
        "it is {value}, but must be {allowed}",
        {"value": repr(value)[:100], "allowed": allowed},
    )
