"""What the routes are given: one object an app, made by whoever composes it. No route fetches anything for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from server.alias_book import AliasBook
from server.auth import ANYBODY, Caller, KeyStore
from server.database import Database
from server.errors import Forbidden
from server.files import FileStore
from server.inspection import Inspections
from server.jobs.creating import JobCreator
from server.jobs.runner import Runner
from server.leaderboard import Leaderboards
from server.metrics import Metrics
from server.pair_votes import PairVotes
from server.publishing import Publisher
from server.settings import Settings
from server.webhooks.deliverer import Deliverer
from serving import Engine, Registry
from serving.fleet import Fleet


@dataclass(frozen=True)
class Services:
    """The running parts behind the routes."""

    settings: Settings
    engine: Engine
    registry: Registry
    database: Database
    keys: KeyStore
    metrics: Metrics
    files: FileStore
    runner: Runner
    webhooks: Deliverer
    jobs: JobCreator
    aliases: AliasBook
    fleet: Fleet
    inspections: Inspections = field(default_factory=Inspections)
    campaign_work: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be answers to generate for a campaign."""
    leaderboards: Leaderboards = field(default_factory=Leaderboards)
    pair_votes: PairVotes = field(default_factory=PairVotes)


@asynccontextmanager
async def at_work(services: Services) -> AsyncIterator[None]:
    """While the context is open, goes on what isn't done in a request: file checks, jobs, webhooks, publishing,
    campaigns' answers."""
    from server.adapter_uploads import remove_leftovers  # both ask by way of `Services`
    from server.campaigns.generator import Generator

    await asyncio.to_thread(remove_leftovers, services.settings)
    parts = (
        services.fleet,
        services.aliases,
        services.files,
        services.webhooks,
        services.runner,
        Publisher(services.registry),
        Generator(services),
    )
    async with AsyncExitStack() as stack:
        for part in parts:
            stack.push_async_callback(part.stop)
            await part.start()
        yield


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]


def caller_of(request: Request) -> Caller:
    """Who makes the request."""
    caller: Caller = getattr(request.state, "caller", ANYBODY)
    return caller


# Coroutines all: FastAPI would run plain functions in a thread, for each request.
async def _caller(request: Request) -> Caller:
    return caller_of(request)


async def _key_id(request: Request) -> str | None:
    return caller_of(request).key_id


async def _project(request: Request) -> str:
    return caller_of(request).project


async def _admin(request: Request) -> Caller:
    caller = caller_of(request)
    if not caller.is_admin:
        raise Forbidden(
            f"The API key {caller.key_id} is no admin's, and this endpoint wants one. "
            "Whoever runs the server makes one with `tuneloop keys create --admin`.",
            code="admin_key_required",
        )
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]
"""Who makes the request."""
KeyIdDep = Annotated[str | None, Depends(_key_id)]
"""The id of the API key that made the request; None on a keyless server."""
ProjectDep = Annotated[str, Depends(_project)]
"""The project of the key that made the request; DEFAULT_PROJECT on a keyless server."""
AdminDep = Annotated[Caller, Depends(_admin)]
"""Who makes the request; anybody but an admin gets a 403."""
