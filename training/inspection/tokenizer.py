"""A base model's tokenizer, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.config import ConfigError


def load_tokenizer(base_model: str) -> Any:
    """The tokenizer of `base_model`, a folder or a hub id; no code that comes with it is run.

    Raises:
        ConfigError: it can't be loaded.
    """
    from transformers import AutoTokenizer  # takes seconds, and a look without a base does without

    try:
        return AutoTokenizer.from_pretrained(
            base_model, local_files_only=Path(base_model).is_dir(), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            [f"The tokenizer of {base_model!r} can't be loaded: {reason}. Give a base model's folder."],
            param="base_model",
        ) from error
