"""One fine-tuning run from start to end: examples and a base in, an adapter directory out."""

from __future__ import annotations

import math
import secrets
import string
import time
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from training.config.auto import Plan, load_plan, save_plan
from training.config.config import TrainingConfig
from training.data.inputs import RunInputs
from training.learning.batches import Measurement
from training.learning.objective import Objective, make_objective
from training.learning.rows import Rows, make_rows
from training.learning.trainer import find_last_checkpoint, parse_step, restore_trainer
from training.model.base import Base, BaseModelError, load_base
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.preflight.planning import plan_run
from training.preflight.preflight import fit_max_length, preflight
from training.process.memory import OutOfMemoryError, free_memory, is_out_of_memory, release_memory, shrink_batch
from training.process.stopping import StopRequest
from training.record.journal import Journal
from training.record.progress import CHECKPOINTS, ProgressEvent
from training.result.parity import make_run_reference
from training.result.result import publish_result
from training.run.best_weights import BestWeights
from training.run.reporting import Reporter, make_validation_event, refuse_divergence

BEST = "best"


def run(inputs: RunInputs, run_dir: Path, journal: Journal, stop: StopRequest) -> Path:
    """Train and put the result in place; return its directory. Resumes from the last checkpoint in `run_dir`.

    If memory runs out it restarts from the last checkpoint with a smaller batch and more accumulation, or with
    `gradient_checkpointing`.

    Raises:
        BaseModelError: the base model can't be loaded, or is broken.
        DataError: an example can't be trained on.
        DivergedError: the loss is NaN or infinite.
        OutOfMemoryError: one row at a time is too much.
        AdapterWriteError: the result is unusable.
        Stopped: a signal came; there is a checkpoint to resume from.
    """
    started = time.monotonic()
    transformers_logging.disable_progress_bar()
    while True:
        attempt = _Attempt(inputs, run_dir, journal, stop, started)
        try:
            return attempt.run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if attempt.plan is None:
                raise OutOfMemoryError(
                    f"There isn't enough memory to load {inputs.config.base_model}. Use a smaller base model, or "
                    "close other programs."
                ) from error
            plan = shrink_batch(attempt.plan, attempt.config)
            save_plan(run_dir, attempt.config, plan)
            journal.report(_make_memory_event(attempt.plan, plan))
        # Only here, when the exception no longer references the frames of the loop, can their tensors be freed.
        del attempt
        release_memory()


class _Attempt:
    """One attempt with one batch size."""

    def __init__(self, inputs: RunInputs, run_dir: Path, journal: Journal, stop: StopRequest, started: float) -> None:
        self._inputs = inputs
        self._run_dir, self._journal, self._stop, self._started = run_dir, journal, stop, started
        self.config = inputs.config
        """With a `max_length` that fits the base, once that is loaded."""
        self.plan: Plan | None = None
        """Known once the base is loaded and the rows are counted."""

    def run(self) -> Path:
        config = self.config
        # 1. Load the base with an untrained adapter. The seed determines the adapter's initial weights.
        set_seed(config.seed)
        free_bytes = free_memory(torch.cuda.is_available())  # the run's estimate includes the base
        base = load_base(config)
        shape = _read_shape(base)
        if shape and fit_max_length(config, shape) != config:
            config = self.config = fit_max_length(config, shape)
            self._journal.message(f"max_length {config.max_length}: the base model doesn't support longer texts")
        dtype = str(base.compute_dtype).removeprefix("torch.")
        self._journal.message(f"loaded {config.served_base_name}, computing in {dtype}")
        for note in base.notes:
            self._journal.message(note)

        # 2. Tokenise the examples and resolve every `auto`.
        training, validation = self._make_rows(base)
        plan = self.plan = self._make_plan(training, base, shape, free_bytes)
        self._journal.record_plan(
            plan,
            validation_examples=len(validation.rows),
            base_model_sha256=base.sha256,
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )

        # 3. Measure the base on the validation examples before training: an adapter starts as no change.
        objective = make_objective(config, plan, base, training, validation, self._run_dir / CHECKPOINTS)
        before = objective.measure() if objective.measure else None
        if before:
            _refuse_broken_base(before, config)
            self._journal.report(make_validation_event(before, 0, plan.total_steps))

        # 4. Train; at the end the weights of the best validation are restored.
        reporter = self._train(objective, base, plan)
        self._stop.raise_if_requested()

        # 5. Write the result to a temporary folder, reload it, measure it as reloaded, and rename it into place.
        steps = objective.trainer.state.global_step
        metrics = {
            "train_loss": _finite_or_none(reporter.train_loss),
            "trained_tokens": int(objective.trainer.state.num_input_tokens_seen),
            "examples": training.n_examples,
            "steps": steps,
            "seconds": round(time.monotonic() - self._started, 2),
        }
        name = config.fine_tuned_model or _generate_name(config)

        def final_metrics() -> dict[str, Any]:
            after = objective.measure() if objective.measure else None
            if after:
                refuse_divergence(after.loss, steps)
            return {**metrics, **_validation_metrics(before, after)}

        final = publish_result(
            config,
            base,
            name,
            final_metrics,
            training_file_sha256=self._journal.training_file_sha256,
            make_reference=lambda adapter: make_run_reference(base, adapter, objective.trainer, self._journal.message),
        )

        # 6. Reported last, when the result can be served.
        self._journal.report(
            ProgressEvent(
                "finished",
                f"{name} saved to {config.output_dir} after {metrics['seconds']:.0f} s",
                step=steps,
                total_steps=plan.total_steps,
                details={"output_dir": config.output_dir, "fine_tuned_model": name, "metrics": final},
            )
        )
        return Path(config.output_dir)

    def _make_rows(self, base: Base) -> tuple[Rows, Rows]:
        config, inputs = self.config, self._inputs
        path = Path(config.training_file)
        training = make_rows(inputs.training, path, base.tokenizer, config, packing=config.packing)
        if inputs.mixed_in:
            general = make_rows(
                inputs.mixed_in, Path(str(config.mix_file)), base.tokenizer, config, packing=config.packing
            )
            training = training.join(general)
        held_out = Path(config.validation_file or config.training_file)
        validation = make_rows(inputs.validation, held_out, base.tokenizer, config, packing=False)
        counted = f"{training.n_examples} examples with {training.n_tokens} tokens to train on"
        notes = [f"{counted}, {validation.n_examples} for validation", training.note, validation.note]
        self._journal.message("; ".join(filter(None, notes)))
        return training, validation

    def _make_plan(self, rows: Rows, base: Base, shape: ModelShape | None, free_bytes: int | None) -> Plan:
        """Return the schedule: the one saved at the first start, else a new one, if memory is expected to suffice."""
        config = self.config
        saved = load_plan(self._run_dir, config)
        if saved:
            return saved
        on_gpu = torch.cuda.is_available()
        plan, decided = plan_run(
            config,
            shape,
            n_rows=len(rows.rows),
            mean_tokens=rows.n_tokens / len(rows.rows),
            longest_tokens=rows.longest,
            n_parameters=base.n_parameters,
            on_gpu=on_gpu,
            free_bytes=free_bytes,
        )
        for reason in plan.reasons:
            self._journal.message(reason)
        if shape:
            checked = preflight(
                decided,
                shape,
                free_bytes=free_bytes,
                engine_limits=None,
                on_gpu=on_gpu,
                plan_batch=plan.batch_size,
                longest_tokens=rows.longest,
            )
            for finding in checked.findings:
                self._journal.message(finding.message)
        save_plan(self._run_dir, config, plan)
        return plan

    def _train(self, objective: Objective, base: Base, plan: Plan) -> Reporter:
        config, trainer = self.config, objective.trainer
        best = None
        if objective.measure:
            best = BestWeights(
                self._run_dir / BEST,
                base.model,
                patience=config.early_stopping_patience,
                threshold=config.early_stopping_threshold,
            )
        reporter = Reporter(
            trainer, self._journal.report, self._stop, validate=objective.measure, eval_steps=plan.eval_steps, best=best
        )
        trainer.add_callback(reporter)
        checkpoint = find_last_checkpoint(self._run_dir / CHECKPOINTS)
        if checkpoint:
            self._journal.message(f"resuming from {checkpoint.name}")
        if best:
            best.drop_after(parse_step(checkpoint) if checkpoint else 0)
        self._stop.patient = True
        if checkpoint and (parse_step(checkpoint) >= plan.total_steps or (best and best.is_exhausted)):
            reporter.train_loss = restore_trainer(trainer, checkpoint)  # training is complete; `train` would add a step
            reporter.ended_early = parse_step(checkpoint) < plan.total_steps
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._stop.patient = False
        if reporter.ended_early:
            self._journal.message(
                f"stopped early after step {trainer.state.global_step}: the validation loss stopped improving"
            )
        if best and best.best and config.load_best_model_at_end and self._stop.signum is None:
            best.restore()
            if best.best.step != trainer.state.global_step:
                self._journal.message(
                    f"kept the weights of step {best.best.step}, whose validation loss was the lowest"
                )
        return reporter


def _read_shape(base: Base) -> ModelShape | None:
    """Return None for a model whose config.json doesn't give its size: then memory may run out in the run."""
    try:
        return ModelShape.from_folder(base.folder)
    except ModelShapeError:
        return None


def _refuse_broken_base(before: Measurement, config: TrainingConfig) -> None:
    if not math.isfinite(before.loss):
        raise BaseModelError(
            f"The base model {config.base_model} has a loss of {before.loss} before training: its weights are "
            "broken or overflow. Download it again, or set `compute_dtype` to float32."
        )


def _validation_metrics(before: Measurement | None, after: Measurement | None) -> dict[str, float | None]:
    """Return each measure before and after; those that a method doesn't have are left out."""
    metrics = {
        "valid_loss": ("loss", before, after),
        "valid_perplexity": ("perplexity", before, after),
        "valid_reward_margin": ("reward_margin", before, after),
        "valid_reward_accuracy": ("reward_accuracy", before, after),
    }
    found: dict[str, float | None] = {}
    for name, (attribute, *measured) in metrics.items():
        values = [getattr(measurement, attribute) if measurement else None for measurement in measured]
        if name == "valid_loss" or any(value is not None for value in values):
            found[f"{name}_before"], found[name] = _finite_or_none(values[0]), _finite_or_none(values[1])
    return found


def _finite_or_none(value: float | None) -> float | None:
    """Replace non-finite values by None: JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _generate_name(config: TrainingConfig) -> str:
    unique = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    return f"ft:{config.served_base_name}:local:run:{unique}"


def _make_memory_event(before: Plan, after: Plan) -> ProgressEvent:
    remedy = f"{after.batch_size} and {after.gradient_accumulation_steps} accumulation steps"
    if after.gradient_checkpointing != before.gradient_checkpointing:
        remedy = "gradient_checkpointing"
    return ProgressEvent(
        "message",
        f"out of memory with batch_size {before.batch_size}: continuing with {remedy}, which gives the same result "
        "but takes longer",
        code="out_of_memory",
    )
