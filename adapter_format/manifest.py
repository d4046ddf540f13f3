"""manifest.json: what a tuned model's directory says of itself. Keys, their types, and how it is written.

Readers must not trust these types: a manifest may come from anywhere. Writers are held to them by the type checker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

MANIFEST_VERSION = 1
PARITY_REFERENCE_FORMAT = 1
_NUMBERS = re.compile(r"\[\s+(-?\d[-+.\deE]*(?:,\s+-?\d[-+.\deE]*)*)\s+\]")
"""A row of numbers as `json.dumps` indents it. Within a text it can't match: there, lines don't end."""


class ManifestFile(TypedDict):
    """One file beside the manifest."""

    sha256: str
    """In hex."""
    bytes: int


class ParityPrompt(TypedDict):
    """A row of tokens and the log-probability, in nats, of each but the first, given those before it."""

    token_ids: list[int]
    tuned: list[float]
    """With the adapter."""
    base: list[float]
    """Without it."""


class ParityConversation(TypedDict):
    """A chat as training renders it."""

    messages: list[dict[str, str]]
    """Each with `role` and `content`."""
    add_generation_prompt: bool
    """Whether the assistant's turn is opened at the end."""
    token_ids: list[int]


class ParityReference(TypedDict):
    """What an engine must answer to serve what was trained."""

    format: int
    """PARITY_REFERENCE_FORMAT."""
    base_model_sha256: str
    """Of the weights that it was made on."""
    dtype: str
    """What PEFT computed in: float32, float16 or bfloat16."""
    made_on: str
    """The day, as YYYY-MM-DD."""
    template_tells_the_date: bool
    """Whether the chat template may write the day into a prompt, so that its token ids hold for one day."""
    versions: dict[str, str]
    """Package → its version."""
    conversations: list[ParityConversation]
    """Empty for a base without a chat template."""
    prompts: list[ParityPrompt]


class Manifest(TypedDict):
    """The whole of manifest.json. What training doesn't know at the time of writing is added by `move_into_place`."""

    manifest_version: NotRequired[int]
    """MANIFEST_VERSION."""
    id: NotRequired[str]
    """The directory's name, `adapter-` and 16 characters."""
    name: NotRequired[str]
    """What clients put in `model`."""
    created_at: NotRequired[int]
    """Unix seconds."""
    base_model: NotRequired[str]
    """Name of the base model that it was made for."""
    base_model_sha256: str | None
    """`hashing.base_model_sha256` of that base; None where its maker didn't say."""
    adapter_sha256: NotRequired[str]
    """Of a merged model: the weights that were merged into its base."""
    training_file_sha256: NotRequired[str | None]
    config: NotRequired[dict[str, Any] | None]
    """`TrainingConfig.to_dict()`."""
    metrics: NotRequired[dict[str, Any] | None]
    """Losses and the like, before and after."""
    merge: NotRequired[dict[str, Any]]
    """Of a merged model: how near it comes to base and adapter."""
    parity_reference: NotRequired[ParityReference | dict[str, Any] | None]
    parity: NotRequired[dict[str, Any]]
    """What the gate found, or a merge."""
    files: NotRequired[dict[str, ManifestFile]]
    """Every file but the manifest, by name."""
    versions: NotRequired[dict[str, str] | None]
    """Package → its version."""


def to_readable_json(content: Mapping[str, Any]) -> str:
    """JSON for people: a line for each thing, but a row of numbers on one."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return _NUMBERS.sub(lambda row: "[" + " ".join(row[1].split()) + "]", text) + "\n"
