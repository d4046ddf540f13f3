"""The base model that is served and that adapters are trained on: its location, name and hash.

Nothing is ever unpickled here.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter_format.disk import write_aside
from adapter_format.hashing import WEIGHTS_INDEX, base_model_sha256, read_weights_index, weight_files
from serving.errors import BaseModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = [
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "merges.txt",
    "*.tiktoken",
]
_HUB_DUPLICATES = ["consolidated*"]
"""The same weights once more, in Mistral's own form."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class BaseModel:
    """A complete model in a local folder."""

    name: str
    """What clients put in `model`: the hub id, or the folder's name."""
    path: Path
    """The folder, absolute."""
    sha256: str
    """Hash of the weights; see `base_model_sha256`."""
    config: dict[str, Any]
    """The contents of config.json."""

    @property
    def weights_bytes(self) -> int:
        """Size of the weights on disk."""
        return sum(file.stat().st_size for file in weight_files(self.path))


def resolve_base_model(model: str, *, hash_cache: Path | None = None) -> BaseModel:
    """Resolve a base model: a local folder, or a hub id `org/name`, downloaded or found in the hub's cache.

    hash_cache: a JSON file that keeps hashes by path, size and modification time: hashing a large model takes minutes.
    Raises: BaseModelError when there is no such model, or it isn't safetensors weights with a config and a tokenizer.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        path, name = folder.resolve(), folder.resolve().name
    else:
        path, name = _download(model), model
    config = _read_config(path)
    _check_complete(path)
    return BaseModel(name, path, _cached_sha256(path, hash_cache), config)


def _download(model: str) -> Path:
    """Return the folder of hub model `model`, which is downloaded unless it is in the hub's cache."""
    if not _HUB_ID.fullmatch(model):
        raise BaseModelError(
            f"There is no folder {model!r}, and it isn't a hub id of the form org/name. Use a folder with "
            "config.json, *.safetensors and a tokenizer, or a hub id."
        )
    # Imported here: it takes half a second, and only a hub id needs it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_DUPLICATES))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise BaseModelError(_explain_download_failure(model, error)) from error


def _explain_download_failure(model: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return (
        f"The base model {model!r} isn't a local folder or in the hub cache, and couldn't be downloaded: {reason} "
        "Check the spelling and the network; for a gated model, set HF_TOKEN; or download it elsewhere and use the "
        "folder."
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BaseModelError(
            f"{path} has no config.json, so it isn't a model. Use a folder that was saved with save_pretrained."
        ) from error
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"{path / 'config.json'} can't be read as JSON ({error}). Download the model again."
        ) from error
    if not isinstance(config, dict):
        raise BaseModelError(f"{path / 'config.json'} isn't a JSON object. Download the model again.")
    return config


def _check_complete(path: Path) -> None:
    """Raise BaseModelError unless weights and tokenizer are there."""
    if not weight_files(path):
        pickled = sorted(file.name for pattern in _PICKLED for file in path.glob(pattern))
        found = f"only {pickled[0]}, a pickle, which can run code when loaded" if pickled else "none"
        raise BaseModelError(
            f"{path} must have *.safetensors weights, but has {found}. Save the model again with save_pretrained."
        )
    try:
        listed = read_weights_index(path)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path / WEIGHTS_INDEX} can't be read ({error}). Download the model again.") from error
    missing = sorted(listed - {file.name for file in path.glob("*.safetensors")})
    if missing:
        raise BaseModelError(
            f"{len(missing)} weight file(s) are missing in {path}, such as {missing[0]}. Download the model again."
        )
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise BaseModelError(
            f"{path} has no tokenizer (one of {', '.join(_TOKENIZER_FILES)}). Save the model's tokenizer there."
        )


def _cached_sha256(path: Path, cache: Path | None) -> str:
    """Return `base_model_sha256(path)`, from `cache` if no file has changed since."""
    if cache is None:
        return base_model_sha256(path)
    key = json.dumps([str(path), [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in weight_files(path)]])
    known = _read_cache(cache)
    if key not in known:
        known[key] = base_model_sha256(path)
        cache.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(cache) as file:
            file.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return known[key]


def _read_cache(cache: Path) -> dict[str, str]:
    """Return the cache's contents; empty when it is absent or damaged, since it can be rebuilt."""
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
