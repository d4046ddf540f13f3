"""The rule by which the server draws the two models of a blind comparison; docs/comparisons.md publishes it.

    candidates   the bases and tuned models that are served and that the caller may see; no checkpoints, no aliases
    chance       a pair's is proportional to 1 / (1 + votes that it has): what is known least is asked most
    order        which of the two stands left is a coin's throw

Knows nothing of answers and of HTTP beyond the error it raises.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations

from server.access.checkpoints import is_checkpoint
from server.access.keys import Caller
from server.arena.comparisons.pair_votes import Pair, PairVotes
from server.storage.database import Database
from server.versions import tuned_models
from server.wire.errors import Conflict
from serving import Registry


async def draw_pair(registry: Registry, database: Database, pair_votes: PairVotes, caller: Caller) -> list[str]:
    """Two models, the left one first.

    Raises:
        Conflict: there are fewer than two to draw from.
    """
    models = await candidates(registry, database, caller)
    if len(models) < 2:
        raise Conflict(
            f"A blind pair needs two models, and {' and '.join(models) or 'none'} is all that is served here. "
            "Fine-tune one, or name two models in `models`.",
            code="too_few_models",
            param="models",
        )
    votes = await database.run(pair_votes.read)
    return drawn(models, votes, random.SystemRandom())


async def candidates(registry: Registry, database: Database, caller: Caller) -> list[str]:
    """The models that a pair may be drawn from, for this caller."""
    bases = [pool.base.name for pool in registry.pools]
    tuned = [adapter.name for adapter in await tuned_models.usable(registry, database, caller)]
    return [*bases, *(name for name in tuned if not is_checkpoint(name))]


def drawn(models: Sequence[str], votes: Mapping[Pair, int], chance: random.Random) -> list[str]:
    """A pair of these models by the rule, in random order."""
    pairs = list(combinations(models, 2))
    weights = [1 / (1 + votes.get(frozenset(pair), 0)) for pair in pairs]
    (pair,) = chance.choices(pairs, weights)
    return chance.sample(pair, 2)
