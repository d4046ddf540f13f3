"""One fine-tune, told in order: examples and a base in, an adapter directory out. Knows no command line."""

from __future__ import annotations

import math
import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import load_peft_weights, set_peft_model_state_dict
from transformers import set_seed
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from training.adapter_dir import adapter_aside, base_model_sha256, file_sha256, put_in_place, save_adapter
from training.batches import Measurement, Padding, as_features, measure
from training.config import TrainingConfig
from training.examples import Example
from training.formats import DataError, Fault
from training.model import Base, BaseModelError, load_base
from training.progress import ProgressEvent
from training.rendering import Rendered, RenderError, render
from training.stopping import StopRequest
from training.trainer import (
    Features,
    Report,
    Reporter,
    ReportingTrainer,
    last_checkpoint,
    make_trainer,
    refuse_divergence,
    validation_event,
)

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class RunInputs:
    """What a run is made from, checked as far as that goes without the base model."""

    config: TrainingConfig
    training: Sequence[Example]
    validation: Sequence[Example]


def run(inputs: RunInputs, run_dir: Path, report: Report, stop: StopRequest) -> Path:
    """Trains and puts the adapter in place; returns its directory. Goes on from the last checkpoint in `run_dir`.

    Raises:
        BaseModelError: the base model can't be loaded, or is broken.
        DataError: an example can't be turned into something to learn.
        DivergedError: the loss is no longer a number.
        AdapterWriteError: the result is unusable.
        Stopped: a signal came; there is a checkpoint to go on from.
    """
    config = inputs.config
    started = time.monotonic()
    transformers_logging.disable_progress_bar()

    # 1. The base in 4 bit with an untrained adapter on it. The seed decides the adapter's first weights.
    set_seed(config.seed)
    base = load_base(config)
    report(_message(f"loaded {config.served_base_name}, computing in {str(base.compute_dtype).removeprefix('torch.')}"))

    # 2. Text becomes tokens.
    training = _rendered(inputs.training, Path(config.training_file), base, config)
    validation = _rendered(inputs.validation, Path(config.validation_file or config.training_file), base, config)
    report(_message(_counted(training, validation, config)))

    # 3. What the base makes of the validation examples before it learns anything: an adapter starts as no change.
    trainer = make_trainer(config, base, as_features(training), run_dir / CHECKPOINTS)
    total_steps = trainer.args.max_steps
    padding, held_out = Padding(base.pad_token_id), as_features(validation)
    before = measure(base.model, held_out, padding, config.batch_size) if held_out else None
    if before:
        _refuse_broken_base(before, config)
        report(validation_event(before, 0, total_steps))

    # 4. The training itself.
    reporter = _train(trainer, config, held_out, padding, report, stop)
    stop.raise_if_requested()

    # 5. The adapter is written aside, read back, and measured as it was read: what is measured is what is served.
    output_dir = Path(config.output_dir)
    with adapter_aside(output_dir) as partial:
        save_adapter(base.model, partial)
        set_peft_model_state_dict(base.model, load_peft_weights(str(partial), device="cpu"))
        after = measure(base.model, held_out, padding, config.batch_size) if held_out else None
        if after:
            refuse_divergence(after.loss, total_steps)
            report(validation_event(after, total_steps, total_steps))
        if before and after and after.loss > before.loss:
            report(_message("the adapter is worse than the base on the validation examples: lower `learning_rate`"))
        metrics = {
            "train_loss": _finite(reporter.train_loss),
            **_validation_metrics(before, after),
            "trained_tokens": int(trainer.state.num_input_tokens_seen),
            "examples": len(training),
            "steps": total_steps,
            "seconds": round(time.monotonic() - started, 2),
        }
        name = config.fine_tuned_model or _made_up_name(config)
        put_in_place(partial, output_dir, _manifest(config, name, metrics))

    # 6. Said last, when the adapter can be served.
    report(
        ProgressEvent(
            "finished",
            f"{name} is in {output_dir}, after {metrics['seconds']:.0f} s",
            step=total_steps,
            total_steps=total_steps,
            details={"output_dir": str(output_dir), "fine_tuned_model": name, "metrics": metrics},
        )
    )
    return output_dir


def _train(
    trainer: ReportingTrainer,
    config: TrainingConfig,
    held_out: Features,
    padding: Padding,
    report: Report,
    stop: StopRequest,
) -> Reporter:
    total_steps = trainer.args.max_steps
    eval_steps = max(1, total_steps // 4) if config.eval_steps == "auto" else config.eval_steps
    model = trainer.model
    validate = (lambda: measure(model, held_out, padding, config.batch_size)) if held_out else None
    reporter = Reporter(trainer, report, stop, validate, eval_steps)
    trainer.add_callback(reporter)
    checkpoint = last_checkpoint(Path(trainer.args.output_dir))
    if checkpoint:
        report(_message(f"going on from {checkpoint.name}"))
    stop.patient = True
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    stop.patient = False
    return reporter


def _refuse_broken_base(before: Measurement, config: TrainingConfig) -> None:
    if not math.isfinite(before.loss):
        raise BaseModelError(
            f"The base model {config.base_model} gives a loss of {before.loss} before any training: its weights are "
            "broken, or overflow. Get its files again, or set `compute_dtype` to float32."
        )


def _rendered(examples: Sequence[Example], path: Path, base: Base, config: TrainingConfig) -> list[Rendered]:
    rendered, faults = [], []
    for example in examples:
        try:
            rendered.append(render(example, base.tokenizer, config.max_length))
        except RenderError as error:
            faults.append(Fault(error.line, error.reason))
    if faults:
        raise DataError(path, faults)
    return rendered


def _counted(training: Sequence[Rendered], validation: Sequence[Rendered], config: TrainingConfig) -> str:
    tokens = sum(len(one.input_ids) for one in training)
    cut = sum(one.truncated for one in (*training, *validation))
    counted = f"{len(training)} examples with {tokens} tokens to train on, {len(validation)} to measure on"
    return f"{counted}; {cut} cut at max_length {config.max_length}" if cut else counted


def _validation_metrics(before: Measurement | None, after: Measurement | None) -> dict[str, float | None]:
    return {
        "valid_loss_before": _finite(before.loss if before else None),
        "valid_loss": _finite(after.loss if after else None),
        "valid_perplexity_before": _finite(before.perplexity if before else None),
        "valid_perplexity": _finite(after.perplexity if after else None),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _manifest(config: TrainingConfig, name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "base_model": config.served_base_name,
        "base_model_sha256": base_model_sha256(_folder_of(config)),
        "training_file_sha256": file_sha256(Path(config.training_file)),
        "config": config.to_dict(),
        "metrics": metrics,
    }


def _folder_of(config: TrainingConfig) -> Path:
    """Where the base model's files are: its own folder, or the hub's cache."""
    if config.base_is_folder:
        return Path(config.base_model)
    return Path(cached_file(config.base_model, "config.json", local_files_only=True)).parent


def _made_up_name(config: TrainingConfig) -> str:
    unique = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    return f"ft:{config.served_base_name}:local:run:{unique}"


def _message(text: str) -> ProgressEvent:
    return ProgressEvent("message", text)
