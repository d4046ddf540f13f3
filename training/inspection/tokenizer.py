"""A base model's tokenizer, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.config.config import ConfigError
from training.record.run_summary import read_json_object

_GENERAL = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Class names of tokenizers that are fully described by their tokenizer.json."""


def load_tokenizer(base_model: str) -> Any:
    """Load the tokenizer of `base_model`, a folder or a hub id; no code that comes with it is run.

    Raises:
        ConfigError: it can't be loaded.
    """
    try:
        return _tokenizer_class(Path(base_model)).from_pretrained(
            base_model, local_files_only=Path(base_model).is_dir(), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            [f"Can't load the tokenizer of {base_model!r}: {reason}. Use a base model's folder."],
            param="base_model",
        ) from error


def _tokenizer_class(base_model: Path) -> Any:
    """Return the class that `AutoTokenizer` would choose if surely the general one, else `AutoTokenizer` itself.

    The latter loads torch, which takes four times as long as everything else in an inspection. For models other than
    Llama it distrusts the name in tokenizer_config.json, and chooses by the model.
    """
    named = read_json_object(base_model / "tokenizer_config.json").get("tokenizer_class")
    is_llama = read_json_object(base_model / "config.json").get("model_type") == "llama"
    if is_llama and named in _GENERAL and (base_model / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer
