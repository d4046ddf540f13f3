"""A base model's tokenizer, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.config.config import ConfigError
from training.record.run_summary import json_object

_GENERAL = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""What the class of tokenizers is called that are wholly described by their tokenizer.json."""


def load_tokenizer(base_model: str) -> Any:
    """The tokenizer of `base_model`, a folder or a hub id; no code that comes with it is run.

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
            [f"The tokenizer of {base_model!r} can't be loaded: {reason}. Give a base model's folder."],
            param="base_model",
        ) from error


def _tokenizer_class(base_model: Path) -> Any:
    """The class that `AutoTokenizer` would choose where that is surely the general one, else `AutoTokenizer` itself.

    That loads torch, which takes four times as long as all the rest of a look at a file. Of other models than Llama it
    takes the name in tokenizer_config.json for an error, and chooses by the model.
    """
    named = json_object(base_model / "tokenizer_config.json").get("tokenizer_class")
    is_llama = json_object(base_model / "config.json").get("model_type") == "llama"
    if is_llama and named in _GENERAL and (base_model / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer
