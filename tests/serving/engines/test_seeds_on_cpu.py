"""A request's generator, beside a sampler that rewinds it as vLLM does on CUDA."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from serving.engines.vllm.on_cpu.seeds import distinguish_seeds, fold_seed, keep_generators

READ, IN_PARTS = False, True


def test_a_prompt_read_in_several_steps_draws_as_one_read_at_once() -> None:
    assert _draw(7, [IN_PARTS, IN_PARTS, READ, READ]) == _draw(7, [READ, READ])
    assert _draw(7, [IN_PARTS, READ]) != _draw(8, [IN_PARTS, READ])


def test_a_request_draws_the_same_beside_others() -> None:
    runner = _runner({0: 3, 2: 7}, rows=4)
    drawn = [_step(runner, unread)[2] for unread in ([2, 3], [0, 2], [3], [])]
    assert drawn[2:] == _draw(7, [READ, READ])
    assert runner.input_batch.generators.keys() == {0, 2}


def test_a_step_that_fails_loses_no_generator() -> None:
    def fail(runner: Any) -> None:
        raise RuntimeError(f"with {len(runner.input_batch.generators)}")

    runner = _runner({0: 3, 1: 7}, rows=2)
    runner.discard_request_mask.np[1] = True
    with pytest.raises(RuntimeError, match="with 1"):
        keep_generators(fail)(runner)
    assert runner.input_batch.generators.keys() == {0, 1}


def test_seeds_of_more_than_32_bits_are_told_apart() -> None:
    seeds = [0, 7, 2**31, 2**32 - 1, 2**32, 2**32 + 7, 2**63 - 1, 2**63, -2, -(2**63)]
    fitting = [fold_seed(seed) for seed in seeds]
    assert fitting[:4] == seeds[:4]
    assert len({tuple(torch.rand(2, generator=_generator(seed)).tolist()) for seed in fitting}) == len(seeds)


def test_the_generators_are_made_of_fitting_seeds() -> None:
    seen: list[int | None] = []

    def update_states(_runner: Any, scheduled: Any) -> None:
        seen.extend(new.sampling_params and new.sampling_params.seed for new in scheduled.scheduled_new_reqs)

    parameters = [SimpleNamespace(seed=7), SimpleNamespace(seed=2**32 + 7), SimpleNamespace(seed=None), None]
    new = [SimpleNamespace(sampling_params=own) for own in parameters]
    for _ in range(2):  # a request that is scheduled anew keeps its seed
        distinguish_seeds(update_states)(None, SimpleNamespace(scheduled_new_reqs=new))
    assert seen == [7, fold_seed(2**32 + 7), None, None] * 2


def _draw(seed: int, steps: list[bool]) -> list[int]:
    """What a request alone draws for the tokens that it keeps."""
    runner = _runner({0: seed}, rows=1)
    drawn = [_step(runner, [0] if in_parts else [])[0] for in_parts in steps]
    return [number for number, in_parts in zip(drawn, steps, strict=True) if not in_parts]


def _step(runner: Any, unread: list[int]) -> list[int]:
    """What each row draws in a step, where the rows in `unread` are prompts that aren't read to their end."""
    runner.discard_request_mask.np[:] = [row in unread for row in range(len(runner.discard_request_mask.np))]
    drawn: list[int] = keep_generators(_sample)(runner)
    return drawn


def _sample(runner: Any) -> list[int]:
    generators = runner.input_batch.generators
    drawn = [
        int(torch.randint(2**31, (1,), generator=generators.get(row))) for row in range(runner.input_batch.num_reqs)
    ]
    for row in np.nonzero(runner.discard_request_mask.np)[0]:
        if (generator := generators.get(int(row))) is not None:
            generator.set_offset(generator.get_offset() - 4)
    return drawn


def _runner(seeds: dict[int, int], rows: int) -> Any:
    """As much of vLLM's model runner as is looked at: row → seed."""
    generators = {row: _generator(seed) for row, seed in seeds.items()}
    mask = SimpleNamespace(np=np.zeros(rows, dtype=bool))
    return SimpleNamespace(input_batch=SimpleNamespace(generators=generators, num_reqs=rows), discard_request_mask=mask)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
