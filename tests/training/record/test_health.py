"""What `health` says of curves of every shape: the right thing of bad ones, nothing of good ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from training.config.config import TrainingConfig
from training.record.health.diagnose import Finding, HealthMonitor, diagnose
from training.record.progress import ProgressEvent

Curve = Callable[[float], float]
SEEDS = range(5)


def events_of(
    loss: Curve,
    *,
    steps: int = 100,
    noise: float = 0.05,
    seed: int = 0,
    valid: Curve | None = None,
    valid_noise: float = 0.003,
    epochs: float = 3.0,
    logging_steps: int = 1,
    wanders: bool = False,
    gradient: Callable[[int, random.Random], float] | None = None,
    step_values: Callable[[float, random.Random], dict[str, Any]] = lambda share, chance: {},
) -> list[ProgressEvent]:
    """A whole run's events; curves take the share of the run that is done, `noise` is a share of the loss."""
    chance, drift, every = random.Random(seed), 0.0, max(1, steps // 5)
    events = [ProgressEvent("started")]
    if valid:
        events.append(ProgressEvent("validation", step=0, total_steps=steps, valid_loss=valid(0)))
    for step in range(1, steps + 1):
        share = step / steps
        drift = 0.8 * drift + 0.6 * chance.gauss(0, noise) if wanders else chance.gauss(0, noise)
        norm = gradient(step, chance) if gradient else (1 + 4 * math.exp(-step / 10)) * math.exp(chance.gauss(0, 0.4))
        values: dict[str, Any] = {"train_loss": loss(share) * math.exp(drift), "grad_norm": norm}
        values |= {"epoch": share * epochs, "learning_rate": 2e-4, **step_values(share, chance)}
        if step % logging_steps == 0:
            events.append(ProgressEvent("step", step=step, total_steps=steps, **values))
        if valid and (step % every == 0 or step == steps):
            measured = valid(share) * (1 + chance.gauss(0, valid_noise))
            events.append(ProgressEvent("validation", step=step, total_steps=steps, valid_loss=measured))
    return [*events, ProgressEvent("finished", step=steps, total_steps=steps)]


def config(**values: Any) -> TrainingConfig:
    return TrainingConfig(base_model="base", training_file="file", output_dir="out", **values)


def codes(findings: list[Finding]) -> set[str]:
    return {finding.code for finding in findings}


def the(findings: list[Finding], code: str) -> Finding:
    (found,) = [finding for finding in findings if finding.code == code]
    return found


GOOD: dict[str, Curve] = {
    "falls fast, then slowly": lambda x: 1.0 + 1.5 * math.exp(-6 * x),
    "falls all along": lambda x: 2.0 - 0.5 * x,
    "falls with each epoch": lambda x: 1.6 * math.exp(-0.3 * math.floor(x * 3)) - 0.02 * x,
    "is learned soon": lambda x: 0.1 + 3 * math.exp(-20 * x),
    "gains little": lambda x: 1.3 - 0.15 * (1 - math.exp(-8 * x)),
    "waits for the warm-up": lambda x: 2.5 if x < 0.05 else 1.2 + 1.3 * math.exp(-8 * (x - 0.05)),
    "has a bump": lambda x: 1.0 + 1.5 * math.exp(-6 * x) + 0.3 * math.exp(-(((x - 0.5) / 0.03) ** 2)),
}


@pytest.mark.parametrize("steps", [3, 8, 15, 60, 400])
@pytest.mark.parametrize("shape", GOOD)
def test_a_good_run_gets_no_warning(shape: str, steps: int) -> None:
    loss = GOOD[shape]
    for seed in SEEDS:
        for noise in (0.01, 0.1, 0.25):
            for valid in (None, lambda x: 1.05 * loss(x) + 0.02):
                for logging_steps in (1, 5):
                    run = events_of(loss, steps=steps, noise=noise, seed=seed, valid=valid, logging_steps=logging_steps)
                    assert [finding for finding in diagnose(run) if finding.severity != "info"] == []


def test_a_loss_that_wanders_with_its_data_is_no_divergence() -> None:
    for seed in range(20):
        run = events_of(lambda x: 2.0 - 0.5 * x, steps=200, noise=0.06, seed=seed, wanders=True)
        assert diagnose(run)[:-1] == []


DIVERGING: dict[str, Curve] = {
    "rises": lambda x: 2.5 if x < 0.2 else 2.5 + 6 * (x - 0.2),
    "jumps": lambda x: 2.5 - 3 * x if x < 0.3 else 7.0,
    "goes wrong with the first step": lambda x: 2.5 if x < 0.02 else 11.0,
    "loses what it had gained": lambda x: 2.5 - 3 * x if x < 0.5 else min(2.4, 1 + 6 * (x - 0.5)),
}


@pytest.mark.parametrize("steps", [100, 400])
@pytest.mark.parametrize("shape", DIVERGING)
def test_divergence_is_seen_before_the_loss_is_nan(shape: str, steps: int) -> None:
    for seed in SEEDS:
        for noise in (0.01, 0.1):
            found = diagnose(events_of(DIVERGING[shape], steps=steps, noise=noise, seed=seed))
            assert "divergence" in codes(found)
            assert the(found, "divergence").step < steps
            assert not codes(found) & {"overfitting", "nothing_learned", "plateau", "near_zero"}


def test_divergence_names_the_learning_rate_and_a_lower_one() -> None:
    run = events_of(DIVERGING["jumps"])
    found = the(diagnose(run, config(learning_rate=5e-3)), "divergence")
    assert "`learning_rate` is 5e-3; try 5e-4" in found.remedy
    assert "at the start it was 2.3" in found.message
    assert "`learning_rate` is 2e-4; try 2e-5" in the(diagnose(run), "divergence").remedy


def test_a_loss_that_is_no_number_is_an_error_with_the_last_good_one() -> None:
    run = [event for event in events_of(GOOD["falls all along"], steps=40) if (event.step or 0) <= 20]
    run += [ProgressEvent("step", step=21, total_steps=40, train_loss=math.nan)]
    for written in (run, [ProgressEvent.from_json(event.to_json()) for event in run]):
        found = the(diagnose(written), "not_finite")
        assert (found.severity, found.step) == ("error", 21)
        assert "`learning_rate` is 2e-4; try 2e-5" in found.remedy


def test_a_run_that_failed_as_diverged_is_told_so() -> None:
    run = [ProgressEvent("started"), ProgressEvent("failed", code="diverged")]
    assert "compute_dtype" in the(diagnose(run), "not_finite").remedy


@pytest.mark.parametrize("noise", [0.005, 0.1, 0.3])
def test_nothing_learned_is_seen_half_way_through_by_the_validation(noise: float) -> None:
    for seed in SEEDS:
        run = events_of(lambda x: 2.5, noise=noise, seed=seed, valid=lambda x: 2.5, valid_noise=0.0005)
        found = the(diagnose(run, config(learning_rate=1e-7)), "nothing_learned")
        assert 50 <= found.step <= 60
        assert "`learning_rate` is 1e-7; try 2e-4" in found.remedy


def test_nothing_learned_is_seen_without_validation_where_the_noise_allows_it() -> None:
    assert "nothing_learned" in codes(diagnose(events_of(lambda x: 2.5, noise=0.01)))
    assert "nothing_learned" not in codes(diagnose(events_of(lambda x: 2.5, noise=0.3)))


def test_where_the_learning_rate_is_usual_the_examples_are_to_be_looked_at() -> None:
    found = diagnose(events_of(lambda x: 2.5, noise=0.01), config(learning_rate=3e-4))
    assert "tuneloop data show" in the(found, "nothing_learned").remedy
    assert "9e-4" in the(found, "nothing_learned").remedy


def test_full_fine_tuning_is_advised_a_smaller_learning_rate_than_an_adapter() -> None:
    settings = config(learning_rate=1e-7, finetuning_type="full", quantization="none", serve_as="model")
    found = diagnose(events_of(lambda x: 2.5, noise=0.01), settings)
    assert "try 2e-5" in the(found, "nothing_learned").remedy


def overfitting_run(seed: int = 0, **changes: Any) -> list[ProgressEvent]:
    def valid(x: float) -> float:
        return 2.0 - 1.2 * math.sin(min(1, x * 3) * math.pi / 2) + max(0.0, x - 1 / 3) * 1.5

    return events_of(lambda x: 2.5 * math.exp(-4 * x) + 0.05, seed=seed, valid=valid, **changes)


@pytest.mark.parametrize("steps", [20, 100, 400])
def test_overfitting_is_told_with_the_best_step_and_what_to_change(steps: int) -> None:
    for seed in SEEDS:
        found = the(diagnose(overfitting_run(seed, steps=steps, epochs=6), config()), "overfitting")
        assert found.severity == "warning"
        assert f"at step {steps * 2 // 5}" in found.message
        assert "`n_epochs: 2`" in found.remedy
        assert "early_stopping_patience" in found.remedy


def test_whether_the_best_weights_are_kept_is_told() -> None:
    kept = the(diagnose(overfitting_run(), config()), "overfitting")
    lost = the(diagnose(overfitting_run(), config(load_best_model_at_end=False)), "overfitting")
    assert "are kept" in kept.message
    assert "are kept" not in lost.message


def test_a_validation_that_wobbles_is_no_overfitting() -> None:
    for seed in range(20):
        run = events_of(GOOD["is learned soon"], seed=seed, valid=lambda x: 0.5 + 2 * math.exp(-20 * x))
        assert "overfitting" not in codes(diagnose(run))


def test_a_run_that_has_converged_is_told_so_without_a_warning() -> None:
    run = events_of(lambda x: 1 + 2 * math.exp(-30 * x), steps=200, valid=lambda x: 1.1 + 2 * math.exp(-30 * x))
    found = the(diagnose(run), "plateau")
    assert found.severity == "info"
    assert "nothing_learned" not in codes(diagnose(run))


def test_a_loss_near_zero_is_a_warning_unless_validation_shows_it_is_learned() -> None:
    def low(x: float) -> float:
        return 0.005 + 2 * math.exp(-15 * x)

    by_heart = the(diagnose(events_of(low, valid=lambda x: 1.8 + 0.2 * math.exp(-9 * x))), "near_zero")
    learned = the(diagnose(events_of(low, valid=lambda x: 0.01 + 2 * math.exp(-15 * x))), "near_zero")
    unknown = the(diagnose(events_of(low)), "near_zero")
    assert [by_heart.severity, learned.severity, unknown.severity] == ["warning", "info", "warning"]
    assert "validation_fraction" in unknown.remedy


def test_a_loss_near_zero_from_the_start_points_at_the_examples() -> None:
    assert "from the start" in the(diagnose(events_of(lambda x: 0.005)), "near_zero").message


def test_a_gradient_that_jumps_again_and_again_is_told_and_single_jumps_are_not() -> None:
    def jumping(steps: set[int]) -> Callable[[int, random.Random], float]:
        return lambda step, chance: math.exp(chance.gauss(0, 0.3)) * (60 if step in steps else 1)

    often = diagnose(events_of(GOOD["falls all along"], gradient=jumping({50, 60, 70, 80})), config(max_grad_norm=1.0))
    once = diagnose(events_of(GOOD["falls all along"], gradient=jumping({50})))
    assert the(often, "gradient_spikes").step == 70
    assert "max_grad_norm: 0.3" in the(often, "gradient_spikes").remedy
    assert "gradient_spikes" not in codes(once)


def preference_run(margin: Curve, accuracy: float, chosen: Curve | None = None, seed: int = 0) -> list[ProgressEvent]:
    def values(share: float, chance: random.Random) -> dict[str, Any]:
        rewards = {"reward_chosen": chosen(share) + chance.gauss(0, 0.05)} if chosen else {}
        right = min(1.0, max(0.0, accuracy + chance.gauss(0, 0.15)))
        return {"reward_margin": margin(share) + chance.gauss(0, 0.02), "reward_accuracy": right, "details": rewards}

    return events_of(lambda x: math.log1p(math.exp(-margin(x))), seed=seed, step_values=values)


def test_a_preference_run_whose_margin_rises_gets_no_warning() -> None:
    for seed in SEEDS:
        run = preference_run(lambda x: 0.8 * x, 0.75, lambda x: -0.2 * x, seed)
        assert [finding for finding in diagnose(run) if finding.severity != "info"] == []


def test_a_preference_run_whose_margin_stays_is_told_to_raise_the_learning_rate() -> None:
    for seed in SEEDS:
        run = preference_run(lambda x: 0.0, 0.5, seed=seed)
        found = the(diagnose(run, config(method="dpo", learning_rate=1e-7)), "preference_not_learned")
        assert "try 2e-5" in found.remedy


def test_a_preference_run_that_prefers_the_worse_answers_points_at_a_swap() -> None:
    assert "swapped" in the(diagnose(preference_run(lambda x: -0.5 * x, 0.2)), "preference_reversed").remedy


def test_better_answers_that_become_unlikely_are_told() -> None:
    run = preference_run(lambda x: x, 0.8, lambda x: -4 * x)
    assert "`beta: 0.3`" in the(diagnose(run, config(method="dpo")), "both_rewards_fall").remedy


@pytest.mark.parametrize(("examples", "code"), [(6, "few_validation_examples"), (200, None)])
def test_too_few_validation_examples_are_told_with_the_error_that_they_leave(examples: int, code: str | None) -> None:
    run = events_of(GOOD["falls all along"], valid=GOOD["falls all along"])
    found = [finding for finding in diagnose(run, validation_examples=examples) if "validation" in finding.code]
    assert [finding.code for finding in found] == ([code] if code else [])


def test_a_run_without_validation_is_told_what_could_not_be_seen() -> None:
    assert the(diagnose(events_of(GOOD["falls all along"])), "no_validation").severity == "info"


def test_a_result_worse_than_the_base_is_told() -> None:
    run = events_of(GOOD["falls all along"], valid=lambda x: 1.0 + 0.02 * x, valid_noise=0.0)
    assert the(diagnose(run), "worse_than_base").severity == "warning"


def test_a_validation_that_never_fell_is_overfitting_against_the_base() -> None:
    found = the(diagnose(events_of(GOOD["falls all along"], valid=lambda x: 1.0 + 0.3 * x)), "overfitting")
    assert "before any training it was 1.000" in found.message
    assert "`learning_rate` is 2e-4; try 7e-5" in found.remedy


def test_a_gap_that_opens_between_training_and_validation_is_told_at_the_end() -> None:
    run = events_of(lambda x: 0.4 + 1.6 * math.exp(-5 * x), valid=lambda x: 1.4 + 0.6 * math.exp(-3 * x))
    assert the(diagnose(run), "gap").severity == "info"
    harder = events_of(lambda x: 0.4 + 0.2 * math.exp(-5 * x), valid=lambda x: 1.4 + 0.2 * math.exp(-3 * x))
    assert "gap" not in codes(diagnose(harder))


def test_each_finding_is_told_once_and_as_soon_as_it_is_seen() -> None:
    watch = HealthMonitor(config(learning_rate=5e-3))
    told = [(event.step, finding.code) for event in events_of(DIVERGING["jumps"]) for finding in watch(event)]
    assert [code for _, code in told].count("divergence") == 1
    assert {code: step for step, code in told}["divergence"] <= 40


def test_a_resumed_run_is_judged_as_the_unbroken_one_and_tells_nothing_twice() -> None:
    run = overfitting_run()
    cut = next(place for place, event in enumerate(run) if event.step == 80)
    back = next(place for place, event in enumerate(run) if event.type == "step" and (event.step or 0) == 61)
    watch = HealthMonitor()
    told = [finding for event in run[:cut] for finding in watch(event)]
    healths = [ProgressEvent("health", code=finding.code, step=finding.step) for finding in told]
    resumed = [*run[:cut], *healths, ProgressEvent("failed", code="interrupted"), run[0], run[1], *run[back:]]
    assert diagnose(resumed) == diagnose(run)
    again = HealthMonitor()
    for event in [*run[:cut], *healths]:
        again(event)
    assert "overfitting" not in codes([finding for event in [run[0], run[1], *run[back:]] for finding in again(event)])


def test_a_run_that_was_stopped_early_is_not_blamed_for_having_learned_nothing() -> None:
    run = [event for event in events_of(lambda x: 2.5, noise=0.01) if (event.step or 0) <= 20]
    assert diagnose([*run, ProgressEvent("failed", code="interrupted", step=20)]) == []
