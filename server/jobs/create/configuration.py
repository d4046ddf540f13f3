"""From a request to the trainer's configuration, checked before anything is written. Knows no database and no HTTP.

What OpenAI's API names is taken from there; `tuneloop` reaches the trainer's other settings by their own names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from server.jobs.create.body import CreateJob
from server.wire.errors import BadRequest
from serving import Adapter, BaseModel, Device, EngineLimits
from training.config.auto import TARGET_ROWS, auto_learning_rate
from training.config.config import ConfigError, TrainingConfig
from training.preflight.checkpointing import resolve_checkpointing
from training.preflight.memory import largest_batch
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.preflight.preflight import fit_max_length, preflight, refuse_contradictions

SAID_ELSEWHERE = {
    "base_model": "model",
    "base_model_name": "model",
    "from_adapter": "model",
    "training_file": "training_file",
    "validation_file": "validation_file",
    "output_dir": "suffix",
    "fine_tuned_model": "suffix",
    "method": "method.type",
    "seed": "seed",
    "wandb_project": "integrations",
}
"""Settings that the server decides, and the parameter that they follow from."""
HYPERPARAMETERS = {
    "n_epochs": "n_epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate_multiplier",
    "beta": "beta",
}
"""Settings, and the hyperparameter that says the same."""
_LARGEST_NUMBER = 2**53
"""Above it, not every whole number is a JSON number that all programs read alike."""
_MEMORY_SHARE = 0.9
"""Share of the device's memory that a batch is chosen for."""


@dataclass(frozen=True)
class Ground:
    """What jobs are trained on here."""

    base: BaseModel
    limits: EngineLimits
    device: Device

    @cached_property
    def shape(self) -> ModelShape | None:
        """The base's sizes; None for a base whose config.json doesn't say them."""
        try:
            return ModelShape.from_folder(self.base.path)
        except ModelShapeError:
            return None

    @property
    def on_gpu(self) -> bool:
        """Whether trainings run on a GPU."""
        return self.device.kind == "cuda"

    @property
    def memory_bytes(self) -> int:
        """All memory that a training can have when nothing else runs."""
        return self.device.gpus[0].memory_total_bytes if self.on_gpu else self.device.memory_total_bytes

    @property
    def n_parameters(self) -> int:
        """Of the base, all of them; by the size of its files where nothing else says it."""
        shape = self.shape
        return shape.n_parameters if shape else max(1, self.base.weights_bytes // 2)


@dataclass(frozen=True)
class Checked:
    """A job that can work, by all that can be known before it starts."""

    config: TrainingConfig
    """The configuration; its files are ids and its folders names, since nothing is written yet."""
    hyperparameters: dict[str, Any]
    """By OpenAI's names, each a number or `auto`."""
    base_learning_rate: float
    """What `learning_rate_multiplier` multiplies."""


def check(request: CreateJob, ground: Ground, start: Adapter | None, *, seed: int, checkpoints_kept: int) -> Checked:
    """What `request` means on this ground.

    Args:
        start: the adapter that is gone on from.

    Raises:
        BadRequest: it can't work; every reason is told, `param` is the place of the first in the request.
    """
    checked = compose(request, ground, start, seed=seed, checkpoints_kept=checkpoints_kept)
    try:
        look_ahead(checked.config, ground)
    except ConfigError as error:
        raise refusal(error, request, start) from error
    return checked


def compose(request: CreateJob, ground: Ground, start: Adapter | None, *, seed: int, checkpoints_kept: int) -> Checked:
    """As `check`, but for what the preflight says: whether the run fits, and its result can be served.

    Raises:
        BadRequest: a value breaks its own rule.
    """
    extra = dict(request.tuneloop or {})
    _refuse_decided(request, extra)
    asked = request.asked_for()
    try:
        values = _values(request, ground, extra, start, seed, checkpoints_kept)
        draft = TrainingConfig.from_dict(values)
        if ground.shape:
            draft = fit_max_length(draft, ground.shape)
        base_rate = auto_learning_rate(draft.method, draft.finetuning_type, ground.n_parameters)
        config = dataclasses.replace(draft, **_from_hyperparameters(asked, draft, ground, base_rate, extra))
    except ConfigError as error:
        raise refusal(error, request, start) from error
    return Checked(config, _told(asked, config, extra, base_rate), base_rate)


def _values(
    request: CreateJob, ground: Ground, extra: Mapping[str, Any], start: Adapter | None, seed: int, kept: int
) -> dict[str, Any]:
    """All but the hyperparameters. OpenAI trains on the whole file, so nothing of it is held back unless asked for;
    and it doesn't mind what the two files share, so that is left out of the measurement rather than refused."""
    return {
        "validation_fraction": 0.0,
        "on_leakage": "drop",
        "save_total_limit": max(3, kept),
        **extra,
        "base_model": ground.base.name,
        "base_model_name": ground.base.name,
        "training_file": request.training_file,
        "validation_file": request.validation_file,
        "output_dir": "adapter",
        "from_adapter": str(start.path) if start else None,
        "method": request.method_type,
        "seed": seed,
        "wandb_project": request.integrations[0].wandb.project if request.integrations else None,
    }


def _from_hyperparameters(
    asked: Mapping[str, Any], draft: TrainingConfig, ground: Ground, base_rate: float, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that the hyperparameters decide; `auto` leaves them as they are."""
    given = {name: asked[named] for name, named in HYPERPARAMETERS.items() if asked.get(named, "auto") != "auto"}
    if "learning_rate" in given:
        given["learning_rate"] *= base_rate
    if "batch_size" in given:
        given |= _batches(given["batch_size"], draft, ground, extra)
    return given


def _batches(per_step: int, draft: TrainingConfig, ground: Ground, extra: Mapping[str, Any]) -> dict[str, int]:
    """OpenAI's batch is what one step learns from; it is cut into equal passes that fit into memory."""
    if "gradient_accumulation_steps" in extra:
        passes = draft.gradient_accumulation_steps
        if per_step % passes:
            raise ConfigError(
                [
                    f"`gradient_accumulation_steps` is {passes}, but must divide `batch_size` {per_step}, the examples "
                    "of one step. Leave it out: it is chosen by what fits into memory."
                ],
                param="gradient_accumulation_steps",
            )
        return {"batch_size": per_step // passes}
    least = 2 if draft.method == "kto" else 1
    sizes = [size for size in range(least, per_step + 1) if per_step % size == 0] or [per_step]
    room = min(TARGET_ROWS, _rows_that_fit(draft, ground))
    size = max((size for size in sizes if size <= room), default=sizes[0])
    return {"batch_size": size, "gradient_accumulation_steps": per_step // size}


def _rows_that_fit(draft: TrainingConfig, ground: Ground) -> int:
    if ground.shape is None:
        return 1
    limit = _MEMORY_SHARE * min(ground.memory_bytes, (draft.max_memory_gb or float("inf")) * 1e9)
    draft, _ = resolve_checkpointing(draft, ground.shape, free_bytes=limit, on_gpu=ground.on_gpu)
    return largest_batch(ground.shape, draft, draft.max_length, ground.on_gpu, limit)


def look_ahead(config: TrainingConfig, ground: Ground) -> None:
    """Raises ConfigError when the run can't work here or its result can't be served."""
    if ground.shape is None:
        refuse_contradictions(config, ground.limits)
        return
    preflight(
        config, ground.shape, free_bytes=ground.memory_bytes, engine_limits=ground.limits, on_gpu=ground.on_gpu
    )  # fmt: skip


def _told(
    asked: Mapping[str, Any], config: TrainingConfig, extra: Mapping[str, Any], base_rate: float
) -> dict[str, Any]:
    """The hyperparameters as the job shows them: what came in `tuneloop` by the trainer's names is among them."""
    told = dict(asked)
    if config.n_epochs != "auto":
        told["n_epochs"] = config.n_epochs
    if config.batch_size != "auto":
        told["batch_size"] = config.batch_size * config.gradient_accumulation_steps
    if told["learning_rate_multiplier"] == "auto" and config.learning_rate != "auto":
        told["learning_rate_multiplier"] = round(config.learning_rate / base_rate, 6)
    if "beta" in told:
        told["beta"] = config.beta
    return told


def _refuse_decided(request: CreateJob, extra: Mapping[str, Any]) -> None:
    """Raises BadRequest for settings in `tuneloop` that the server decides, or that a hyperparameter decides too."""
    for name, value in extra.items():
        if name in SAID_ELSEWHERE:
            raise BadRequest(
                f"tuneloop.{name} isn't taken from a request: it follows from {SAID_ELSEWHERE[name]}. Leave it out.",
                param=f"tuneloop.{name}",
                code="invalid_value",
            )
        if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
            raise BadRequest(
                f"tuneloop.{name} is larger than any setting can be. docs/training.md has the ranges.",
                param=f"tuneloop.{name}",
                code="integer_above_max_value",
            )
        named = HYPERPARAMETERS.get(name)
        if named and request.asked_for().get(named, "auto") != "auto":
            raise BadRequest(
                f"tuneloop.{name} and {request.hyperparameters_at}.{named} say the same. Give one of them.",
                param=f"tuneloop.{name}",
                code="invalid_value",
            )


def refusal(error: ConfigError, request: CreateJob, start: Adapter | None) -> BadRequest:
    """The trainer's refusal, in the request's words and without paths of this machine."""
    text = " ".join(error.faults)
    if start:
        text = text.replace(str(start.path), start.name)
    return BadRequest(text, param=_param(error.param, request), code="invalid_value")


def _param(name: str | None, request: CreateJob) -> str | None:
    if name in SAID_ELSEWHERE:
        return SAID_ELSEWHERE[name]
    if name in HYPERPARAMETERS and name not in (request.tuneloop or {}):
        return f"{request.hyperparameters_at}.{HYPERPARAMETERS[name]}"
    return f"tuneloop.{name}" if name else None


def in_run_dir(config: TrainingConfig, run_dir: Path, base: BaseModel, output_dir: Path, name: str) -> TrainingConfig:
    """`config` with the places where its files lie once the run directory is written."""

    def placed(file: str | None, at: str) -> str | None:
        return str(run_dir / at) if file else None

    return dataclasses.replace(
        config,
        base_model=str(base.path),
        training_file=str(run_dir / "training.jsonl"),
        validation_file=placed(config.validation_file, "validation.jsonl"),
        mix_file=placed(config.mix_file, "mix.jsonl"),
        from_adapter=placed(config.from_adapter, "from_adapter"),
        output_dir=str(output_dir),
        fine_tuned_model=name,
    )
