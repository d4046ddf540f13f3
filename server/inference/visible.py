"""Which models a caller can see."""

from __future__ import annotations

from collections.abc import Sequence

from server.access import checkpoints
from server.access.keys import Caller
from server.storage.database import Database
from server.wire.errors import NotFound
from serving import Registry


async def refuse_unknown(
    registry: Registry, database: Database, caller: Caller, models: Sequence[str], *, param: str = "models"
) -> None:
    """Check that this caller may use all of these models.

    Raises:
        NotFound: one doesn't exist, or is hidden from this caller: the two look the same.
    """
    names = await list_visible_names(registry, database, caller)
    for model in models:
        if model not in names:
            raise NotFound(
                f"The model {model[:200]!r} does not exist here. GET /v1/models lists the models.",
                code="model_not_found",
                param=param,
            )


async def list_visible_names(registry: Registry, database: Database, caller: Caller) -> set[str]:
    """Return every model name that this caller can use."""
    names = registry.names()
    hidden = await database.run(
        lambda session: checkpoints.find_hidden(session, caller, names, version_of=registry.version_of)
    )
    return set(names) - hidden
