"""The rules for runs that learn from better and worse answers (DPO, KTO). Imports no torch.

The margin and the rewards are those of DPO (arXiv:2305.18290, section 4): `beta` times how much likelier an answer has
become than under the reference model.
"""

from __future__ import annotations

from statistics import median

from training.record.health.findings import Finding, higher_learning_rate, lower_learning_rate
from training.record.health.history import History, error_of_difference
from training.record.health.loss import FEW
from training.record.progress import ProgressEvent

NO_MARGIN = 0.02
"""Nats times `beta`. A meaningful margin after half a run is ten times as large."""
CHANCE = 0.55
"""Share of pairs; one half is chance."""
REVERSED = 0.4
"""Share of pairs below which the run prefers the worse answers."""
FAR_DOWN = 1.0
"""Nats times `beta`: at the usual `beta` of 0.1 the better answers are e^10 times less likely than before."""


def preference_not_learned(history: History) -> Finding | None:
    """Half of the run is done, the margin is where it started, and the better answers are picked as by chance."""
    margins = [margin for event in history.steps if (margin := event.reward_margin) is not None]
    if history.share_done < 0.5 or len(margins) < FEW:
        return None
    n = len(margins) // 3
    now, unsure = median(margins[-n:]), error_of_difference(margins, n)
    accuracy = _mean_accuracy(history.steps[-n:])
    if now - median(margins[:n]) > max(NO_MARGIN, 2 * unsure) or accuracy > CHANCE:
        return None
    if accuracy < REVERSED and now < -max(NO_MARGIN, 2 * unsure):
        return _reversed_finding(history, now, accuracy)
    return Finding(
        "preference_not_learned", "warning", history.last_step,
        f"After {history.share_done:.0%} of the run the reward margin is {now:.3f} and the preferred answer is "
        f"favored in {accuracy:.0%} of pairs, no better than chance: the model hasn't learned the preference yet.",
        higher_learning_rate(history) + " A smaller `beta`, such as 0.05, also lets the model change more.",
    )  # fmt: skip


def both_rewards_fall(history: History) -> Finding | None:
    """The better answers become much less likely, too: the model forgets how to give them."""
    rewards = [reward for event in history.steps if (reward := event.details.get("reward_chosen")) is not None]
    if len(rewards) < FEW:
        return None
    n = max(5, len(rewards) // 5)
    now, before = median(rewards[-n:]), median(rewards[:n])
    unsure = 3 * error_of_difference(rewards, n)
    if now > -FAR_DOWN or before - now < FAR_DOWN / 2 + unsure:
        return None
    beta = history.config.beta if history.config else 0.1
    return Finding(
        "both_rewards_fall", "warning", history.last_step,
        f"The reward of the preferred answers fell from {before:.2f} to {now:.2f}: they become less likely along "
        "with the rejected ones, so the model may drift to entirely different answers.",
        f"Keep it closer to the reference model with `beta: {beta * 3:.2g}`. {lower_learning_rate(history, 1 / 3)} "
        "Train on the preferred answers first (`method: supervised`, then `from_adapter`).",
    )  # fmt: skip


def _reversed_finding(history: History, margin: float, accuracy: float) -> Finding:
    return Finding(
        "preference_reversed", "warning", history.last_step,
        f"The reward margin is {margin:.3f} and the preferred answer is favored in only {accuracy:.0%} of pairs: "
        "the model is learning to prefer the rejected answers.",
        "Check that the preferred and rejected answers aren't swapped in the file. " + lower_learning_rate(history),
    )  # fmt: skip


def _mean_accuracy(steps: list[ProgressEvent]) -> float:
    """Return the mean over the reports; chance if none has it."""
    accuracies = [event.reward_accuracy for event in steps if event.reward_accuracy is not None]
    return sum(accuracies) / len(accuracies) if accuracies else 0.5
