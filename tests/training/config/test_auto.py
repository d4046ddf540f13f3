"""What `auto` chooses: each rule goes one way, explicit values stay, and every choice is told."""

from __future__ import annotations

import math
from typing import Any

import pytest

from training.config.auto import Plan, make_plan
from training.config.config import TrainingConfig

SIZES = (1_000_000, 3_000_000, 50_000_000, 400_000_000, 10**9, 7 * 10**9, 13 * 10**9, 33 * 10**9, 70 * 10**9, 10**12)
ROWS = sorted({*range(1, 700), *(round(1.07**power) for power in range(90, 200))})


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"base_model": "org/base", "training_file": "a.jsonl", "output_dir": "out"} | changes)


def plan(rows: int = 1000, tokens: float = 200, size: int = 7 * 10**9, on_gpu: bool = True, **changes: Any) -> Plan:
    largest_batch = changes.pop("largest_batch", None)
    return make_plan(
        config(**changes),
        n_rows=rows,
        mean_tokens=tokens,
        n_parameters=size,
        on_gpu=on_gpu,
        largest_batch=largest_batch,
    )


def test_explicit_values_are_never_changed_nor_explained() -> None:
    given = {"batch_size": 5, "n_epochs": 13, "learning_rate": 0.5, "eval_steps": 7, "save_steps": 9}
    made = plan(rows=3, tokens=100_000, size=3, largest_batch=1, **given)
    assert {name: getattr(made, name) for name in given} == given
    assert made.reasons == ()


@pytest.mark.parametrize("name", ["batch_size", "n_epochs", "learning_rate", "eval_steps", "save_steps"])
def test_each_choice_is_told_with_its_value(name: str) -> None:
    made = plan()
    (reason,) = [reason for reason in made.reasons if reason.startswith(f"`{name}` ")]
    assert reason.startswith(f"`{name}` {getattr(made, name):g}: ")


@pytest.mark.parametrize("changes", [{}, {"batch_size": 8}, {"gradient_accumulation_steps": 4}, {"method": "dpo"}])
def test_more_rows_never_mean_more_epochs(changes: dict[str, Any]) -> None:
    epochs = [plan(rows=rows, **changes).n_epochs for rows in ROWS]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] > epochs[-1] == 1


def test_more_rows_never_mean_a_smaller_batch() -> None:
    sizes = [plan(rows=rows).batch_size for rows in ROWS]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (1, 16)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_longer_rows_and_larger_bases_never_mean_a_larger_batch(on_gpu: bool) -> None:
    by_tokens = [plan(tokens=tokens, on_gpu=on_gpu).batch_size for tokens in range(10, 20_000, 50)]
    by_size = [plan(tokens=400, size=size, on_gpu=on_gpu).batch_size for size in SIZES]
    assert by_tokens == sorted(by_tokens, reverse=True)
    assert by_size == sorted(by_size, reverse=True)
    assert by_tokens[0] > by_tokens[-1] == 1


def test_a_processor_gets_no_more_rows_than_a_gpu() -> None:
    assert all(plan(size=size, on_gpu=False).batch_size <= plan(size=size).batch_size for size in SIZES)


@pytest.mark.parametrize("kind", ["lora", "full", "prefix_tuning", "p_tuning"])
@pytest.mark.parametrize("method", ["supervised", "text", "dpo", "kto"])
def test_larger_bases_never_mean_a_higher_learning_rate(kind: str, method: str) -> None:
    rates = [plan(size=size, finetuning_type=kind, method=method).learning_rate for size in SIZES]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("size", "changes", "rate"),
    [
        (2_900_000, {}, 2e-3),
        (10**9, {}, 2e-4),
        (7 * 10**9, {}, 2e-4),
        (70 * 10**9, {}, 1e-4),
        (7 * 10**9, {"finetuning_type": "full"}, 2e-5),
        (7 * 10**9, {"method": "dpo"}, 5e-6),
        (2_900_000, {"method": "kto"}, 5e-5),
        (2_900_000, {"finetuning_type": "prefix_tuning"}, 3e-2),
    ],
)
def test_learning_rates_are_those_of_the_papers_and_measurements(
    size: int, changes: dict[str, Any], rate: float
) -> None:
    assert plan(size=size, **changes).learning_rate == pytest.approx(rate)


@pytest.mark.parametrize("rows", [10, 19, 20, 60, 159, 160, 315, 320, 1000, 30_000])
def test_a_file_of_ten_rows_or_more_gets_sixty_steps(rows: int) -> None:
    assert plan(rows=rows).total_steps >= 60


def test_a_tiny_file_is_not_passed_over_without_end() -> None:
    assert plan(rows=1).n_epochs == 10
    assert plan(rows=1, method="dpo").n_epochs == 3


def test_a_large_file_is_passed_over_once() -> None:
    assert plan(rows=100_000).n_epochs == 1


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
@pytest.mark.parametrize("changes", [{}, {"max_steps": 1}, {"n_epochs": 1, "batch_size": 4096}])
def test_there_is_a_step_and_the_warm_up_ends_before_the_last(rows: int, changes: dict[str, Any]) -> None:
    made = plan(rows=rows, warmup_ratio=1.0, **changes)
    assert 0 <= made.warmup_steps < made.total_steps
    assert min(made.eval_steps, made.save_steps, made.steps_per_epoch) >= 1


def test_the_batch_stays_within_what_fits() -> None:
    assert plan(largest_batch=2).batch_size == 2
    assert plan(largest_batch=0).batch_size == 1


def test_accumulation_counts_towards_the_rows_of_a_step() -> None:
    made = plan(gradient_accumulation_steps=4)
    assert (made.batch_size, made.gradient_accumulation_steps) == (4, 4)
    assert made.steps_per_epoch == math.ceil(1000 / 16)


def test_kto_has_at_least_two_rows_to_compare() -> None:
    assert plan(rows=12, tokens=100_000, method="kto").batch_size == 2


def test_early_stopping_gets_validations_to_stop_at() -> None:
    made = plan(early_stopping_patience=5)
    assert made.total_steps / made.eval_steps >= 14
    assert plan().total_steps / plan().eval_steps <= 5


def test_a_long_run_is_saved_about_ten_times_a_short_one_once_an_epoch() -> None:
    long, short = plan(rows=100_000), plan(rows=320)
    assert 9 <= long.total_steps / long.save_steps <= 11
    assert short.save_steps == short.steps_per_epoch
