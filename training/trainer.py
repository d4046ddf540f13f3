"""The training loop: transformers' Trainer, reporting to our events. Knows no files but its checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from training.batches import Measurement, Padding, count_hits
from training.config import TrainingConfig
from training.model import Base
from training.progress import ProgressEvent
from training.stopping import StopRequest

Features = Sequence[dict[str, list[int]]]
Report = Callable[[ProgressEvent], None]


def make_trainer(config: TrainingConfig, base: Base, features: Features, checkpoints: Path) -> ReportingTrainer:
    """A trainer for the adapter on `base`; its checkpoints go to `checkpoints`, of which the last two are kept."""
    on_gpu = torch.cuda.is_available()
    steps_per_epoch = -(-len(features) // (config.batch_size * config.gradient_accumulation_steps))
    total_steps = config.max_steps or steps_per_epoch * config.n_epochs
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=config.n_epochs,
        max_steps=total_steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=round(config.warmup_ratio * total_steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        bf16=on_gpu and base.compute_dtype == torch.bfloat16,
        fp16=on_gpu and base.compute_dtype == torch.float16,
        use_cpu=not on_gpu,
        optim="adamw_torch",
        train_sampling_strategy="group_by_length",
        dataloader_num_workers=0,  # the examples are in memory; another process would only cost its start
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=steps_per_epoch if config.save_steps == "auto" else config.save_steps,
        save_total_limit=2,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        disable_tqdm=True,
        report_to=[],
        log_level="error",
    )
    trainer = ReportingTrainer(
        model=base.model, args=arguments, train_dataset=features, data_collator=Padding(base.pad_token_id)
    )
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)
    return trainer


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole: its state, which is written last, can be read."""
    by_step = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((checkpoint for checkpoint in by_step if _is_whole(checkpoint)), None)


class DivergedError(Exception):
    """The loss is no longer a number."""


class ReportingTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that counts hits and tokens as it goes."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.hits = self.learned_tokens = self.tokens = 0
        """Since the start of the process: learned tokens predicted right, learned tokens, tokens without padding."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of one batch, counted on the way."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        hits, learned = count_hits(outputs.logits.detach(), inputs["labels"])
        self.hits += hits
        self.learned_tokens += learned
        self.tokens += int(inputs["attention_mask"].sum())
        return (loss, outputs) if return_outputs else loss


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Sends what happens in the loop to `report`, measures on the validation examples, and looks for a stop request."""

    def __init__(
        self,
        trainer: ReportingTrainer,
        report: Report,
        stop: StopRequest,
        validate: Callable[[], Measurement] | None,
        eval_steps: int,
    ) -> None:
        self._trainer, self._report, self._stop = trainer, report, stop
        self._validate, self._eval_steps = validate, eval_steps
        self._seen = (0, 0, 0)
        self._since = self._started = time.monotonic()
        self._first_step = 0
        self.train_loss: float | None = None
        """The last loss that was reported."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock; a resumed run begins at the step of its checkpoint."""
        self._since = self._started = time.monotonic()
        self._first_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """One `step` event for each loss that the Trainer logs."""
        if not logs or "loss" not in logs:
            return
        self.train_loss = logs["loss"]
        refuse_divergence(self.train_loss, state.global_step)
        now, seen = time.monotonic(), (self._trainer.hits, self._trainer.learned_tokens, self._trainer.tokens)
        hits, learned, tokens = (after - before for after, before in zip(seen, self._seen, strict=True))
        remaining_s = self._remaining_s(state.global_step, state.max_steps, now)
        event = ProgressEvent(
            "step",
            f"step {state.global_step}/{state.max_steps}, loss {self.train_loss:.4f}",
            step=state.global_step,
            total_steps=state.max_steps,
            train_loss=self.train_loss,
            train_mean_token_accuracy=hits / learned if learned else None,
            tokens_per_second=tokens / (now - self._since),
            remaining_s=remaining_s,
        )
        self._seen, self._since = seen, now
        self._report(event)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Measures when it is time; on a stop request has a checkpoint written and the loop left."""
        is_last = state.global_step >= state.max_steps
        if self._validate and state.global_step % self._eval_steps == 0 and not is_last:
            self._report(validation_event(self._validate(), state.global_step, state.max_steps))
        if self._stop.signum is not None:
            control.should_save = control.should_training_stop = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One `checkpoint` event."""
        checkpoint = f"checkpoint-{state.global_step}"
        self._report(
            ProgressEvent("checkpoint", f"saved {checkpoint}", step=state.global_step, total_steps=state.max_steps,
                          details={"path": str(Path(args.output_dir) / checkpoint)})
        )  # fmt: skip

    def _remaining_s(self, step: int, total_steps: int, now: float) -> float:
        return (now - self._started) / max(1, step - self._first_step) * (total_steps - step)


def refuse_divergence(loss: float, step: int) -> None:
    """Raises `DivergedError` when `loss` isn't finite: no later step would mend that."""
    if not math.isfinite(loss):
        raise DivergedError(f"The loss after step {step} is {loss}: the training diverged. Lower `learning_rate`.")


def validation_event(measured: Measurement, step: int, total_steps: int) -> ProgressEvent:
    """The event for a measurement on the validation examples after `step` steps."""
    return ProgressEvent(
        "validation",
        f"validation loss {measured.loss:.4f}, perplexity {measured.perplexity:.2f}, accuracy {measured.accuracy:.1%}",
        step=step,
        total_steps=total_steps,
        valid_loss=measured.loss,
        valid_mean_token_accuracy=measured.accuracy,
    )


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
