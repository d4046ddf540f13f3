"""The services that routes use: one object per app, built in `build.py`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from server.access.keys import KeyStore
from server.aliases.cache import AliasCache
from server.arena.comparisons.pair_votes import PairCounts
from server.arena.leaderboard.boards import Leaderboards
from server.files.store import FileStore
from server.inference.ask import Inference
from server.inference.metrics.server import Metrics
from server.inspection.file_reports import FileReports
from server.inspection.processes import Inspections
from server.jobs.create.creator import JobCreator
from server.jobs.run.queue import Runner
from server.jobs.webhooks.deliverer import Deliverer
from server.settings import Settings
from server.storage.database import Database
from serving import Engine, Registry
from serving.registry.fleet import Fleet


@dataclass(frozen=True, kw_only=True)
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
    aliases: AliasCache
    fleet: Fleet
    inference: Inference
    inspections: Inspections
    file_reports: FileReports
    campaign_work: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be answers to generate for a campaign."""
    leaderboards: Leaderboards = field(default_factory=Leaderboards)
    pair_votes: PairCounts = field(default_factory=PairCounts)


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
