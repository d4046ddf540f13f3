"""A request's seed on a processor: its generator draws for the tokens that the request keeps, and for no other.

vLLM 0.32 samples a token for a prompt of which only a part has been read, throws it away, and rewinds the request's
generator by the offset that CUDA's has (https://github.com/vllm-project/vllm/pull/10097). A processor's has none: torch
raises `CPU Generator does not use offset`, and the engine dies with all that it was answering. It happens to a prompt
longer than a step, and to short ones that fill a step together. Here the generator is kept from drawing such a token.

It refuses to know vLLM: `server` puts these functions into it.
"""

import hashlib
from collections.abc import Callable
from typing import Any


def keep_generators(sample_tokens: Callable[..., Any]) -> Callable[..., Any]:
    """A model runner's `sample_tokens`, without the generators of requests whose sampled token is thrown away."""

    def sample_kept_tokens(runner: Any, *arguments: Any, **named: Any) -> Any:
        generators = runner.input_batch.generators
        thrown_away = runner.discard_request_mask.np[: runner.input_batch.num_reqs]
        aside = {row: generators.pop(row) for row in thrown_away.nonzero()[0].tolist() if row in generators}
        try:
            return sample_tokens(runner, *arguments, **named)
        finally:
            generators.update(aside)

    return sample_kept_tokens


def tell_seeds_apart(update_states: Callable[..., Any]) -> Callable[..., Any]:
    """A model runner's `_update_states`, which makes the generators, with seeds of more than 32 bits made to fit."""

    def update_with_fitting_seeds(runner: Any, scheduled: Any, *arguments: Any, **named: Any) -> Any:
        for request in scheduled.scheduled_new_reqs:
            if request.sampling_params and request.sampling_params.seed is not None:
                request.sampling_params.seed = fitting_seed(request.sampling_params.seed)
        return update_states(runner, scheduled, *arguments, **named)

    return update_with_fitting_seeds


def fitting_seed(seed: int) -> int:
    """`seed` in 32 bits that depend on all of its own; itself where it has no more.

    On a processor torch keeps the lowest 32 bits (`mt19937`), so that 1 and 2³² + 1 would give the same answer.
    """
    if 0 <= seed < 2**32:
        return seed
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4])
