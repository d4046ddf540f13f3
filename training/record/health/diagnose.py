"""Diagnoses a run's curves: what is wrong, in plain words, and which setting to change. Imports no torch.

watch = HealthMonitor(config)
for event in events:
    for finding in watch(event):
        print(finding.message, finding.remedy)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from training.config.config import TrainingConfig
from training.record.health.findings import Finding, Severity
from training.record.health.history import History
from training.record.health.loss import divergence, gradient_spikes, near_zero, not_finite, nothing_learned, relapse
from training.record.health.preference import both_rewards_fall, preference_not_learned
from training.record.health.validation import gap, overfitting, plateau, too_few_validation_examples, worse_than_base
from training.record.progress import ProgressEvent

__all__ = ["Finding", "HealthMonitor", "Severity", "diagnose"]

Rule = Callable[[History], Finding | None]
EVERY_STEP_RULES: tuple[Rule, ...] = (not_finite, divergence, gradient_spikes, too_few_validation_examples)
"""Applied after every report; their cost doesn't grow with the run."""
PERIODIC_RULES: tuple[Rule, ...] = (
    relapse,
    overfitting,
    near_zero,
    nothing_learned,
    plateau,
    preference_not_learned,
    both_rewards_fall,
    worse_than_base,
    gap,
)
"""Applied after each validation, at the end, and when the reports have grown by a twentieth: they read them all."""
SUPPRESSES = {
    "not_finite": {"divergence", "nothing_learned", "plateau", "gap", "worse_than_base", "overfitting"},
    "divergence": {"nothing_learned", "plateau", "gap", "worse_than_base", "gradient_spikes", "overfitting"},
    "overfitting": {"gap", "worse_than_base", "plateau", "near_zero"},
    "nothing_learned": {"plateau"},
    "near_zero": {"plateau"},
}
"""Code -> codes that aren't reported after it, because they would only repeat it in weaker words."""


class HealthMonitor:
    """Diagnoses a run's events as they come; each kind of finding is reported once.

    A resumed run first feeds it the events from before; their findings were reported then.

    Args:
        config: the run's settings, for advice that names values.
        learning_rate: the peak, if the settings say `auto`. Default: the highest in any event.
        validation_examples: their number. Default: from an event's `details`, else unknown.
    """

    def __init__(
        self,
        config: TrainingConfig | None = None,
        *,
        learning_rate: float | None = None,
        validation_examples: int | None = None,
    ) -> None:
        if learning_rate is None and config and config.learning_rate != "auto":
            learning_rate = config.learning_rate
        self._history = History(config, learning_rate, validation_examples)
        self._reported: set[str] = set()
        self._next_check = 0

    def __call__(self, event: ProgressEvent) -> list[Finding]:
        """Return the new findings after `event`."""
        if event.type == "health":
            self._mark_reported(event.code or "")
            return []
        self._history.add(event)
        rules = EVERY_STEP_RULES if event.type == "step" else ()
        if self._is_due(event):
            rules = (*EVERY_STEP_RULES, *PERIODIC_RULES)
        return [finding for rule in rules if (finding := self._apply_rule(rule))]

    def _is_due(self, event: ProgressEvent) -> bool:
        reports = len(self._history.losses)
        if event.type == "step" and reports < self._next_check:
            return False
        self._next_check = reports + max(1, reports // 20)
        return event.type in ("step", "validation", "finished", "failed")

    def _apply_rule(self, rule: Rule) -> Finding | None:
        finding = rule(self._history)
        if finding is None or finding.code in self._reported:
            return None
        self._mark_reported(finding.code)
        return finding

    def _mark_reported(self, code: str) -> None:
        self._reported |= {code, *SUPPRESSES.get(code, ())}


def diagnose(
    events: Iterable[ProgressEvent],
    config: TrainingConfig | None = None,
    *,
    learning_rate: float | None = None,
    validation_examples: int | None = None,
) -> list[Finding]:
    """Diagnose the events of a run; findings are in order of appearance. Arguments as for `HealthMonitor`.

    Findings that the run itself reported, as `health` events, are found anew.
    """
    monitor = HealthMonitor(config, learning_rate=learning_rate, validation_examples=validation_examples)
    return [finding for event in events if event.type != "health" for finding in monitor(event)]
