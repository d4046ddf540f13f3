"""How the server draws the two models of a blind comparison; published in docs/comparisons.md.

candidates    the served bases and tuned models that the caller may see; no checkpoints, no aliases
probability   of a pair: proportional to 1 / (1 + its ratings), so that the least known pairs come most often
order         which of the two is left is random
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations

from server.access.checkpoints import is_checkpoint
from server.access.keys import Caller
from server.arena.comparisons.pair_votes import Pair, PairCounts
from server.storage.database import Database
from server.versions import tuned_models
from server.wire.errors import Conflict
from serving import Registry


async def draw_pair(registry: Registry, database: Database, pair_votes: PairCounts, caller: Caller) -> list[str]:
    """Draw two models; the first one is left.

    Raises:
        Conflict: there are fewer than two candidates.
    """
    models = await find_candidates(registry, database, caller)
    if len(models) < 2:
        raise Conflict(
            f"A blind comparison needs two models, but only {' and '.join(models) or 'none'} can be used here. "
            "Fine-tune a model, or set two models in `models`.",
            code="too_few_models",
            param="models",
        )
    votes = await database.run(pair_votes.read)
    return draw(models, votes, random.SystemRandom())


async def find_candidates(registry: Registry, database: Database, caller: Caller) -> list[str]:
    """Return the models that a pair may be drawn from, for this caller."""
    bases = [pool.base.name for pool in registry.pools]
    tuned = [adapter.name for adapter in await tuned_models.list_usable(registry, database, caller)]
    return [*bases, *(name for name in tuned if not is_checkpoint(name))]


def draw(models: Sequence[str], votes: Mapping[Pair, int], chance: random.Random) -> list[str]:
    """Draw a pair of these models, in random order."""
    pairs = list(combinations(models, 2))
    weights = [1 / (1 + votes.get(frozenset(pair), 0)) for pair in pairs]
    (pair,) = chance.choices(pairs, weights)
    return chance.sample(pair, 2)
