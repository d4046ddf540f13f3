"""Seeds on a CPU: a request's generator is used only for tokens that the request keeps.

vLLM 0.32 samples a token for a partly processed prompt, discards it, and rewinds the request's generator by the offset
that CUDA's has (https://github.com/vllm-project/vllm/pull/10097). A CPU generator has none: torch raises `CPU Generator
does not use offset`, and the engine dies with all its requests. This affects prompts longer than a step, and short ones
that fill a step together. Here such a token is sampled without the generator.

`server` patches these functions into vLLM.
"""

import hashlib
from collections.abc import Callable
from typing import Any


def keep_generators(sample_tokens: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a model runner's `sample_tokens`: requests whose sampled token is discarded keep their generators unused."""

    def sample_kept_tokens(runner: Any, *arguments: Any, **named: Any) -> Any:
        generators = runner.input_batch.generators
        discarded = runner.discard_request_mask.np[: runner.input_batch.num_reqs]
        aside = {row: generators.pop(row) for row in discarded.nonzero()[0].tolist() if row in generators}
        try:
            return sample_tokens(runner, *arguments, **named)
        finally:
            generators.update(aside)

    return sample_kept_tokens


def distinguish_seeds(update_states: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a model runner's `_update_states`, which makes the generators: seeds of more than 32 bits are folded."""

    def update_with_folded_seeds(runner: Any, scheduled: Any, *arguments: Any, **named: Any) -> Any:
        for request in scheduled.scheduled_new_reqs:
            if request.sampling_params and request.sampling_params.seed is not None:
                request.sampling_params.seed = fold_seed(request.sampling_params.seed)
        return update_states(runner, scheduled, *arguments, **named)

    return update_with_folded_seeds


def fold_seed(seed: int) -> int:
    """Return `seed` folded into 32 bits that depend on all of its bits; itself if it fits.

    On a CPU torch keeps the lowest 32 bits (`mt19937`), so that 1 and 2³² + 1 would give the same answer.
    """
    if 0 <= seed < 2**32:
        return seed
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4])
