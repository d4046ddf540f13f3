"""Whether an adapter from elsewhere says that it was made for another base model than the one here.

Weights of two models may have the same shapes; the words would be nonsense. It refuses to know the weights.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from adapter_format.files import CONFIG_FILE, MANIFEST_FILE
from serving.adapters.adapter import read_json
from serving.adapters.quoted import shown
from serving.base_model import BaseModel
from serving.errors import AdapterError

# A quantised copy is the same base for an adapter, and people train on one and serve on another.
_QUANTISED = re.compile(r"(?:[-_.](?:unsloth|bnb|gptq|awq|4bit|8bit|int4|int8|nf4|fp8))+\Z")


def check_origin(name: str, config: Mapping[str, Any], manifest: Mapping[str, Any], base: BaseModel) -> None:
    """Raises AdapterError when the adapter's config names another base than `base`, and no hash says that it is that.

    config: adapter_config.json. manifest: what a manifest.json beside it says; empty where there is none.
    """
    if manifest.get("base_model_sha256") == base.sha256 or names_base(config, base):
        return
    raise AdapterError(
        f"{name}: base_model_name_or_path is {shown(config['base_model_name_or_path'])!r}, but the base model here is "
        f"{base.name!r}. Serve the adapter on its own base; where the two are the same weights under two names, "
        "say so: same_base=true, or `--same-base` on the command line."
    )


def best_base(source_dir: Path, bases: Sequence[BaseModel]) -> BaseModel:
    """The base that an adapter is for: by its manifest's hash, else by the name in its config, else the first.

    Raises: AdapterError when its files can't be read.
    """
    if len(bases) == 1:
        return bases[0]
    manifest = read_json(source_dir / MANIFEST_FILE) if (source_dir / MANIFEST_FILE).exists() else {}
    config = read_json(source_dir / CONFIG_FILE)
    by_hash = [base for base in bases if base.sha256 == manifest.get("base_model_sha256")]
    return next(iter(by_hash + [base for base in bases if names_base(config, base)]), bases[0])


def names_base(config: Mapping[str, Any], base: BaseModel) -> bool:
    """Whether the config names `base`, or no base at all."""
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip():
        return True
    return named == str(base.path) or _last_part(named) == _last_part(base.name)


def _last_part(name: str) -> str:
    """`qwen2.5-7b` of Qwen/Qwen2.5-7B-AWQ, of a folder of that name, and of one in the hub's cache."""
    parts = PurePosixPath(name.strip().replace("\\", "/")).parts
    cached = next((part for part in parts if part.startswith("models--")), None)
    last = cached.rpartition("--")[2] if cached else (parts or ("",))[-1]
    return _QUANTISED.sub("", last.lower())
