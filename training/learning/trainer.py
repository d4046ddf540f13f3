"""The training loop: transformers' Trainer with our loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerState, TrainingArguments

from training.config.auto import Plan
from training.config.config import TrainingConfig
from training.learning.batches import Padding, Row
from training.learning.exact_resume import ExactResumeMixin
from training.learning.token_loss import LossFunction
from training.model.base import Base


def training_arguments(config: TrainingConfig, plan: Plan, base: Base, checkpoints: Path) -> dict[str, Any]:
    """Return keyword arguments of `TrainingArguments` (and of TRL's subclasses) for this run.

    Checkpoints go to `checkpoints`; output and reports go through callbacks only, and there is no evaluation.
    """
    on_gpu = torch.cuda.is_available()
    recompute = plan.gradient_checkpointing or config.gradient_checkpointing is True
    return {
        "output_dir": str(checkpoints),
        "num_train_epochs": plan.n_epochs,
        "max_steps": plan.total_steps,
        "per_device_train_batch_size": plan.batch_size,
        "gradient_accumulation_steps": plan.gradient_accumulation_steps,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": config.lr_scheduler_type,
        "warmup_steps": plan.warmup_steps,
        "optim": config.optim,
        "adam_beta1": config.adam_beta1,
        "adam_beta2": config.adam_beta2,
        "adam_epsilon": config.adam_epsilon,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "neftune_noise_alpha": config.neftune_noise_alpha,
        "gradient_checkpointing": recompute,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if recompute else None,
        "seed": config.seed,
        "bf16": on_gpu and base.compute_dtype == torch.bfloat16,
        "fp16": on_gpu and base.compute_dtype == torch.float16,
        "use_cpu": not on_gpu,
        "dataloader_num_workers": 0,  # the rows are in memory; another process would only cost its start
        "dataloader_pin_memory": on_gpu,
        "remove_unused_columns": False,
        "eval_strategy": "no",  # we measure ourselves, by tokens rather than by batches
        "save_strategy": "steps",
        "save_steps": plan.save_steps,
        "save_total_limit": config.save_total_limit,
        "logging_steps": config.logging_steps,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": [],
        "log_level": "error",
    }


def make_trainer(
    config: TrainingConfig, plan: Plan, base: Base, rows: Sequence[Row], checkpoints: Path
) -> TokenTrainer:
    """Make a trainer that teaches `base` to predict the trained tokens of `rows`."""
    arguments = TrainingArguments(
        **training_arguments(config, plan, base, checkpoints), train_sampling_strategy="group_by_length"
    )
    trainer = TokenTrainer(
        model=base.model, args=use_one_gpu(arguments), train_dataset=rows, data_collator=Padding(base.pad_token_id)
    )
    remove_printers(trainer)
    return trainer


def use_one_gpu(arguments: TrainingArguments) -> TrainingArguments:
    """Return `arguments` for one GPU, the one that the base is on.

    With several GPUs in sight transformers takes the rows of all of them at each step, and the planned steps would be
    as many times the planned epochs.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def remove_printers(trainer: Trainer) -> None:
    """Remove the callbacks that print; progress is reported by events."""
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)


def find_last_checkpoint(checkpoints: Path) -> Path | None:
    """Return the newest complete checkpoint: its state, which is written last, can be read."""
    by_step = sorted(checkpoints.glob("checkpoint-*"), key=parse_step, reverse=True)
    return next((checkpoint for checkpoint in by_step if _is_complete(checkpoint)), None)


def parse_step(checkpoint: Path) -> int:
    """Return the optimizer steps completed when `checkpoint` was written."""
    return int(checkpoint.name.rpartition("-")[2])


def restore_trainer(trainer: Trainer, checkpoint: Path) -> float | None:
    """Restore `trainer` to the state after the last step of its run; return the loss of that step as logged.

    `Trainer.train` checks whether to stop only after a step, so it can't be used for that.
    """
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return losses[-1] if losses else None


class TokenTrainer(ExactResumeMixin, Trainer):  # type: ignore[misc]
    """A Trainer whose loss is the mean cross-entropy of a step's trained tokens, and that counts tokens."""

    loss_is_scaled_for_ga = True

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.model_accepts_loss_kwargs = True  # so that the Trainer counts the trained tokens of a whole step
        self.loss_of = LossFunction(self.model, self.accelerator.autocast)
        self.hits = self.learned_tokens = self.tokens = 0
        """Since the start of the process: trained tokens predicted right, trained tokens, tokens without padding."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the loss of one batch, as a share of its optimizer step's, and count its tokens."""
        loss = self.loss_of(inputs)
        tokens = _count_tokens(inputs)
        self.hits += loss.hits
        self.learned_tokens += loss.learned
        self.tokens += tokens
        self.state.num_input_tokens_seen += tokens  # kept in checkpoints
        return loss.total / (loss.learned if num_items_in_batch is None else num_items_in_batch)


def _count_tokens(batch: dict[str, torch.Tensor]) -> int:
    """Return the tokens of `batch` without padding."""
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum())
    # Packed rows are padded with position 0 throughout, and an example's second token is at position 1.
    positions = batch["position_ids"]
    return int((positions > 0).sum() + (positions[:, 1:] == 1).sum())


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
