"""From a request to the trainer's configuration, checked before anything is written.

Settings that OpenAI's API has are taken from its fields; `tuneloop` sets the trainer's others by their own names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from server.jobs.create.body import CreateJob
from server.wire.errors import BadRequest
from serving import GPU, Adapter, BaseModel, Device, EngineLimits
from serving.machine.division import Division
from training.config.auto import TARGET_ROWS, auto_learning_rate
from training.config.config import ConfigError, TrainingConfig
from training.preflight.checkpointing import resolve_checkpointing
from training.preflight.memory import largest_batch
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.preflight.preflight import fit_max_length, preflight, refuse_contradictions

SET_BY_SERVER = {
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
"""Settings that the server sets, and the parameter that each follows from."""
HYPERPARAMETERS = {
    "n_epochs": "n_epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate_multiplier",
    "beta": "beta",
}
"""Settings, and the hyperparameter that each corresponds to."""
_LARGEST_NUMBER = 2**53
"""Larger integers aren't read alike by all JSON parsers."""
_NEARLY_ALL = 0.9
"""Share of the memory above which stopping the engine wouldn't leave much more."""
_GB = 1e9
_MEMORY_SHARE = 0.9
"""Share of the device's memory that the batch size is chosen for."""


@dataclass(frozen=True)
class TrainingTarget:
    """What a job is trained on: base model, engine limits and device."""

    base: BaseModel
    limits: EngineLimits
    device: Device
    division: Division = field(default_factory=Division)

    @cached_property
    def shape(self) -> ModelShape | None:
        """The base's sizes; None if its config.json doesn't have them."""
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
        """The memory that a training has if no other runs."""
        if self.on_gpu and self.division.training_bytes is not None:
            return self.division.training_bytes
        return self._machine.memory_total_bytes

    @property
    def room(self) -> str | None:
        """What `memory_bytes` is, in words; None for the CPU's memory."""
        machine = self._machine
        if isinstance(machine, Device):
            return None
        whole = f"of the {machine.memory_total_bytes / _GB:.2f} GB of {machine.name}"
        policy = f"accelerator_policy {self.division.policy}"
        if self.division.policy == "split":
            return f"{self.memory_bytes / _GB:.2f} {whole} are left beside the engine ({policy})"
        return f"{self.memory_bytes / _GB:.2f} {whole} are there for training ({policy})"

    @property
    def way_out(self) -> str | None:
        """What the server's operator can change for more memory; None if nothing."""
        whole = self._machine.memory_total_bytes
        if not self.on_gpu or self.division.policy != "split" or self.memory_bytes > _NEARLY_ALL * whole:
            return None
        return (
            f"Or the server's operator sets `accelerator_policy` to stop: then about {whole / _GB:.0f} GB are there, "
            "and requests wait while a job trains"
        )

    @property
    def _machine(self) -> GPU | Device:
        """What trainings run on."""
        if not self.on_gpu:
            return self.device
        own = self.division.training[0] if self.division.training and not self.division.on_cpu else None
        return self.device.gpus[self.device.main_gpu if own is None else own]

    @property
    def n_parameters(self) -> int:
        """All parameters of the base; estimated from the size of its files if its shape is unknown."""
        shape = self.shape
        return shape.n_parameters if shape else max(1, self.base.weights_bytes // 2)


@dataclass(frozen=True)
class CheckedJob:
    """A job whose configuration has been checked as far as possible before it starts."""

    config: TrainingConfig
    """The configuration; it has file ids and names instead of paths, since nothing is written yet."""
    hyperparameters: dict[str, Any]
    """By OpenAI's names, each a number or `auto`."""
    base_learning_rate: float
    """What `learning_rate_multiplier` multiplies."""


def check_job(
    request: CreateJob, target: TrainingTarget, start: Adapter | None, *, seed: int, checkpoints_kept: int
) -> CheckedJob:
    """Check the request and return the job's configuration.

    Args:
        start: the adapter that training continues from.

    Raises:
        BadRequest: the job can't work; the message has every reason, `param` is the first one's in the request.
    """
    checked = compose_job(request, target, start, seed=seed, checkpoints_kept=checkpoints_kept)
    try:
        check_feasible(checked.config, target)
    except ConfigError as error:
        raise build_refusal(error, request, start) from error
    return checked


def compose_job(
    request: CreateJob, target: TrainingTarget, start: Adapter | None, *, seed: int, checkpoints_kept: int
) -> CheckedJob:
    """Like `check_job`, but without the preflight, which checks that the run fits and its result can be served.

    Raises:
        BadRequest: a value breaks its own rule.
    """
    extra = dict(request.tuneloop or {})
    _refuse_server_settings(request, extra)
    requested = request.merge_hyperparameters()
    try:
        values = _build_values(request, target, extra, start, seed, checkpoints_kept)
        draft = TrainingConfig.from_dict(values)
        if target.shape:
            draft = fit_max_length(draft, target.shape)
        base_rate = auto_learning_rate(draft.method, draft.finetuning_type, target.n_parameters)
        config = dataclasses.replace(draft, **_apply_hyperparameters(requested, draft, target, base_rate, extra))
    except ConfigError as error:
        raise build_refusal(error, request, start) from error
    return CheckedJob(config, _build_hyperparameters(requested, config, extra, base_rate), base_rate)


def _build_values(
    request: CreateJob, target: TrainingTarget, extra: Mapping[str, Any], start: Adapter | None, seed: int, kept: int
) -> dict[str, Any]:
    """Return all settings but the hyperparameters.

    OpenAI trains on the whole file, so by default nothing is held out. It also accepts files that share examples, so
    shared ones are dropped from the validation file rather than refused.
    """
    return {
        "validation_fraction": 0.0,
        "on_leakage": "drop",
        "save_total_limit": max(3, kept),
        **extra,
        "base_model": target.base.name,
        "base_model_name": target.base.name,
        "training_file": request.training_file,
        "validation_file": request.validation_file,
        "output_dir": "adapter",
        "from_adapter": str(start.path) if start else None,
        "method": request.method_type,
        "seed": seed,
        "wandb_project": request.integrations[0].wandb.project if request.integrations else None,
    }


def _apply_hyperparameters(
    requested: Mapping[str, Any],
    draft: TrainingConfig,
    target: TrainingTarget,
    base_rate: float,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the settings that follow from the hyperparameters; `auto` leaves a setting unchanged."""
    given = {
        name: requested[named] for name, named in HYPERPARAMETERS.items() if requested.get(named, "auto") != "auto"
    }
    if "learning_rate" in given:
        given["learning_rate"] *= base_rate
    if "batch_size" in given:
        given |= _split_batch(given["batch_size"], draft, target, extra)
    return given


def _split_batch(
    per_step: int, draft: TrainingConfig, target: TrainingTarget, extra: Mapping[str, Any]
) -> dict[str, int]:
    """Split OpenAI's batch, the examples of one optimizer step, into equal passes that fit into memory."""
    if "gradient_accumulation_steps" in extra:
        passes = draft.gradient_accumulation_steps
        if per_step % passes:
            raise ConfigError(
                [
                    f"`gradient_accumulation_steps` is {passes}, but must divide `batch_size` {per_step}, the "
                    "examples per step. Leave it out to choose it by the available memory."
                ],
                param="gradient_accumulation_steps",
            )
        return {"batch_size": per_step // passes}
    smallest = 2 if draft.method == "kto" else 1
    sizes = [size for size in range(smallest, per_step + 1) if per_step % size == 0] or [per_step]
    max_rows = min(TARGET_ROWS, _count_rows_that_fit(draft, target))
    size = max((size for size in sizes if size <= max_rows), default=sizes[0])
    return {"batch_size": size, "gradient_accumulation_steps": per_step // size}


def _count_rows_that_fit(draft: TrainingConfig, target: TrainingTarget) -> int:
    if target.shape is None:
        return 1
    limit = _MEMORY_SHARE * min(target.memory_bytes, (draft.max_memory_gb or float("inf")) * 1e9)
    draft, _ = resolve_checkpointing(draft, target.shape, free_bytes=limit, on_gpu=target.on_gpu)
    return largest_batch(target.shape, draft, draft.max_length, target.on_gpu, limit)


def check_feasible(config: TrainingConfig, target: TrainingTarget) -> None:
    """Raise ConfigError if the run can't work here or its result can't be served."""
    if target.shape is None:
        refuse_contradictions(config, target.limits)
        return
    preflight(
        config,
        target.shape,
        free_bytes=target.memory_bytes,
        engine_limits=target.limits,
        on_gpu=target.on_gpu,
        room=target.room,
        way_out=target.way_out,
    )


def _build_hyperparameters(
    requested: Mapping[str, Any], config: TrainingConfig, extra: Mapping[str, Any], base_rate: float
) -> dict[str, Any]:
    """Return the hyperparameters as the job shows them, including those that `tuneloop` set by the trainer's names."""
    shown = dict(requested)
    if config.n_epochs != "auto":
        shown["n_epochs"] = config.n_epochs
    if config.batch_size != "auto":
        shown["batch_size"] = config.batch_size * config.gradient_accumulation_steps
    if shown["learning_rate_multiplier"] == "auto" and config.learning_rate != "auto":
        shown["learning_rate_multiplier"] = round(config.learning_rate / base_rate, 6)
    if "beta" in shown:
        shown["beta"] = config.beta
    return shown


def _refuse_server_settings(request: CreateJob, extra: Mapping[str, Any]) -> None:
    """Raise BadRequest for settings in `tuneloop` that the server sets, or that are also set by a hyperparameter."""
    for name, value in extra.items():
        if name in SET_BY_SERVER:
            raise BadRequest(
                "tuneloop.output_dir isn't accepted: the server chooses it. Leave it out."
                if name == "output_dir"
                else f"tuneloop.{name} isn't accepted. Use the parameter {SET_BY_SERVER[name]} instead.",
                param=f"tuneloop.{name}",
                code="invalid_value",
            )
        if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
            raise BadRequest(
                f"tuneloop.{name} is out of range. See docs/training.md for the ranges.",
                param=f"tuneloop.{name}",
                code="integer_above_max_value",
            )
        named = HYPERPARAMETERS.get(name)
        if named and request.merge_hyperparameters().get(named, "auto") != "auto":
            raise BadRequest(
                f"tuneloop.{name} and {request.hyperparameters_at}.{named} are the same setting. Set only one of them.",
                param=f"tuneloop.{name}",
                code="invalid_value",
            )


def build_refusal(error: ConfigError, request: CreateJob, start: Adapter | None) -> BadRequest:
    """Return the trainer's error with the request's parameter names and without paths of this machine."""
    text = " ".join(error.faults)
    if start:
        text = text.replace(str(start.path), start.name)
    return BadRequest(text, param=_find_param(error.param, request), code="invalid_value")


def _find_param(name: str | None, request: CreateJob) -> str | None:
    if name in SET_BY_SERVER:
        return SET_BY_SERVER[name]
    if name in HYPERPARAMETERS and name not in (request.tuneloop or {}):
        return f"{request.hyperparameters_at}.{HYPERPARAMETERS[name]}"
    return f"tuneloop.{name}" if name else None


def place_in_run_dir(
    config: TrainingConfig, run_dir: Path, base: BaseModel, output_dir: Path, name: str
) -> TrainingConfig:
    """Return `config` with the paths that its files have in the run directory."""

    def place(file: str | None, at: str) -> str | None:
        return str(run_dir / at) if file else None

    return dataclasses.replace(
        config,
        base_model=str(base.path),
        training_file=str(run_dir / "training.jsonl"),
        validation_file=place(config.validation_file, "validation.jsonl"),
        mix_file=place(config.mix_file, "mix.jsonl"),
        from_adapter=place(config.from_adapter, "from_adapter"),
        output_dir=str(output_dir),
        fine_tuned_model=name,
    )
