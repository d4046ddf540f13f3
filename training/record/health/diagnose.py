"""Reads a run's curves and says in plain words what is wrong and which setting to change. Imports no torch.

watch = Watch(config)
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
from training.record.health.validation import gap, overfitting, plateau, too_few_to_tell, worse_than_base
from training.record.progress import ProgressEvent

__all__ = ["Finding", "Severity", "Watch", "diagnose"]

Rule = Callable[[History], Finding | None]
AT_ONCE: tuple[Rule, ...] = (not_finite, divergence, gradient_spikes, too_few_to_tell)
"""Looked at after every report; their cost doesn't grow with the run."""
NOW_AND_THEN: tuple[Rule, ...] = (
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
"""Looked at after each validation, at the end, and whenever a twentieth more reports have come: they read them all."""
SILENCES = {
    "not_finite": {"divergence", "nothing_learned", "plateau", "gap", "worse_than_base", "overfitting"},
    "divergence": {"nothing_learned", "plateau", "gap", "worse_than_base", "gradient_spikes", "overfitting"},
    "overfitting": {"gap", "worse_than_base", "plateau", "near_zero"},
    "nothing_learned": {"plateau"},
    "near_zero": {"plateau"},
}
"""Code -> what isn't told after it, because it says the same again in weaker words."""


class Watch:
    """Takes a run's events as they come; each kind of finding is told once.

    A run that goes on after a stop first gives it the events that were written before; their findings were told then.

    Args:
        config: the run's settings, for advice that names values.
        learning_rate: the peak, where the settings say `auto`. Default: the highest that an event told.
        validation_examples: how many there are. Default: what an event tells in its `details`, else not known.
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
        self._told: set[str] = set()
        self._next_look = 0

    def __call__(self, event: ProgressEvent) -> list[Finding]:
        """What `event` brings to light, and wasn't told before."""
        if event.type == "health":
            self._tell(event.code or "")
            return []
        self._history.add(event)
        rules = AT_ONCE if event.type == "step" else ()
        if self._is_time(event):
            rules = (*AT_ONCE, *NOW_AND_THEN)
        return [finding for rule in rules if (finding := self._new(rule))]

    def _is_time(self, event: ProgressEvent) -> bool:
        reports = len(self._history.losses)
        if event.type == "step" and reports < self._next_look:
            return False
        self._next_look = reports + max(1, reports // 20)
        return event.type in ("step", "validation", "finished", "failed")

    def _new(self, rule: Rule) -> Finding | None:
        finding = rule(self._history)
        if finding is None or finding.code in self._told:
            return None
        self._tell(finding.code)
        return finding

    def _tell(self, code: str) -> None:
        self._told |= {code, *SILENCES.get(code, ())}


def diagnose(
    events: Iterable[ProgressEvent],
    config: TrainingConfig | None = None,
    *,
    learning_rate: float | None = None,
    validation_examples: int | None = None,
) -> list[Finding]:
    """What the events of a run show, in the order in which it could be seen. Arguments as for `Watch`.

    What the run itself told already, as `health` events, is found anew.
    """
    watch = Watch(config, learning_rate=learning_rate, validation_examples=validation_examples)
    return [finding for event in events if event.type != "health" for finding in watch(event)]
