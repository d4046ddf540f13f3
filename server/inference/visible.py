"""Which models a request names: that each is there for the caller. Knows nothing of what they are to do."""

from __future__ import annotations

from collections.abc import Sequence

from server.access import checkpoints
from server.access.keys import Caller
from server.app.services import Services
from server.wire.errors import NotFound


async def refuse_unknown(services: Services, caller: Caller, models: Sequence[str], *, param: str = "models") -> None:
    """Returns when this caller may use all of these models.

    Raises:
        NotFound: one isn't there, or not for this caller: the two look the same.
    """
    names = await visible_names(services, caller)
    for model in models:
        if model not in names:
            raise NotFound(
                f"The model {model[:200]!r} does not exist here. GET /v1/models lists the names.",
                code="model_not_found",
                param=param,
            )


async def visible_names(services: Services, caller: Caller) -> set[str]:
    """Every name that this caller can ask for."""
    names = services.registry.names()
    unseen = await services.database.run(
        lambda session: checkpoints.hidden_among(session, caller, names, version_of=services.registry.version_of)
    )
    return set(names) - unseen
