"""Takes in a PEFT adapter from somewhere else: checked, copied aside, renamed into place."""

from pathlib import Path

from serving.adapter import Adapter
from serving.base_model import BaseModel
from serving.engine import EngineLimits


def import_adapter(
    source_dir: Path,
    adapters_dir: Path,
    base: BaseModel,
    limits: EngineLimits,
    *,
    name: str | None = None,
    suffix: str = "imported",
    organization: str = "tuneloop",
) -> Adapter:
    """The adapter in `source_dir`, now a directory of its own under `adapters_dir` with a manifest.

    name: what clients will call it; by default `fine_tuned_model_name(base.name, organization, suffix)`.
    Blocks while it copies and hashes: call it in a thread.
    Raises: AdapterError, and then nothing is left behind.
    """
    raise NotImplementedError
