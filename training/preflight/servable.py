"""Checks whether the result of a run can be served as configured, by vLLM's rules. Imports no torch.

The registry checks the finished adapter again (`serving/adapters/config.py`); a test ensures that both agree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from adapter_format.files import CONFIG_FILE
from training.config.config import TrainingConfig
from training.preflight.contradictions import Refusal

ALLOWED_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM 0.32 accepts for `max_lora_rank`."""
EMBEDDINGS = frozenset({"embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out", "word_embeddings"})
"""Names of input and output embeddings across architectures."""
_ALTERNATIVE = "Or set `serve_as: model` to merge it into the base model, or `none` if it won't be served"


class EngineLimits(Protocol):
    """Limits of the engine that will serve the result."""

    @property
    def max_lora_rank(self) -> int:
        """Largest rank of an adapter."""

    @property
    def max_model_len(self) -> int | None:
        """Maximum tokens of prompt and answer together; None when the engine decides."""


def find_unservable(config: TrainingConfig, limits: EngineLimits | None) -> list[Refusal]:
    """Return why the result can't be served as `serve_as` says, by the setting at fault; empty if it can.

    Args:
        limits: of the running engine; None: ranks are only checked against the maximum of any engine.
    """
    kind = config.finetuning_type
    if kind == "full" and config.serve_as != "model":
        return [
            (
                "serve_as",
                f"`serve_as` is {config.serve_as!r}, but `finetuning_type: full` produces a full model, not an "
                "adapter. Set `serve_as: model`.",
            )
        ]
    if kind in ("prefix_tuning", "p_tuning") and config.serve_as != "none":
        return [
            (
                "serve_as",
                f"`serve_as` is {config.serve_as!r}, but vLLM can't serve `{kind}`, and it can't be merged into the "
                "base model. Set `serve_as: none`, or `finetuning_type: lora`.",
            )
        ]
    if kind == "lora" and config.serve_as == "adapter":
        return [*_check_low_rank(config), *_check_ranks(config, limits), *_check_embeddings(config)]
    return []


def _check_low_rank(config: TrainingConfig) -> Iterator[Refusal]:
    start_config = _read_start_config(config)
    if config.use_dora or start_config.get("use_dora"):
        named, value, remedy = _blame(config, "use_dora", config.use_dora, "Set `use_dora: false`")
        yield named, f"`{named}` {value}, but vLLM can't hot-load DoRA. {remedy}. {_ALTERNATIVE}."
    if config.modules_to_save or start_config.get("modules_to_save"):
        saved = list(config.modules_to_save or ())
        named, value, remedy = _blame(config, "modules_to_save", saved, "Leave it out")
        yield named, f"`{named}` {value}, but vLLM can only hot-load low-rank weights. {remedy}. {_ALTERNATIVE}."


def _check_ranks(config: TrainingConfig, limits: EngineLimits | None) -> Iterator[Refusal]:
    most = limits.max_lora_rank if limits else ALLOWED_LORA_RANKS[-1]
    start_config = _read_start_config(config)
    own = {"r": {"r": config.r}, "rank_pattern": dict(config.rank_pattern or {})}
    if start_config:
        pattern = start_config.get("rank_pattern")
        ranks = {"r": start_config.get("r"), **(pattern if isinstance(pattern, dict) else {})}
        own = {"from_adapter": {name: rank for name, rank in ranks.items() if isinstance(rank, int)}}
    for named, all_ranks in own.items():
        too_high = {name: rank for name, rank in all_ranks.items() if rank > most}
        if too_high:
            where, rank = max(too_high.items(), key=lambda item: item[1])
            of = f"`{named}`" if named == where else f"`{named}`, {where}"
            yield (
                named,
                f"{of} is {rank}, but the engine supports ranks up to {most}. Lower "
                f"it{_suggest_engine_rank(rank)}. {_ALTERNATIVE}.",
            )


def _suggest_engine_rank(rank: int) -> str:
    enough = next((allowed for allowed in ALLOWED_LORA_RANKS if allowed >= rank), None)
    return f", or start the engine with `max_lora_rank` {enough}" if enough else ""


def _check_embeddings(config: TrainingConfig) -> Iterator[Refusal]:
    targets = _read_start_config(config).get("target_modules") or config.target_modules
    named = "from_adapter" if config.from_adapter else "target_modules"
    for target in (targets,) if isinstance(targets, str) else targets:
        if str(target).rsplit(".", 1)[-1] in EMBEDDINGS:
            yield (
                named,
                f"`{named}` includes {target!r}, an embedding, which vLLM can't hot-load. Leave out {target}. "
                f"{_ALTERNATIVE}.",
            )


def _blame(config: TrainingConfig, name: str, value: Any, remedy: str) -> tuple[str, str, str]:
    """Return (setting, its value in words, remedy): of the configuration, or of the adapter that it continues from."""
    if value:
        return name, f"is {value!r}", remedy
    return "from_adapter", f"{config.from_adapter} has {name}", "Start from another adapter"


def _read_start_config(config: TrainingConfig) -> Mapping[str, Any]:
    """Read the adapter_config.json of `from_adapter`, whose values take precedence; empty if absent or unreadable.

    Loading the adapter reports what is wrong with such a file.
    """
    if not config.from_adapter:
        return {}
    try:
        saved = json.loads((Path(config.from_adapter) / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return saved if isinstance(saved, dict) else {}
