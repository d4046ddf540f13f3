"""Ids of adapters, and the names that clients use for tuned models."""

import re
import secrets
import string

_NAME_ALPHABET = string.ascii_lowercase + string.digits
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class InvalidNameError(ValueError):
    """A part of a tuned model's name has characters that can't be there."""


def new_adapter_id() -> str:
    """A fresh id: `adapter-` and 16 lowercase hex characters."""
    return f"adapter-{secrets.token_hex(8)}"


def fine_tuned_model_name(base: str, organization: str, suffix: str) -> str:
    """A fresh `ft:{base}:{organization}:{suffix}:{8 characters}`; no suffix leaves its place empty, as at OpenAI.

    Raises: InvalidNameError when organization or suffix has other characters than letters, digits, `.`, `_` and `-`.
    """
    for what, part, may_be_empty in (("organization", organization, False), ("suffix", suffix, True)):
        if not (_PART.fullmatch(part) or (may_be_empty and part == "")):
            raise InvalidNameError(
                f"The {what} {part!r} must be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit."
            )
    unique = "".join(secrets.choice(_NAME_ALPHABET) for _ in range(8))
    return f"ft:{base}:{organization}:{suffix}:{unique}"
