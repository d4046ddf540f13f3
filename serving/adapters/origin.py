"""Checks whether an adapter from elsewhere claims to be made for another base model than the one here.

Weights of two models may have the same shapes; the output would be nonsense.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from adapter_format.files import CONFIG_FILE, MANIFEST_FILE
from serving.adapters.adapter import read_json
from serving.base_model import BaseModel
from serving.errors import AdapterError, quote

# A quantised copy is the same base for an adapter, and people train on one and serve on another.
_QUANTISED = re.compile(r"(?:[-_.](?:unsloth|bnb|gptq|awq|4bit|8bit|int4|int8|nf4|fp8))+\Z")


def check_origin(name: str, config: Mapping[str, Any], manifest: Mapping[str, Any], base: BaseModel) -> None:
    """Raise AdapterError when the adapter's config names another base, and no hash proves that it is the same.

    config: adapter_config.json. manifest: the contents of a manifest.json beside it; empty if there is none.
    """
    if manifest.get("base_model_sha256") == base.sha256 or names_base(config, base):
        return
    raise AdapterError(
        f"{name}: base_model_name_or_path is {quote(config['base_model_name_or_path'])!r}, but the base model here "
        f"is {base.name!r}. Serve the adapter on its own base model. If both names mean the same weights, use "
        "same_base=true, or `--same-base` on the command line."
    )


def best_base(source_dir: Path, bases: Sequence[BaseModel]) -> BaseModel:
    """Return the base that an adapter is for: by its manifest's hash, else by the name in its config, else the first.

    Raises: AdapterError when its files can't be read.
    """
    if len(bases) == 1:
        return bases[0]
    manifest = read_json(source_dir / MANIFEST_FILE) if (source_dir / MANIFEST_FILE).exists() else {}
    config = read_json(source_dir / CONFIG_FILE)
    by_hash = [base for base in bases if base.sha256 == manifest.get("base_model_sha256")]
    return next(iter(by_hash + [base for base in bases if names_base(config, base)]), bases[0])


def names_base(config: Mapping[str, Any], base: BaseModel) -> bool:
    """Return whether the config names `base`, or no base at all."""
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip():
        return True
    return named == str(base.path) or _last_part(named) == _last_part(base.name)


def _last_part(name: str) -> str:
    """Return `qwen2.5-7b` for Qwen/Qwen2.5-7B-AWQ, for a folder of that name, and for one in the hub's cache."""
    parts = PurePosixPath(name.strip().replace("\\", "/")).parts
    cached = next((part for part in parts if part.startswith("models--")), None)
    last = cached.rpartition("--")[2] if cached else (parts or ("",))[-1]
    return _QUANTISED.sub("", last.lower())
