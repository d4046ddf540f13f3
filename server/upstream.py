"""The way from a model's name to the engine's answer: held adapter, opened request, errors in OpenAI's words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server import checkpoint_access
from server.auth import Caller
from server.errors import from_engine, from_serving
from server.services import Services
from serving import EngineResponse, ServingError


@asynccontextmanager
async def ask_engine(
    services: Services, caller: Caller, path: str, model: str, body: bytes
) -> AsyncIterator[EngineResponse]:
    """The engine's answer, its status below 400; the model's adapter stays where it is until the context is left.

    Raises:
        APIError: the model is unknown to this caller, the engine is away, or it refused the request.
    """
    try:
        await checkpoint_access.check(services.database, services.registry, caller, model)
        async with (
            services.registry.lease(model),
            services.engine.request("POST", path, body=body, headers={"Content-Type": "application/json"}) as answer,
        ):
            if answer.status >= 400:
                raise from_engine(answer.status, await answer.read())
            yield answer
    except ServingError as error:
        raise from_serving(error) from error
