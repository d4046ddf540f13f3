"""The training loop: transformers' Trainer with our loss. Knows no files but its checkpoints."""

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
from training.learning.exact_resume import ResumesExactly
from training.learning.token_loss import LossFunction
from training.model.base import Base


def training_arguments(config: TrainingConfig, plan: Plan, base: Base, checkpoints: Path) -> dict[str, Any]:
    """Keyword arguments of `TrainingArguments` (and of TRL's, which extend it) for this run.

    Checkpoints go to `checkpoints`; nothing is printed or reported but through callbacks, and nothing evaluated.
    """
    on_gpu = torch.cuda.is_available()
    twice = plan.gradient_checkpointing or config.gradient_checkpointing is True
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
        "gradient_checkpointing": twice,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if twice else None,
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
    """A trainer that teaches `base` to predict the learned tokens of `rows`."""
    arguments = TrainingArguments(
        **training_arguments(config, plan, base, checkpoints), train_sampling_strategy="group_by_length"
    )
    trainer = TokenTrainer(
        model=base.model, args=arguments, train_dataset=rows, data_collator=Padding(base.pad_token_id)
    )
    remove_printers(trainer)
    return trainer


def remove_printers(trainer: Trainer) -> None:
    """Takes away the callbacks that print on their own; what happens is told by events."""
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole: its state, which is written last, can be read."""
    by_step = sorted(checkpoints.glob("checkpoint-*"), key=step_of, reverse=True)
    return next((checkpoint for checkpoint in by_step if _is_whole(checkpoint)), None)


def step_of(checkpoint: Path) -> int:
    """Optimizer steps that had been done when `checkpoint` was written."""
    return int(checkpoint.name.rpartition("-")[2])


def take_up(trainer: Trainer, checkpoint: Path) -> float | None:
    """Puts `trainer` where it was after the last step of its run; the loss of that step, as it was logged.

    `Trainer.train` looks whether it is time to stop only after a step, so it can't be used for that.
    """
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return losses[-1] if losses else None


class TokenTrainer(ResumesExactly, Trainer):  # type: ignore[misc]
    """A Trainer whose loss is the mean cross-entropy of the learned tokens of a step, and that counts as it goes."""

    loss_is_scaled_for_ga = True

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.model_accepts_loss_kwargs = True  # so that the Trainer counts the learned tokens of a whole step
        self.loss_of = LossFunction(self.model, self.accelerator.autocast)
        self.hits = self.learned_tokens = self.tokens = 0
        """Since the start of the process: learned tokens predicted right, learned tokens, tokens without padding."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The loss of one batch, as a share of its optimizer step's; counted on the way."""
        loss = self.loss_of(inputs)
        tokens = _count(inputs)
        self.hits += loss.hits
        self.learned_tokens += loss.learned
        self.tokens += tokens
        self.state.num_input_tokens_seen += tokens  # kept in checkpoints
        return loss.total / (loss.learned if num_items_in_batch is None else num_items_in_batch)


def _count(batch: dict[str, torch.Tensor]) -> int:
    """Tokens of `batch`, padding left out."""
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum())
    # Packed rows are padded with position 0 throughout, and an example's second token is at position 1.
    positions = batch["position_ids"]
    return int((positions > 0).sum() + (positions[:, 1:] == 1).sum())


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
