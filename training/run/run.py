"""One fine-tune, told in order: examples and a base in, an adapter directory out. Knows no command line."""

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

from training.config.auto import Plan
from training.config.config import TrainingConfig
from training.data.inputs import RunInputs
from training.learning.batches import Measurement
from training.learning.objective import Objective, make_objective
from training.learning.rows import Rows, make_rows
from training.learning.trainer import last_checkpoint, step_of, take_up
from training.model.base import Base, BaseModelError, load_base
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.preflight.planning import plan_run
from training.preflight.preflight import preflight, within_positions
from training.process.memory import OutOfMemoryError, free_memory, give_back, is_out_of_memory, smaller
from training.process.stopping import StopRequest
from training.record.journal import Journal
from training.record.progress import CHECKPOINTS, ProgressEvent
from training.result.parity import reference_of_run
from training.result.result import put_result_in_place
from training.run.best_weights import BestWeights
from training.run.plan_file import save_plan, saved_plan
from training.run.reporting import Reporter, refuse_divergence, validation_event

BEST = "best"


def run(inputs: RunInputs, run_dir: Path, journal: Journal, stop: StopRequest) -> Path:
    """Trains and puts the result in place; returns its directory. Goes on from the last checkpoint in `run_dir`.

    Where memory runs out it begins again from the last checkpoint with a smaller batch and more accumulation, or
    with `gradient_checkpointing`.

    Raises:
        BaseModelError: the base model can't be loaded, or is broken.
        DataError: an example can't be turned into something to learn.
        DivergedError: the loss is no longer a number.
        OutOfMemoryError: one row at a time is too much.
        AdapterWriteError: the result is unusable.
        Stopped: a signal came; there is a checkpoint to go on from.
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
                    f"The memory isn't enough to load {inputs.config.base_model}. Take a smaller base model, or end "
                    "other programs."
                ) from error
            plan = smaller(attempt.plan, attempt.config)
            save_plan(run_dir, attempt.config, plan)
            journal.report(_out_of_memory(attempt.plan, plan))
        # Only here, when the exception no longer holds the frames of the loop, can their tensors go.
        del attempt
        give_back()


class _Attempt:
    """One way through the story with one batch size."""

    def __init__(self, inputs: RunInputs, run_dir: Path, journal: Journal, stop: StopRequest, started: float) -> None:
        self._inputs = inputs
        self._run_dir, self._journal, self._stop, self._started = run_dir, journal, stop, started
        self.config = inputs.config
        """With a `max_length` that suits the base, once that is loaded."""
        self.plan: Plan | None = None
        """Known once the base is loaded and the rows are counted."""

    def run(self) -> Path:
        config = self.config
        # 1. The base with an untrained adapter on it. The seed decides the adapter's first weights.
        set_seed(config.seed)
        free_bytes = free_memory(torch.cuda.is_available())  # what the run will take counts the base, too
        base = load_base(config)
        shape = _shape(base)
        if shape and within_positions(config, shape) != config:
            config = self.config = within_positions(config, shape)
            self._journal.message(f"max_length {config.max_length}: the base was made for no longer texts")
        dtype = str(base.compute_dtype).removeprefix("torch.")
        self._journal.message(f"loaded {config.served_base_name}, computing in {dtype}")
        for note in base.notes:
            self._journal.message(note)

        # 2. Text becomes tokens, and every `auto` a number.
        training, validation = self._rows(base)
        plan = self.plan = self._planned(training, base, shape, free_bytes)
        self._journal.planned(
            plan,
            validation_examples=len(validation.rows),
            base_model_sha256=base.sha256,
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )

        # 3. What the base makes of the validation examples before it learns anything: an adapter starts as no change.
        objective = make_objective(config, plan, base, training, validation, self._run_dir / CHECKPOINTS)
        before = objective.measure() if objective.measure else None
        if before:
            _refuse_broken_base(before, config)
            self._journal.report(validation_event(before, 0, plan.total_steps))

        # 4. The training itself; in the end the weights of the best validation are put back.
        reporter = self._train(objective, base, plan)
        self._stop.raise_if_requested()

        # 5. The result is written aside, read back, measured as it was read, and renamed into place.
        steps = objective.trainer.state.global_step
        metrics = {
            "train_loss": _finite(reporter.train_loss),
            "trained_tokens": int(objective.trainer.state.num_input_tokens_seen),
            "examples": training.n_examples,
            "steps": steps,
            "seconds": round(time.monotonic() - self._started, 2),
        }
        name = config.fine_tuned_model or _made_up_name(config)

        def final_metrics() -> dict[str, Any]:
            after = objective.measure() if objective.measure else None
            if after:
                refuse_divergence(after.loss, steps)
            return {**metrics, **_validation_metrics(before, after)}

        final = put_result_in_place(
            config,
            base,
            name,
            final_metrics,
            training_file_sha256=self._journal.training_file_sha256,
            make_reference=lambda adapter: reference_of_run(base, adapter, objective.trainer, self._journal.message),
        )

        # 6. Said last, when the result can be served.
        self._journal.report(
            ProgressEvent(
                "finished",
                f"{name} is in {config.output_dir}, after {metrics['seconds']:.0f} s",
                step=steps,
                total_steps=plan.total_steps,
                details={"output_dir": config.output_dir, "fine_tuned_model": name, "metrics": final},
            )
        )
        return Path(config.output_dir)

    def _rows(self, base: Base) -> tuple[Rows, Rows]:
        config, inputs = self.config, self._inputs
        path = Path(config.training_file)
        training = make_rows(inputs.training, path, base.tokenizer, config, packing=config.packing)
        if inputs.mixed_in:
            general = make_rows(
                inputs.mixed_in, Path(str(config.mix_file)), base.tokenizer, config, packing=config.packing
            )
            training = training.joined_with(general)
        held_out = Path(config.validation_file or config.training_file)
        validation = make_rows(inputs.validation, held_out, base.tokenizer, config, packing=False)
        counted = f"{training.n_examples} examples with {training.n_tokens} tokens to train on"
        notes = [f"{counted}, {validation.n_examples} to measure on", training.note, validation.note]
        self._journal.message("; ".join(filter(None, notes)))
        return training, validation

    def _planned(self, rows: Rows, base: Base, shape: ModelShape | None, free_bytes: int | None) -> Plan:
        """The schedule: the one noted when the run first began, else a new one, if memory is expected to suffice."""
        config = self.config
        noted = saved_plan(self._run_dir, config)
        if noted:
            return noted
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
        checkpoint = last_checkpoint(self._run_dir / CHECKPOINTS)
        if checkpoint:
            self._journal.message(f"going on from {checkpoint.name}")
        if best:
            best.forget_after(step_of(checkpoint) if checkpoint else 0)
        self._stop.patient = True
        if checkpoint and (step_of(checkpoint) >= plan.total_steps or (best and best.is_exhausted)):
            reporter.train_loss = take_up(trainer, checkpoint)  # it was trained to its end; `train` would add a step
            reporter.ended_early = step_of(checkpoint) < plan.total_steps
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._stop.patient = False
        if reporter.ended_early:
            self._journal.message(
                f"ended early after step {trainer.state.global_step}: the validation loss fell no more"
            )
        if best and best.best and config.load_best_model_at_end and self._stop.signum is None:
            best.restore()
            if best.best.step != trainer.state.global_step:
                self._journal.message(
                    f"kept the weights of step {best.best.step}, whose validation loss was the lowest"
                )
        return reporter


def _shape(base: Base) -> ModelShape | None:
    """None for a model whose config.json doesn't say how large it is: then whether it fits is seen when it doesn't."""
    try:
        return ModelShape.from_folder(base.folder)
    except ModelShapeError:
        return None


def _refuse_broken_base(before: Measurement, config: TrainingConfig) -> None:
    if not math.isfinite(before.loss):
        raise BaseModelError(
            f"The base model {config.base_model} gives a loss of {before.loss} before any training: its weights are "
            "broken, or overflow. Get its files again, or set `compute_dtype` to float32."
        )


def _validation_metrics(before: Measurement | None, after: Measurement | None) -> dict[str, float | None]:
    """Each measure before and after; those that a method doesn't have are left out."""
    metrics = {
        "valid_loss": ("loss", before, after),
        "valid_perplexity": ("perplexity", before, after),
        "valid_reward_margin": ("reward_margin", before, after),
        "valid_reward_accuracy": ("reward_accuracy", before, after),
    }
    found: dict[str, float | None] = {}
    for name, (attribute, *measured) in metrics.items():
        values = [getattr(one, attribute) if one else None for one in measured]
        if name == "valid_loss" or any(value is not None for value in values):
            found[f"{name}_before"], found[name] = _finite(values[0]), _finite(values[1])
    return found


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _made_up_name(config: TrainingConfig) -> str:
    unique = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    return f"ft:{config.served_base_name}:local:run:{unique}"


def _out_of_memory(before: Plan, after: Plan) -> ProgressEvent:
    remedy = f"{after.batch_size} and {after.gradient_accumulation_steps} accumulation steps"
    if after.gradient_checkpointing != before.gradient_checkpointing:
        remedy = "gradient_checkpointing"
    return ProgressEvent(
        "message",
        f"out of memory with batch_size {before.batch_size}: going on with {remedy}, which learns the same and takes "
        "longer",
        code="out_of_memory",
    )
