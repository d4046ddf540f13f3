"""Builds the services behind the routes: database, engines, registry, files, jobs; and closes them again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from server.access.checkpoints import is_checkpoint
from server.access.keys import KeyStore, list_keys
from server.aliases.cache import AliasCache
from server.app.data_dir import StartError, open_database
from server.app.engines import (
    build_engine_settings,
    check_base_model_map,
    end_leftover_engines,
    list_local_engines,
    make_pools,
    make_remotes,
    read_wanted_limits,
)
from server.app.services import Services
from server.app.sharing import share_accelerator
from server.files.store import FileStore
from server.inference.ask import Inference
from server.inference.metrics.server import Metrics
from server.inspection.file_reports import FileReports
from server.inspection.processes import Inspections
from server.jobs.create.creator import JobCreator
from server.jobs.run.queue import TRAINING, Runner
from server.jobs.webhooks.deliverer import Deliverer
from server.settings import Settings
from server.storage.database import Database
from server.versions.parity import make_gate
from serving import (
    BaseModel,
    Engine,
    Pool,
    Registry,
    Replica,
    inspect_device,
    pool_of,
)
from serving.engines.accelerator import Accelerator
from serving.registry.fleet import Fleet
from serving.registry.loader import Gate


@contextlib.asynccontextmanager
async def open_services(settings: Settings, bases: Sequence[BaseModel]) -> AsyncIterator[Services]:
    """Open the services for these base models, with their engines not yet started; stop the engines on exit.

    Raises:
        DatabaseError: the database can't be opened, or another server has locked it.
        StartError: the address is public and there are no keys, or `base_model_map` is invalid.
        EngineStartError: settings of the engines are invalid.
    """
    with contextlib.closing(open_database(settings)) as database, database.lock_for_server():
        _require_keys_if_public(settings, database)
        base_model_map = check_base_model_map(settings, [base.name for base in bases])
        await asyncio.to_thread(end_leftover_engines, settings.data_dir)
        device = await asyncio.to_thread(inspect_device)
        division, common = await asyncio.to_thread(
            share_accelerator, settings, bases, build_engine_settings(settings), device
        )
        pools = await asyncio.to_thread(make_pools, settings, bases, common, base_model_map, device)
        remotes = make_remotes(settings)
        first = pools[0].replicas[0].engine
        gate = make_gate(common, device) if settings.parity_check else None
        services = make_services(
            settings,
            first,
            database,
            pools=pools,
            remotes=remotes,
            gate=gate,
            accelerator=Accelerator(division.policy, list_local_engines(pools), division),
        )
        try:
            yield services
        finally:
            await services.fleet.stop()


def make_services(
    settings: Settings,
    engine: Engine,
    database: Database,
    *,
    training: Sequence[str] = TRAINING,
    pools: Sequence[Pool] | None = None,
    remotes: Sequence[Replica] = (),
    gate: Gate | None = None,
    accelerator: Accelerator | None = None,
) -> Services:
    """Build the services on this engine and database; nothing is started.

    training: the training command; the run directory is appended.
    pools: the bases and their engines, if there are more than this one.
    remotes: remote engines with models of their own.
    gate: checks adapters before they are published, except checkpoints of a running job.

    Raises:
        StartError: `base_model_map` is invalid.
    """
    metrics = Metrics()
    pools = pools or [pool_of(engine)]
    base_names = [pool.base.name for pool in pools]
    base_model_map = check_base_model_map(settings, base_names)
    aliases = AliasCache(database, reserved=(*base_names, *base_model_map))
    registry = Registry(
        settings.adapters_dir,
        pools,
        base_model_map=base_model_map,
        aliases=aliases.current,
        remotes=remotes,
        gate=gate,
        is_gated=lambda adapter: not is_checkpoint(adapter.name),
        observer=metrics.make_observer(),
    )
    fleet = Fleet(registry, read_wanted_limits(settings))
    files = FileStore(settings.files_dir, database)
    webhooks = Deliverer(database)
    runner = Runner(
        settings, database, engine, registry, files, command=training, on_end=webhooks.wake, accelerator=accelerator
    )
    jobs = JobCreator(settings, database, registry, files, on_created=runner.wake, division=runner.division)
    inspections = Inspections()
    return Services(
        settings=settings,
        engine=engine,
        registry=registry,
        database=database,
        keys=KeyStore(database),
        metrics=metrics,
        files=files,
        runner=runner,
        webhooks=webhooks,
        jobs=jobs,
        aliases=aliases,
        fleet=fleet,
        inference=Inference(registry, database, metrics.models),
        inspections=inspections,
        file_reports=FileReports(database, files, inspections, registry),
    )


def _require_keys_if_public(settings: Settings, database: Database) -> None:
    if settings.is_loopback:
        return
    with database.session() as session:
        if any(key.revoked_at is None for key in list_keys(session)):
            return
    raise StartError(
        f"The address {settings.host} can be reached from other machines, but there is no valid API key. Create one "
        "with `tuneloop keys create --name NAME`, or listen on 127.0.0.1."
    )
