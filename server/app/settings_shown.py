"""Settings for display: value, origin and description of each, without secrets.

Used by `tuneloop settings` and `GET /v1/settings`.
"""

from __future__ import annotations

import re
from typing import Any

from server.settings import Settings, is_secret

UNSET = "unset"
_USER_IN_URL = re.compile(r"(?<=://)\S*@")
_SECRET_PARAMETER = re.compile(r"(?i)((?:^|[?&\s;-])[\w-]*(?:password|passwd|secret|token|api[-_]?key)=)[^&\s;]+")
_SECRET_FLAG = re.compile(r"(?i)--[\w-]*(?:password|secret|token|api[-_]?key)")


def describe(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Return (name, value, origin, description) of every setting; keys and passwords in URLs are hidden."""
    return [
        (name, _show_value(name, getattr(settings, name)), settings.origin_of(name), str(info.description))
        for name, info in Settings.model_fields.items()
    ]


def _show_value(name: str, value: Any) -> str:
    if value is None or value in ([], {}):
        return UNSET
    if is_secret(name):
        return " ".join(f"{one}=***" for one in value)
    if isinstance(value, dict):
        return _redact(" ".join(f"{one}={other}" for one, other in value.items()))
    if isinstance(value, list):
        return str(_items(value))
    return _redact(str(value))


def _items(values: list[str]) -> list[str]:
    """Return the arguments with the values of secret flags hidden: engine_args may have anything."""
    before = ["", *values]
    return [
        "***" if _SECRET_FLAG.fullmatch(flag) else _redact(value) for flag, value in zip(before, values, strict=False)
    ]


def _redact(text: str) -> str:
    """Return `text` with `***` in place of passwords in URLs and as parameters."""
    return _SECRET_PARAMETER.sub(r"\1***", _USER_IN_URL.sub("***@", text))
