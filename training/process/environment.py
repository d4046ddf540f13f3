"""The process environment of a training run. Its `main` sets it before torch and transformers read it."""

from __future__ import annotations

import logging
import os
import warnings

_ALWAYS = {
    # Idle OpenMP threads sleep instead of spinning. On two cores, beside another training process, spinning made a
    # loop of matrix products ten times slower (7.2 s against 0.7 s).
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare_environment(*, offline: bool) -> None:
    """Silence libraries, limit threads and, when `offline`, prevent network use. The user's own values take precedence.

    Args:
        offline: the base model is a local folder, so the Hugging Face hub isn't needed.
    """
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
