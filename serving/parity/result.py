"""The result of comparing an engine with an adapter's reference: figures, a verdict, and reasons with remedies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.parity.reference import Prompt

BOUNDS = {"float32": 0.005, "float16": 0.03, "bfloat16": 0.15}
"""Largest mean difference of a log-probability, in nats, by the coarser dtype of the two sides; docs/parity.md says how
they were determined."""
OUTLIER_NATS = 2.0
"""A single token counts for no more: in 16 bit a very unlikely one can be far off without a fault."""
SHARE = (0.75, 1.25)
"""Bounds of the share of the adapter's effect that must show: 1 is all of it, 0 is the bare base."""
SURE = 5.0
"""Standard errors by which that share must be outside the bounds: rounding alone mustn't reject a weak adapter."""


@dataclass(frozen=True)
class Difference:
    """How far two rows of log-probabilities are apart, in nats."""

    mean: float
    """Mean of the absolute differences, each counted as at most `OUTLIER_NATS`."""
    max: float
    """Largest absolute difference."""

    @classmethod
    def between(cls, one: Sequence[float], other: Sequence[float]) -> Difference:
        """Compare two rows for the same tokens, at least one."""
        apart = [abs(a - b) for a, b in zip(one, other, strict=True)]
        return cls(sum(min(each, OUTLIER_NATS) for each in apart) / len(apart), max(apart))


@dataclass(frozen=True)
class LogProbComparison:
    """Log-probabilities of the same tokens, from engine and reference, with and without the adapter."""

    tuned: tuple[float, ...]
    """The engine's, with the adapter."""
    base: tuple[float, ...]
    """The engine's, without."""
    tuned_reference: tuple[float, ...]
    base_reference: tuple[float, ...]

    @property
    def effect(self) -> Difference:
        """The adapter's effect by the reference."""
        return Difference.between(self.tuned_reference, self.base_reference)

    @property
    def share(self) -> tuple[float, float] | None:
        """The share of the adapter's effect that the engine shows, by least squares, and its standard error.

        Rounding, which isn't aligned with the effect, cancels out: 1 is all of it, 0 is the bare base. None where the
        adapter has no effect.
        """
        wanted = [a - b for a, b in zip(self.tuned_reference, self.base_reference, strict=True)]
        shown = [a - b for a, b in zip(self.tuned, self.base, strict=True)]
        square = sum(each * each for each in wanted)
        if not square:
            return None
        share = sum(a * b for a, b in zip(wanted, shown, strict=True)) / square
        rest = sum((b - share * a) ** 2 for a, b in zip(wanted, shown, strict=True)) / max(1, len(wanted) - 1)
        return share, math.sqrt(rest / square)

    def faults(self, bound: float) -> list[str]:
        """Return what is wrong with the engine's answers for the adapter, a sentence each; empty if nothing is."""
        found = []
        if self.effect.max == 0:
            found.append(
                "The adapter has no effect: with it, PEFT's log-probabilities are the same as the base model's. Every "
                "lora_B is zero or nearly zero. Train it again, longer or with a higher learning_rate."
            )
        apart = Difference.between(self.tuned, self.tuned_reference)
        if apart.mean > bound:
            found.append(
                f"With the adapter, the engine's log-probabilities differ from PEFT's by {apart.mean:.4g} nats on "
                f"average (at most {apart.max:.3g}), above the limit of {bound:g}: it serves different weights than "
                "were trained. Import or train the adapter again."
            )
        share, error = self.share or (1.0, 0.0)
        if not SHARE[0] - SURE * error <= share <= SHARE[1] + SURE * error:
            nearer = (
                "more like the base model than the adapter"
                if share < 0.5
                else "differently than the adapter was trained"
            )
            found.append(
                f"The engine shows {share:.2f} of the adapter's effect ({SHARE[0]:g} to {SHARE[1]:g} is expected): "
                f"it answers {nearer}. Import or train the adapter again."
            )
        return found

    def base_fault(self, bound: float) -> str | None:
        """Return what is wrong with the engine's answers for the base; None if nothing is."""
        apart = Difference.between(self.base, self.base_reference)
        if apart.mean <= bound:
            return None
        return (
            f"For the base model itself, the engine's log-probabilities are off by {apart.mean:.4g} nats on average "
            f"(at most {apart.max:.3g}), above the limit of {bound:g}: the adapter was trained on different "
            "weights, or the engine uses a lower precision. Serve the base model that it was trained on, "
            "unquantized, or set parity_check to false."
        )


@dataclass(frozen=True)
class ParityResult:
    """The gate's verdict on one adapter, with its evidence. Contains no user data."""

    passed: bool
    reasons: tuple[str, ...]
    """What is wrong and what to do, a sentence or two each; empty when it passed."""
    token_ids_equal: bool | None
    """Whether the engine tokenises the sample conversations as training did; None if there were none to compare."""
    tuned: Difference | None
    """Engine vs PEFT with the adapter; None when the engine couldn't be asked."""
    base: Difference | None
    """Engine vs PEFT without it."""
    effect: Difference | None
    """The adapter's effect in PEFT: tuned vs base."""
    share: float | None
    """The share of the effect that the engine shows; 1 is all of it."""
    bound: float
    """The bound on the mean differences, in nats."""
    engine_dtype: str | None
    """What the engine computes in, if known."""
    reference_dtype: str
    """What PEFT computed in."""
    checked_at: int
    """Unix seconds."""
    served: tuple[Prompt, ...] = ()
    """The engine's own log-probabilities for a few prompts: it must give the same after a restart."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            **self.figures(),
            "checked_at": self.checked_at,
            "served": [
                {"token_ids": list(prompt.token_ids), "tuned": list(prompt.tuned), "base": list(prompt.base)}
                for prompt in self.served
            ],
        }

    def figures(self) -> dict[str, Any]:
        """Return the numbers only, in nats."""
        return {
            "token_ids_equal": self.token_ids_equal,
            "tuned": _numbers(self.tuned),
            "base": _numbers(self.base),
            "tuned_vs_base": _numbers(self.effect),
            "share": None if self.share is None else round(self.share, 4),
            "bound": self.bound,
            "engine_dtype": self.engine_dtype,
            "reference_dtype": self.reference_dtype,
        }


def bound_for(engine_dtype: str | None, reference_dtype: str) -> float:
    """Return the bound of the coarser of the two sides; an engine that doesn't report its dtype counts as bfloat16."""
    coarsest = max(BOUNDS.values())
    return max(BOUNDS.get(engine_dtype or "", coarsest), BOUNDS.get(reference_dtype, coarsest))


def _numbers(difference: Difference | None) -> dict[str, float] | None:
    if difference is None:
        return None
    return {"mean": round(difference.mean, 6), "max": round(difference.max, 6)}
