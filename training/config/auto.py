"""Resolves `auto` values, and the number of steps, by documented rules. Imports no torch.

`docs/preflight.md` has the rules as a table. A value that is set is never changed. Every rule is monotonic: more rows
never mean more epochs, longer rows never a larger batch, a larger base never a higher learning rate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from adapter_format.disk import write_aside
from training.config.config import FinetuningType, Method, TrainingConfig

PLAN_FILE = "plan.json"
"""In the run directory: a resumed run uses the same numbers. Free memory differs from one start to the next, and with
batches of another size it would be another run."""
TARGET_ROWS = 16
"""Rows per optimizer step: as in the QLoRA paper (arXiv 2305.14314, appendix B)."""
STEPS_PER_EPOCH = 10
"""A smaller file gets smaller batches, so that one epoch still has this many steps."""
LEAST_STEPS = 60
"""With this many, the embedded base learned a new voice (validation loss 0.014); more hardly helped."""
MOST_ROWS_SEEN = 25_000
"""Rows times epochs beyond which a large file gets fewer epochs, as OpenAI's cookbook describes its `auto`."""
_EPOCHS = {"supervised": (3, 10), "text": (1, 4), "dpo": (1, 3), "kto": (1, 3)}
"""Usual and maximum epochs. Up to four epochs on text are as good as fresh text (arXiv 2305.16264, section 1);
preferences are memorised sooner than answers."""
_TOKENS_ON_CPU = ((200e6, 4096), (2e9, 1024), (math.inf, 512))
"""(base below so many parameters, tokens per forward pass). On one core the embedded base processed 2.9 times as many
tokens per second in batches of 16 short rows as of 2; from 1,000 to 4,000 tokens a pass it was 10% more."""
_TOKENS_ON_GPU = ((2e9, 16_384), (10e9, 8192), (40e9, 4096), (math.inf, 2048))
"""Like `_TOKENS_ON_CPU`; a cautious guess, not measured."""

Curve = tuple[tuple[float, float], ...]
_LORA_RATES: Curve = ((3e6, 2e-3), (1e9, 2e-4), (13e9, 2e-4), (33e9, 1e-4))
"""(parameters, learning rate): 3M measured on the embedded base; 7B to 65B from the QLoRA paper, appendix B."""
_PREFIX_RATES: Curve = ((3e6, 3e-2), (1e9, 1e-2))
"""3M measured on the embedded base: 1e-3 had hardly any effect. 1e-2 is from PEFT's prefix tuning guide."""
_P_TUNING_RATES: Curve = ((3e6, 1e-3), (1e9, 1e-3))
"""1e-3 measured on the embedded base; 1e-2 and more was worse."""
_FULL_SHARE = 0.1
"""Full fine-tuning needs about a tenth of LoRA's rate (Schulman et al., LoRA Without Regret, 2025)."""
_PREFERENCE_SHARE, _PREFERENCE_RANGE = 1 / 40, (5e-6, 5e-5)
"""DPO uses 5e-7 with full fine-tuning (Zephyr, arXiv 2310.16944), so ten times that with LoRA."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run's schedule, with all `auto` values resolved."""

    n_epochs: int
    """Passes over the training rows."""
    batch_size: int
    """Rows in one forward pass."""
    gradient_accumulation_steps: int
    """Forward passes per optimizer step."""
    learning_rate: float
    """Peak learning rate of the optimizer."""
    steps_per_epoch: int
    """Optimizer steps per epoch."""
    total_steps: int
    """Optimizer steps of the whole run."""
    warmup_steps: int
    """Steps over which the learning rate rises."""
    eval_steps: int
    """Steps between two validations."""
    save_steps: int
    """Steps between two checkpoints."""
    gradient_checkpointing: bool = False
    """Whether activations are recomputed."""
    reasons: tuple[str, ...] = ()
    """One sentence for each resolved `auto`: the value and the reason."""


def save_plan(run_dir: Path, config: TrainingConfig, plan: Plan) -> None:
    """Save `plan`, made for `config`."""
    content = {"config": config.to_dict(), "plan": asdict(plan)}
    with write_aside(run_dir / PLAN_FILE) as file:
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_plan(run_dir: Path, config: TrainingConfig) -> Plan | None:
    """Return the plan saved for exactly this `config`; None if there is none, or the settings have changed since."""
    try:
        content = json.loads((run_dir / PLAN_FILE).read_text(encoding="utf-8"))
        if content["config"] != config.to_dict():
            return None
        return Plan(**{**content["plan"], "reasons": tuple(content["plan"]["reasons"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make_plan(
    config: TrainingConfig,
    *,
    n_rows: int,
    mean_tokens: float,
    n_parameters: int,
    on_gpu: bool,
    largest_batch: int | None = None,
) -> Plan:
    """Make the schedule of `config` for `n_rows` training rows of `mean_tokens` tokens on average.

    Args:
        mean_tokens: of a preference, of its prompt with one of the two answers.
        n_parameters: of the base model, all of them.
        largest_batch: rows that fit into memory at once, from `memory.largest_batch`; None if unknown.
    """
    reasons: list[str] = []
    batch_size = _batch_size(config, n_rows, mean_tokens, n_parameters, on_gpu, largest_batch, reasons)
    rows_per_step = batch_size * config.gradient_accumulation_steps
    n_epochs = _n_epochs(config, n_rows, rows_per_step, reasons)
    steps_per_epoch = max(1, math.ceil(n_rows / rows_per_step))
    total_steps = config.max_steps or steps_per_epoch * n_epochs
    return Plan(
        n_epochs=n_epochs,
        batch_size=batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=_learning_rate(config, n_parameters, reasons),
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=min(round(config.warmup_ratio * total_steps), total_steps - 1),
        eval_steps=_eval_steps(config, total_steps, reasons),
        save_steps=_save_steps(config, steps_per_epoch, total_steps, reasons),
        gradient_checkpointing=config.gradient_checkpointing is True,
        reasons=tuple(reasons),
    )


def _batch_size(
    config: TrainingConfig,
    n_rows: int,
    mean_tokens: float,
    n_parameters: int,
    on_gpu: bool,
    largest_batch: int | None,
    reasons: list[str],
) -> int:
    """Return a power of two: rows for a step of `TARGET_ROWS`, fewer for a small file, long rows and little memory."""
    if config.batch_size != "auto":
        return config.batch_size
    wanted = _power_of_two(_target_rows(n_rows) / config.gradient_accumulation_steps)
    tokens = next(room for below, room in (_TOKENS_ON_GPU if on_gpu else _TOKENS_ON_CPU) if n_parameters < below)
    rows_at_once = 2 if config.method in ("dpo", "kto") else 1  # a pair is two rows
    by_tokens = _power_of_two(tokens / (rows_at_once * max(1.0, mean_tokens)))
    limits = [
        (wanted, _explain_wanted(wanted, n_rows)),
        (by_tokens, f"about {tokens} tokens per pass suit this machine"),
    ]
    if largest_batch is not None:
        limits.append((max(1, largest_batch), "more rows probably wouldn't fit into memory"))
    batch_size, why = min(limits, key=lambda limit: limit[0])
    if config.method == "kto" and batch_size < 2 <= n_rows:
        batch_size, why = 2, "KTO compares each answer with another one in its batch"
    reasons.append(f"`batch_size` {batch_size}: {why}.")
    return batch_size


def _explain_wanted(wanted: int, n_rows: int) -> str:
    if wanted < TARGET_ROWS and n_rows < TARGET_ROWS * STEPS_PER_EPOCH:
        return f"with {n_rows} rows, larger batches would leave too few steps"
    return f"{TARGET_ROWS} rows per step is usual"


def _target_rows(n_rows: int) -> int:
    return min(TARGET_ROWS, _power_of_two(n_rows / STEPS_PER_EPOCH))


def _n_epochs(config: TrainingConfig, n_rows: int, rows_per_step: int, reasons: list[str]) -> int:
    """Return the method's usual number; more for a small file, to reach `LEAST_STEPS`; fewer for a large one."""
    if config.n_epochs != "auto":
        return config.n_epochs
    usual, most = _EPOCHS[config.method]
    steps = _min_steps_per_epoch(n_rows, rows_per_step)
    n_epochs, why = usual, f"usual for `method: {config.method}`"
    if steps * usual < LEAST_STEPS:
        n_epochs = min(most, math.ceil(LEAST_STEPS / steps))
        why = f"the file is small ({n_rows} rows); the target is about {LEAST_STEPS} steps, in at most {most} passes"
    elif n_rows * usual > MOST_ROWS_SEEN:
        n_epochs = max(1, MOST_ROWS_SEEN // n_rows)
        why = f"the file is large ({n_rows} rows), and training on about {MOST_ROWS_SEEN} rows is enough"
    reasons.append(f"`n_epochs` {n_epochs}: {why}.")
    return n_epochs


def _min_steps_per_epoch(n_rows: int, rows_per_step: int) -> int:
    """Return the steps per epoch, as a number that never falls when rows are added, though the batch grows in jumps."""
    with_auto_batch = max(min(n_rows, STEPS_PER_EPOCH), n_rows // TARGET_ROWS)
    return max(1, min(with_auto_batch, math.ceil(n_rows / rows_per_step)))


def auto_learning_rate(method: Method, finetuning_type: FinetuningType, n_parameters: int) -> float:
    """Return the peak learning rate for `auto`, with two significant digits.

    A job's `learning_rate_multiplier` multiplies it, too
    (https://platform.openai.com/docs/api-reference/fine-tuning/create).

    Args:
        n_parameters: of the base model, all of them.
    """
    curves = {"prefix_tuning": _PREFIX_RATES, "p_tuning": _P_TUNING_RATES}
    rate = _interpolate(curves.get(finetuning_type, _LORA_RATES), n_parameters)
    if method in ("dpo", "kto"):
        low, high = _PREFERENCE_RANGE
        rate = min(high, max(low, rate * _PREFERENCE_SHARE))
    if finetuning_type == "full":
        rate *= _FULL_SHARE
    return float(f"{rate:.2g}")


def _learning_rate(config: TrainingConfig, n_parameters: int, reasons: list[str]) -> float:
    if config.learning_rate != "auto":
        return config.learning_rate
    rate = auto_learning_rate(config.method, config.finetuning_type, n_parameters)
    reasons.append(
        f"`learning_rate` {rate:g}: for `finetuning_type: {config.finetuning_type}`, `method: {config.method}` and "
        f"a base model with {_format_count(n_parameters)} parameters; larger models need lower rates."
    )
    return rate


def _eval_steps(config: TrainingConfig, total_steps: int, reasons: list[str]) -> int:
    """Return an interval for about four validations; with early stopping three times its patience."""
    if config.eval_steps != "auto":
        return config.eval_steps
    count = max(4, 3 * (config.early_stopping_patience or 0))
    steps = max(1, math.ceil(total_steps / count))
    why = "early stopping needs several validations" if count > 4 else "about four validations in the run"
    if config.validation_file or config.validation_fraction:
        reasons.append(f"`eval_steps` {steps}: {why}.")
    return steps


def _save_steps(config: TrainingConfig, steps_per_epoch: int, total_steps: int, reasons: list[str]) -> int:
    """Return one checkpoint per epoch, in long runs one per tenth, but then not more often than every 50 steps."""
    if config.save_steps != "auto":
        return config.save_steps
    tenth = max(50, math.ceil(total_steps / 10))
    steps = min(steps_per_epoch, tenth)
    why = (
        "a checkpoint per epoch"
        if steps == steps_per_epoch
        else "epochs are long, and a crash should lose little progress"
    )
    reasons.append(f"`save_steps` {steps}: {why}.")
    return steps


def _power_of_two(number: float) -> int:
    """Return the largest power of two up to `number`, at least 1."""
    return 1 << max(0, math.floor(math.log2(number))) if number >= 1 else 1


def _interpolate(curve: Sequence[tuple[float, float]], n_parameters: int) -> float:
    """Return the rate at `n_parameters`: log-log interpolation between points, constant outside them."""
    position = min(max(float(n_parameters), curve[0][0]), curve[-1][0])
    for (low, rate_low), (high, rate_high) in pairwise(curve):
        if position <= high:
            share = math.log(position / low) / math.log(high / low)
            return math.exp((1 - share) * math.log(rate_low) + share * math.log(rate_high))
    return curve[-1][1]


def _format_count(n_parameters: int) -> str:
    return f"{n_parameters / 1e9:.1f}B" if n_parameters >= 1e9 else f"{n_parameters / 1e6:.1f}M"
