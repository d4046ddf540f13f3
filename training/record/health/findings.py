"""A `Finding`, and the advice that findings share: which setting to change, and to which value. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from training.record.health.history import History

Severity = Literal["info", "warning", "error"]

USUAL_LEARNING_RATE = {"lora": 2e-4, "full": 2e-5, "prefix_tuning": 1e-2, "p_tuning": 1e-2}
"""Common initial values for each `finetuning_type`: QLoRA's 2e-4 (arXiv:2305.14314), Alpaca's 2e-5 for full
fine-tuning, and far more for trained prompts, which are initialised at random."""
PREFERENCE_SHARE = 0.1
"""`dpo` and `kto` start from a tuned model, and commonly use a tenth of the learning rate."""


@dataclass(frozen=True)
class Finding:
    """One diagnosis from a run's curves."""

    code: str
    """Its kind, such as `divergence`; `docs/runs.md` lists them."""
    severity: Severity
    """`info`: good to know. `warning`: the result will be worse than it could be. `error`: it is unusable."""
    step: int
    """The optimizer step after which it was found."""
    message: str
    """The observation, with figures, and what it means."""
    remedy: str
    """Which setting to change, and to which value; empty if nothing needs to be done."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def usual_learning_rate(history: History) -> float:
    """Return the usual initial learning rate of such a run."""
    kind = history.config.finetuning_type if history.config else "lora"
    return USUAL_LEARNING_RATE[kind] * (PREFERENCE_SHARE if history.is_preference else 1)


def lower_learning_rate(history: History, factor: float = 0.1) -> str:
    """Return advice to lower the learning rate by `factor`, with both values if the current one is known.

    One that is far from usual, such as a thousand by a typo, is brought near to it at once.
    """
    peak = history.peak_learning_rate
    if not peak:
        return f"Lower `learning_rate` to {'a tenth' if factor == 0.1 else 'a third'} of its current value."
    lower = min(peak * factor, 100 * usual_learning_rate(history))
    return f"`learning_rate` is {format_lr(peak)}; try {format_lr(lower)}."


def higher_learning_rate(history: History) -> str:
    """Return advice to raise the learning rate, up to ten times; if it is usual already, to look elsewhere."""
    peak, usual = history.peak_learning_rate, usual_learning_rate(history)
    if not peak:
        return f"Raise `learning_rate`, for example tenfold; {format_lr(usual)} is a common value."
    if peak < usual / 2:
        higher = min(usual, peak * 10) if peak > usual / 100 else usual
        return f"`learning_rate` is {format_lr(peak)}; try {format_lr(higher)}."
    more = (
        f"try `learning_rate` {format_lr(peak * 3)}, or more `n_epochs`" if peak < 5 * usual else "try more `n_epochs`"
    )
    return (
        f"`learning_rate` is {format_lr(peak)}, which isn't low, so check the examples first: `tuneloop data show` "
        f"highlights the trained tokens. Then {more}."
    )


def format_lr(value: float) -> str:
    """Format a learning rate as people write it, with one significant digit: 5e-4, 0.03."""
    digit, _, exponent = f"{value:.0e}".partition("e")
    return f"{digit}e{int(exponent)}" if value < 0.01 else f"{float(f'{value:.1g}'):g}"
