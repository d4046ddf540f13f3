"""The rules for the validation loss: overfitting, a growing gap, convergence, too few examples.

A validation measures the same examples each time, so its noise is far below the training loss's. Imports no torch.
"""

from __future__ import annotations

import math
from statistics import median

from training.record.health.findings import Finding, lower_learning_rate
from training.record.health.history import History

RISE = 0.03
"""Share of the best validation loss. Two later measurements that far above it are no fluctuation."""
STEEP_RISE = 0.10
"""Share at which a single measurement is enough."""
MATTERS = 0.02
"""Nats: below it a rise doesn't affect answers, whatever its share of a small loss."""
FEW_EXAMPLES = 20
"""Validation examples below which the mean is imprecise: losses of examples differ by about half of their mean, which
leaves an error of 11% at 20 examples."""
GAP = 0.5
"""Nats by which validation may exceed training before it is reported."""
STILL = 0.01
"""Share of the validation loss: three measurements within it mean that it has stopped falling."""
AROUND = 5
"""Reports of the training loss that represent its value at a step."""


def overfitting(history: History) -> Finding | None:
    """The validation loss rises from its best while the training loss goes on falling."""
    if len(history.validations) < 3 or not history.losses:
        return None
    best = min(history.validations, key=lambda step: history.validations[step])
    after = [loss for step, loss in history.validations.items() if step > best]
    low = history.validations[best]
    if not after or not _rises(low, after, history) or not _training_fell(history, best):
        return None
    best_text = f"its best, {low:.3f}, was at step {best}" if best else f"before any training it was {low:.3f}"
    return Finding(
        "overfitting", "warning", max(history.validations),
        f"The validation loss has risen to {after[-1]:.3f} ({best_text}) while the training loss fell to "
        f"{median(history.losses[-AROUND:]):.3f}: the model memorizes the examples instead of learning what they "
        f"have in common (overfitting).{_describe_kept_weights(history, best)}",
        _advise_against_overfitting(history, best),
    )  # fmt: skip


def gap(history: History) -> Finding | None:
    """At the end the validation loss is far above the training loss, though it still falls."""
    if not history.ended or history.is_preference or len(history.validations) < 2 or len(history.losses) < 3 * AROUND:
        return None
    valid, train = list(history.validations.values()), median(history.losses[-AROUND:])
    at_first = max(0.0, valid[0] - median(history.losses[:AROUND]))
    if valid[-1] - train - at_first < GAP or valid[-1] < 1.5 * train:
        return None
    return Finding(
        "gap", "info", history.last_step,
        f"At the end the validation loss is {valid[-1]:.3f} and the training loss {train:.3f}: part of what the "
        "model learned only applies to the training examples.",
        "More or more varied examples help most; `lora_dropout: 0.1` helps a little.",
    )  # fmt: skip


def worse_than_base(history: History) -> Finding | None:
    """At the end the validation loss is above what it was before any training."""
    valid = list(history.validations.values())
    if not history.ended or 0 not in history.validations or len(valid) < 2 or valid[-1] < valid[0] * (1 + STILL):
        return None
    return Finding(
        "worse_than_base", "warning", history.last_step,
        f"The validation loss is {valid[-1]:.3f}; before any training it was {valid[0]:.3f}. On these examples the "
        "base model is better without the adapter.",
        lower_learning_rate(history) + " Also check that the validation examples are similar to the training examples.",
    )  # fmt: skip


def plateau(history: History) -> Finding | None:
    """The loss fell, and has stopped falling while much of the run is still to come: it has converged."""
    valid = list(history.validations.values())
    if len(valid) < 4 or history.ended or not 0.25 <= history.share_done <= 0.75 or history.is_preference:
        return None
    last = valid[-3:]
    if max(last) - min(last) > STILL * last[-1] or last[-1] > 0.95 * valid[0]:
        return None
    since = list(history.validations)[-3]
    return Finding(
        "plateau", "info", history.last_step,
        f"The validation loss fell from {valid[0]:.3f} to {last[-1]:.3f} and has hardly changed since step {since}: "
        "more training with these settings won't improve it (plateau).",
        "Stop earlier next time with `early_stopping_patience: 2`. If the answers aren't good enough, use more "
        "examples or a larger `r`; more steps won't help.",
    )  # fmt: skip


def too_few_validation_examples(history: History) -> Finding | None:
    """There are no validation examples, or so few that their loss says little."""
    n = history.validation_examples
    if n is not None and 0 < n < FEW_EXAMPLES:
        return Finding(
            "few_validation_examples", "info", history.last_step,
            f"There are only {n} validation examples, so the validation loss may be off by "
            f"{0.5 / math.sqrt(n):.0%}: small differences aren't meaningful.",
            "Hold out more with `validation_fraction: 0.2`, or use a `validation_file` with 50 or more examples.",
        )  # fmt: skip
    if history.ended and history.losses and not history.validations:
        return Finding(
            "no_validation", "info", history.last_step,
            "There was no validation on held-out examples, so overfitting couldn't be detected.",
            "Set `validation_fraction: 0.1`, or use a `validation_file`.",
        )  # fmt: skip
    return None


def _rises(low: float, after: list[float], history: History) -> bool:
    """Return whether the measurements after the best are significantly above it; with few examples that takes more."""
    coarse = 3 if (history.validation_examples or FEW_EXAMPLES) < FEW_EXAMPLES else 1
    rises = [loss - low for loss in after]
    if rises[-1] < MATTERS:
        return False
    lasting = len(rises) > 1 and min(rises[-2:]) > RISE * coarse * low and rises[-1] > 0.8 * rises[-2]
    return lasting or rises[-1] > STEEP_RISE * coarse * low


def _training_fell(history: History, since: int) -> bool:
    """Return whether the training loss is lower than it was around step `since`, and than before any training."""
    at = next((i for i, event in enumerate(history.steps) if (event.step or 0) >= since), len(history.steps))
    around = history.losses[max(0, at - AROUND) : at + AROUND]
    return bool(around) and median(history.losses[-AROUND:]) < min(median(around), history.losses[0])


def _describe_kept_weights(history: History, best: int) -> str:
    keeps = history.config is not None and history.config.load_best_model_at_end and best > 0
    return f" The weights of step {best}, the best, are kept." if keeps else ""


def _advise_against_overfitting(history: History, best: int) -> str:
    epoch = history.epoch_at(best)
    fewer = f"Train less: `n_epochs: {max(1, round(epoch))}`" if best and epoch else "Train less: fewer `n_epochs`"
    dropout = history.config.lora_dropout if history.config else 0.0
    softer = f"a smaller `r`, or `lora_dropout: {0.1 if dropout < 0.1 else min(0.3, dropout * 2):g}`"
    first = lower_learning_rate(history, 1 / 3) if not best else f"{fewer}, or `early_stopping_patience: 2`."
    return f"{first} More examples help most; then {softer}."
