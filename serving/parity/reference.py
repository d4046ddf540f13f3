"""The parity reference in a manifest: what an adapter was trained to answer, read and validated.

A manifest may come from anyone: anything wrong with it raises AdapterError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapter_format.manifest import PARITY_REFERENCE_FORMAT
from serving.errors import AdapterError

DTYPES = ("float32", "float16", "bfloat16")
MIN_LOG_PROBABILITIES = 48
"""With fewer, the result could be chance."""
_MAX_CONVERSATIONS, _MAX_MESSAGES, _MAX_CHARACTERS = 64, 32, 20_000
_MAX_PROMPTS, _MAX_TOKENS = 32, 512
_LEAST_NATS, _MOST_NATS = -10_000.0, 0.01
"""A probability is at most 1; rounding may raise its logarithm slightly above 0."""
_REMEDY = "Import the adapter again, or train it again."


@dataclass(frozen=True)
class Conversation:
    """A chat as rendered for training."""

    messages: tuple[dict[str, str], ...]
    """Each with `role` and `content`."""
    add_generation_prompt: bool
    """Whether the assistant's turn is opened at the end."""
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """A row of tokens and the log-probability, in nats, of each but the first, given those before it."""

    token_ids: tuple[int, ...]
    tuned: tuple[float, ...]
    """With the adapter."""
    base: tuple[float, ...]
    """Without it."""


@dataclass(frozen=True)
class Reference:
    """Token ids and log-probabilities that an engine must match."""

    base_model_sha256: str
    """Of the weights that it was computed with."""
    dtype: str
    """What PEFT computed in."""
    made_on: str
    """The day, as YYYY-MM-DD."""
    template_tells_the_date: bool
    """Whether the chat template may insert the date into a prompt, so that its token ids are valid for one day."""
    conversations: tuple[Conversation, ...]
    """None for a base without a chat template."""
    prompts: tuple[Prompt, ...]

    @classmethod
    def from_json(cls, content: object) -> Reference:
        """Parse a reference. Raises: AdapterError when `content` isn't one."""
        content = _object(content, "it")
        _require(
            content.get("format") == PARITY_REFERENCE_FORMAT,
            f"format is {_short(content.get('format'))}, but this release supports 1",
        )
        _require(content.get("dtype") in DTYPES, f"dtype must be one of {', '.join(DTYPES)}")
        conversations = [_conversation(item) for item in _list(content, "conversations", 0, _MAX_CONVERSATIONS)]
        prompts = [_prompt(item) for item in _list(content, "prompts", 1, _MAX_PROMPTS)]
        n = sum(len(prompt.tuned) for prompt in prompts)
        _require(n >= MIN_LOG_PROBABILITIES, f"it has {n} log-probabilities, fewer than {MIN_LOG_PROBABILITIES}")
        return cls(
            base_model_sha256=_text(content, "base_model_sha256", 128),
            dtype=content["dtype"],
            made_on=_text(content, "made_on", 32),
            template_tells_the_date=content.get("template_tells_the_date") is True,
            conversations=tuple(conversations),
            prompts=tuple(prompts),
        )


def prompts_from_json(content: object) -> tuple[Prompt, ...]:
    """Parse a list of prompts such as a `Reference` holds. Raises: AdapterError."""
    return tuple(_prompt(item) for item in _list({"prompts": content}, "prompts", 1, _MAX_PROMPTS))


def _conversation(content: object) -> Conversation:
    content = _object(content, "a conversation")
    messages = []
    for message in _list(content, "messages", 1, _MAX_MESSAGES):
        message = _object(message, "a message")
        messages.append({"role": _text(message, "role", 32), "content": _text(message, "content", _MAX_CHARACTERS)})
    return Conversation(tuple(messages), content.get("add_generation_prompt") is True, _token_ids(content))


def _prompt(content: object) -> Prompt:
    content = _object(content, "a prompt")
    ids = _token_ids(content)
    return Prompt(ids, _nats(content, "tuned", len(ids) - 1), _nats(content, "base", len(ids) - 1))


def _token_ids(content: dict[str, Any]) -> tuple[int, ...]:
    ids = _list(content, "token_ids", 2, _MAX_TOKENS)
    _require(all(type(item) is int and 0 <= item < 2**31 for item in ids), "token_ids must be whole numbers, 0 or more")
    return tuple(ids)


def _nats(content: dict[str, Any], key: str, length: int) -> tuple[float, ...]:
    values = _list(content, key, length, length)
    fine = all(
        type(value) in (int, float) and _LEAST_NATS <= value <= _MOST_NATS for value in values
    )  # NaN compares as false
    _require(fine, f"{key} must be log-probabilities")
    return tuple(map(float, values))


def _list(content: dict[str, Any], key: str, least: int, most: int) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise _unusable(f"{key} must be a list")
    _require(least <= len(value) <= most, f"{key} has {len(value)} entries, but must have {least} to {most}")
    return value


def _text(content: dict[str, Any], key: str, most: int) -> str:
    value = content.get(key)
    _require(isinstance(value, str) and len(value) <= most, f"{key} must be a string of at most {most} characters")
    return str(value)


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unusable(f"{what} must be an object")
    return value


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise _unusable(rule)


def _unusable(rule: str) -> AdapterError:
    return AdapterError(f"The adapter's parity reference can't be used: {rule}. {_REMEDY}")


def _short(value: object) -> str:
    return repr(value)[:80]
