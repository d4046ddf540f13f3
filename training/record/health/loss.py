"""The rules for the training loss and the gradient. Each takes a `History` and returns a `Finding`, or None.

Every threshold is a pair: a size that matters, and a multiple of the noise that chance hardly reaches. No torch.
"""

from __future__ import annotations

import math
from statistics import median

from training.record.health.findings import Finding, higher_learning_rate, lower_learning_rate
from training.record.health.history import PER_SIGMA, History, error_of_difference, estimate_drift, measure_fall

FEW = 12
"""Reports below which no trend is reported: medians of a handful of noisy losses can be anything."""
RECENT = 5
"""Reports whose median represents "now": robust to two bad batches, and quick to follow a divergence."""
FAR_ABOVE_START = 1.3
"""Times the initial loss. A loss above it is never progress; 30% is more than a change of data explains."""
LOST_SHARE = 0.5
"""Share of the gain. Losing half of it is no fluctuation."""
CERTAIN_SIGMAS = 6.0
"""Standard errors. With hundreds of checks in a run, three would be reached by chance; six aren't."""
DRIFT_SIGMAS = 4.0
"""Standard deviations of a drifting loss, which medians don't smooth."""
NEAR_ZERO = 0.02
"""Nats per token: the right token gets 98%. Natural answers have many good wordings and stay far above it."""
NO_FALL = 0.02
"""Share of the initial loss. A useful fine-tuning gains many times as much in its first half."""
SPIKE = 6.0
"""Standard deviations of the gradient's logarithm; gradient lengths are about log-normal."""
SPIKE_FACTOR = 5.0
"""Times the usual norm, so that small jumps of a very even gradient don't count."""
SPIKES = 3
"""Spikes among `SPIKE_WINDOW` reports. One or two are single bad batches, and clipping handles them."""
SPIKE_WINDOW = 50


def not_finite(history: History) -> Finding | None:
    """The loss is NaN or infinite."""
    if history.not_finite_at is None:
        return None
    if len(history.losses) < 2:
        return Finding(
            "not_finite", "error", history.not_finite_at,
            "The loss was NaN or infinite from the start: the computation overflows, or the base model is broken.",
            "Set `compute_dtype` to float32; if that doesn't help, download the base model again.",
        )  # fmt: skip
    return Finding(
        "not_finite", "error", history.not_finite_at,
        f"After step {history.not_finite_at} the loss was NaN or infinite; the last finite loss was "
        f"{history.losses[-1]:.3g}. The training diverged, and its weights can't be used.",
        lower_learning_rate(history) + " If it happens again, set `compute_dtype` to float32.",
    )  # fmt: skip


def divergence(history: History) -> Finding | None:
    """The loss rises far above its start, before it is NaN."""
    losses = history.losses
    if len(losses) <= RECENT:
        return None
    start, now, untrained = losses[:RECENT], losses[-RECENT:], max(losses[0], history.validations.get(0, 0.0))
    # It may fail within the first steps. Later the first loss, which may be low by chance, is no reference.
    if len(losses) <= 4 * RECENT and min(now) > (1.5 if 0 in history.validations else 2.0) * untrained:
        return _divergence_finding(history, f"before any training it was {untrained:.2f}")
    above = len(losses) >= 2 * RECENT and median(now) > FAR_ABOVE_START * median(start)
    if above and (_exceeds_noise(now, start, losses) or _has_doubled(now, start)):
        return _divergence_finding(history, f"at the start it was {median(start):.2f}")
    return None


def relapse(history: History) -> Finding | None:
    """The loss has lost half of its gain, and stays there: a divergence that is still below its start."""
    losses = history.losses
    if len(losses) < 8 * RECENT or not _gain_is_lost(best := _best_stretch(losses), losses):
        return None
    return _divergence_finding(
        history, f"it started at {median(losses[:RECENT]):.2f} and had fallen to {median(best):.2f}"
    )


def near_zero(history: History) -> Finding | None:
    """The loss is so close to zero that there is nothing left to learn, or never was."""
    losses = history.losses
    last = losses[-2 * RECENT :]
    if history.is_preference or len(losses) < FEW or median(last) > NEAR_ZERO or max(last) > 5 * NEAR_ZERO:
        return None
    now = f"The training loss is {median(last):.2g}"
    if median(losses[:RECENT]) < 2 * NEAR_ZERO:
        return Finding(
            "near_zero", "warning", history.last_step,
            f"{now} and was that low from the start: the model already knows these answers, or the prompts contain "
            "them. There is nothing to learn.",
            "Check the examples with `tuneloop data show`: do the prompts reveal the answers? Has the model been "
            "trained on them before?",
        )  # fmt: skip
    measured = max(history.validations, default=None)
    if measured is not None and measured < (history.steps[-2 * RECENT].step or 0):
        return None  # the next validation will show whether it is learned, or memorised
    if measured is not None and (valid := history.validations[measured]) < 10 * NEAR_ZERO:
        seen = f"{now} and the validation loss {valid:.2g}: the task is learned, and more steps won't improve it."
        return Finding("near_zero", "info", history.last_step, seen, "Lower `n_epochs` to get the same result faster.")
    return Finding(
        "near_zero", "warning", history.last_step,
        f"{now}: the model has memorized the examples, so it may repeat their answers for new questions."
        + (" Without validation examples this can't be checked." if measured is None else ""),
        _advise_less_training(history, measured=measured is not None),
    )  # fmt: skip


def nothing_learned(history: History) -> Finding | None:
    """Half of the run is done and the loss is where it started."""
    losses = history.losses
    if history.is_preference or history.share_done < 0.5 or len(losses) < FEW or median(losses[:RECENT]) < 0.05:
        return None
    n = max(1, len(losses) // 5)
    start, fall = median(losses[:n]), measure_fall(losses)
    unsure = max(2 * error_of_difference(losses, n), estimate_drift(losses, 2 * RECENT))
    if fall > max(NO_FALL * start, unsure) or _validation_fell(history):
        return None
    # A validation measures the same examples each time. Without one, noise may hide what was learned.
    stood = _validation_stood(history)
    if not stood and abs(fall) + unsure > 2 * NO_FALL * start:
        return None
    return Finding(
        "nothing_learned", "warning", history.last_step,
        (f"After {history.share_done:.0%} of the run the training loss is {start - fall:.3f}; it started at "
            f"{start:.3f}. ")
        + (f"The validation loss has hardly changed from {history.validations[0]:.3f}. " if stood else "")
        + "The model hasn't learned anything yet.",
        higher_learning_rate(history),
    )  # fmt: skip


def gradient_spikes(history: History) -> Finding | None:
    """The gradient's norm is repeatedly many times as large as usual."""
    norms = [(event.grad_norm, event.step or 0) for event in history.steps[-SPIKE_WINDOW:] if event.grad_norm]
    if len(norms) < 2 * FEW:
        return None
    # Gradients are large in the warm-up and soon smaller; the first reports are no spikes.
    usual = median(norm for norm, _ in norms)
    spread = PER_SIGMA * median(abs(math.log(norm / usual)) for norm, _ in norms)
    limit = usual * max(SPIKE_FACTOR, math.exp(SPIKE * spread))
    spikes = [(norm, step) for norm, step in norms if norm > limit and step > FEW]
    if len(spikes) < SPIKES:
        return None
    largest = max(norm for norm, _ in spikes)
    return Finding(
        "gradient_spikes", "warning", history.last_step,
        f"The gradient norm spiked {len(spikes)} times, up to {largest:.3g} instead of the usual {usual:.3g} (steps "
        f"{', '.join(str(step) for _, step in spikes[:5])}). Spikes undo progress and can lead to divergence.",
        lower_learning_rate(history, 1 / 3) + _clip_advice(history)
        + " Look for unusual examples with `tuneloop data check`.",
    )  # fmt: skip


def _divergence_finding(history: History, compared: str) -> Finding:
    now = median(history.losses[-RECENT:])
    return Finding(
        "divergence", "error" if now > median(history.losses[:RECENT]) else "warning", history.last_step,
        f"The training loss rose to {now:.2f}; {compared}. The steps are too large, so the model gets worse instead "
        "of better (divergence).",
        lower_learning_rate(history) + " A longer warm-up helps too: `warmup_ratio: 0.1`.",
    )  # fmt: skip


def _exceeds_noise(now: list[float], before: list[float], losses: list[float]) -> bool:
    chance = max(
        CERTAIN_SIGMAS * error_of_difference(losses, len(now)), DRIFT_SIGMAS * estimate_drift(losses, 2 * RECENT)
    )
    return median(now) - median(before) > chance


def _has_doubled(now: list[float], before: list[float]) -> bool:
    """Return whether every loss is above all those before, and twice as high: a wild divergence may look like noise."""
    return min(now) > max(before) and median(now) > 2 * median(before)


def _best_stretch(losses: list[float]) -> list[float]:
    """Return the one with the lowest median of the tenths that the losses so far fall into.

    The best of many short stretches would be low by chance alone.
    """
    size = max(2 * RECENT, len(losses) // 10)
    return min((losses[at : at + size] for at in range(0, len(losses) - size, size)), key=median)


def _gain_is_lost(best: list[float], losses: list[float]) -> bool:
    start, low, now = median(losses[:RECENT]), median(best), losses[-len(best) :]
    gain, lost = start - low, median(now) - low
    far = gain > 0.1 * start and lost > max(LOST_SHARE * gain, 0.25 * low, 0.1)
    return far and median(losses[-RECENT:]) > low + lost / 2 and _exceeds_noise(now, best, losses)


def _validation_fell(history: History) -> bool:
    first, last = next(iter(history.validations.values()), 0.0), next(reversed(history.validations.values()), 0.0)
    return last < first * (1 - NO_FALL / 2)


def _validation_stood(history: History) -> bool:
    """Return whether a late enough validation gave the same loss as the one before any training."""
    first, late = history.validations.get(0), max(history.validations, default=0)
    if first is None or late < 0.4 * (history.total_steps or late):
        return False
    return late > 0 and abs(history.validations[late] - first) < first * NO_FALL / 2


def _advise_less_training(history: History, *, measured: bool) -> str:
    epochs = history.epoch_at(history.last_step)
    fewer = f"`n_epochs: {max(1, round(epochs))}`" if epochs and epochs > 1 else "fewer `n_epochs`"
    seen = "" if measured else " Set `validation_fraction: 0.1` to measure it."
    return f"Use {fewer}, or more examples.{seen}"


def _clip_advice(history: History) -> str:
    clip = history.config.max_grad_norm if history.config else 1.0
    return f" Clip gradients more: `max_grad_norm: {clip * 0.3:.2g}`."
