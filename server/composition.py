"""Composes a running tuneloop: data directory, database, engine, registry, app, HTTP server; and takes them down again.

`commands/up.py` and `commands/demo.py` say what happens while it runs. Knows no command-line flags.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import logging.handlers
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from server.alias_book import AliasBook
from server.app import create_app
from server.auth import KeyStore, list_keys
from server.checkpoint_access import is_checkpoint
from server.database import Database
from server.engines import end_unused, make_pools, make_remotes, wanted_limits
from server.files import FileStore
from server.gate import make_gate
from server.http_protocol import BoundedHTTP
from server.jobs.creating import JobCreator
from server.jobs.runner import TRAINING, Runner
from server.metrics import Metrics
from server.services import Services, at_work
from server.settings import Settings
from server.webhooks.deliverer import Deliverer
from serving import (
    BaseModel,
    Device,
    Engine,
    Pool,
    Registry,
    Replica,
    VLLMProcess,
    VLLMSettings,
    inspect_device,
    pool_of,
)
from serving.accelerator import Accelerator
from serving.devices import Division, divide
from serving.fleet import Fleet
from serving.loading import Gate
from serving.vllm_arguments import runs_on_cpu

GRACE_S = 3
"""Answers in flight get this long to end when the server stops."""
KEEP_ALIVE_S = 75
"""An idle connection is kept longer than clients keep theirs (httpx 5 s, aiohttp 15 s, proxies 60 s): whoever closes
first must be the one who sends next, or a request meets a connection that is just being closed."""

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")

MountUI = Callable[[FastAPI, str], FastAPI]
"""Puts the pages on `/` of the app; the string is the server's own URL. Returns the app to serve."""

Story = Callable[[Services, str], Coroutine[None, None, bool]]
"""What to do once the server listens: starts the engine, prints. Returns whether to go on serving."""


class StartError(Exception):
    """The server cannot start. The message gives the value, the rule and the remedy."""


async def run_server(
    settings: Settings, bases: Sequence[BaseModel], listener: socket.socket, mount_ui: MountUI, story: Story
) -> None:
    """Serve on `listener` until the story ends with False or a signal comes; then leave nothing running.

    Raises:
        StartError, DatabaseError, EngineStartError: it could not be brought up.
    """
    url = server_url(settings.host, listener)
    async with open_services(settings, bases) as services, at_work(services):
        app = create_app(services)
        server = _Server(
            uvicorn.Config(
                mount_ui(app, url) if settings.ui else app,
                log_config=None,
                access_log=False,
                http=BoundedHTTP,
                timeout_graceful_shutdown=GRACE_S,
                timeout_keep_alive=KEEP_ALIVE_S,
                server_header=False,
            )
        )
        _stop_on_signals(server)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        telling = asyncio.create_task(story(services, url))
        await asyncio.wait({serving, telling}, return_when=asyncio.FIRST_COMPLETED)
        try:
            if not telling.done() or telling.result():
                await serving  # where the server ended first, this raises what ended it
        finally:
            server.should_exit = True
            telling.cancel()
            await asyncio.gather(serving, telling, return_exceptions=True)


@contextlib.asynccontextmanager
async def open_services(settings: Settings, bases: Sequence[BaseModel]) -> AsyncIterator[Services]:
    """The running parts for these base models, their engines not yet started; on leaving, the engines are stopped.

    Raises:
        DatabaseError: the database cannot be opened, or another server holds it.
        StartError: the address is public and there are no keys, or `base_model_map` can't be meant.
        EngineStartError: settings of the engines can't be meant.
    """
    with contextlib.closing(open_database(settings)) as database, database.held():
        _refuse_public_without_keys(settings, database)
        further_names = base_aliases(settings, [base.name for base in bases])
        common, device = engine_settings(settings), await asyncio.to_thread(inspect_device)
        division = divide_devices(settings, common, device)
        common = replace(common, devices=division.engine)
        pools = await asyncio.to_thread(make_pools, settings, bases, common, further_names, device)
        remotes = make_remotes(settings)
        await asyncio.to_thread(end_unused, settings.data_dir, len(bases) * settings.replicas)
        first = pools[0].replicas[0].engine
        gate = make_gate(common, device) if settings.parity_check else None
        services = make_services(
            settings,
            first,
            database,
            pools=pools,
            remotes=remotes,
            gate=gate,
            accelerator=Accelerator(settings.accelerator_policy, local_engines(pools), division),
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
    """The parts over this engine and database; nothing is started.

    training: the command that trains, given a run directory.
    pools: the bases and their engines, where there are more than this one.
    remotes: engines that others run, with models of their own.
    gate: judges adapters before they are published; checkpoints of a running job excepted.

    Raises:
        StartError: `base_model_map` can't be meant.
    """
    metrics = Metrics()
    pools = pools or [pool_of(engine)]
    base_names = [pool.base.name for pool in pools]
    further_names = base_aliases(settings, base_names)
    aliases = AliasBook(database, reserved=(*base_names, *further_names))
    registry = Registry(
        settings.adapters_dir,
        pools,
        base_aliases=further_names,
        aliases=aliases.current,
        remotes=remotes,
        gate=gate,
        is_gated=lambda adapter: not is_checkpoint(adapter.name),
        observer=metrics.observer(),
    )
    fleet = Fleet(registry, wanted_limits(settings))
    files = FileStore(settings.files_dir, database)
    webhooks = Deliverer(database)
    runner = Runner(
        settings, database, engine, registry, files, command=training, on_end=webhooks.wake, accelerator=accelerator
    )
    jobs = JobCreator(settings, database, registry, files, runner)
    return Services(
        settings, engine, registry, database, KeyStore(database), metrics, files, runner, webhooks, jobs, aliases, fleet
    )


def divide_devices(settings: Settings, common: VLLMSettings, device: Device) -> Division:
    """Which devices are the engines' and which the trainings'. Raises: EngineStartError when that can't be."""
    return divide(
        settings.accelerator_policy,
        device,
        on_cpu=runs_on_cpu(common, device),
        engine_devices=settings.engine_device_numbers,
        training_devices=settings.training_device_numbers,
    )


def local_engines(pools: Sequence[Pool]) -> list[VLLMProcess]:
    """The engines on this machine, which can make room for a training."""
    engines = [replica.engine for pool in pools for replica in pool.replicas]
    return [engine for engine in engines if isinstance(engine, VLLMProcess)]


def base_aliases(settings: Settings, base_names: Sequence[str]) -> dict[str, str]:
    """Further name → base's name, of those that the settings give to the bases.

    Raises:
        StartError: one is for a model that isn't served, or can't be told from others.
    """
    served = " and ".join(map(repr, base_names))
    for alias, target in settings.base_model_map.items():
        if target not in base_names:
            raise StartError(
                f"base_model_map says {alias}={target}, but the base model that is served is {served}. "
                f"Write {alias}={base_names[0]}, or start with --model {target} or --more-models {target}."
            )
        if alias in base_names or alias.startswith("ft:") or not _ALIAS.fullmatch(alias):
            raise StartError(
                f"base_model_map has the name {alias!r}, but a further name must differ from {served}, must not "
                "begin with ft:, and is made of letters, digits, '.', '_', ':', '/' and '-', the first a letter or "
                "digit. Choose another, such as gpt-4o-mini-2024-07-18."
            )
    return dict(settings.base_model_map)


def open_database(settings: Settings) -> Database:
    """The database, its schema up to date.

    Raises:
        DatabaseError: it cannot be opened.
        StartError: the data directory cannot be written.
    """
    make_data_dir(settings.data_dir)
    database = Database(settings.resolved_database_url)
    database.migrate()
    return database


def make_data_dir(data_dir: Path) -> None:
    """Make the data directory, for our eyes only.

    Raises:
        StartError: it cannot be made or written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(data_dir, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise StartError(
            f"The data directory {data_dir} cannot be used: {error.strerror}. "
            "Give a folder that you can write with --data-dir."
        ) from error


@contextmanager
def only_server(data_dir: Path) -> Iterator[None]:
    """Hold the data directory: two servers on one would fight over its engine and database.

    Raises:
        StartError: another server holds it.
    """
    make_data_dir(data_dir)
    with (data_dir / "server.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise StartError(
                f"The data directory {data_dir} is in use by a running tuneloop "
                f"(process {lock.read().strip() or 'unknown'}). "
                "Stop that one, or give this one a folder of its own with --data-dir."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, taken before anything slow begins.

    Raises:
        StartError: the address is taken or not ours.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a token mustn't wait for the next
        return listener
    except OSError as error:
        raise StartError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}. Another program may hold the port "
            f"(`ss -ltnp 'sport = :{port}'` shows which); stop it, or choose another with --port."
        ) from error


def server_url(host: str, listener: socket.socket) -> str:
    """The URL under which this machine reaches the server."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (translated, not bound)
    port = listener.getsockname()[1]
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def engine_settings(settings: Settings) -> VLLMSettings:
    """The engines' share of the settings: what all of them are given. `engines.make_pools` adds what each has alone."""
    rank, loras, cpu_loras = wanted_limits(settings).fitting([])
    return VLLMSettings(
        state_dir=settings.data_dir / "engine",
        log_path=settings.data_dir / "logs" / "engine.log",
        max_lora_rank=rank,
        max_loras=loras,
        max_cpu_loras=cpu_loras,
        max_model_len=settings.max_model_len,
        dtype=None if settings.dtype == "auto" else settings.dtype,
        kv_cache_gib=settings.kv_cache_gib,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        tool_call_parser=settings.tool_call_parser,
        start_timeout_s=settings.engine_start_timeout_s,
        wait_s=settings.engine_wait_s,
        stall_timeout_s=settings.engine_stall_timeout_s,
        may_sleep=settings.accelerator_policy == "sleep",
        extra_args=tuple(settings.engine_args),
    )


def log_to_file(data_dir: Path) -> Path:
    """Send the log to a file that rotates, warnings and worse to the terminal too; the file's path."""
    path = data_dir / "logs" / "server.log"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = logging.handlers.RotatingFileHandler(path, maxBytes=10 * 2**20, backupCount=3, encoding="utf-8")
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    logging.basicConfig(
        level=logging.INFO, handlers=[file, terminal], format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else the pages' own calls would push out all that matters
    return path


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: it would raise the signal again before the engine is stopped."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _stop_on_signals(server: uvicorn.Server) -> None:
    def stop() -> None:
        server.force_exit = server.should_exit  # the second time, without waiting for answers in flight
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _refuse_public_without_keys(settings: Settings, database: Database) -> None:
    if settings.is_loopback:
        return
    with database.session() as session:
        if any(key.revoked_at is None for key in list_keys(session)):
            return
    raise StartError(
        f"The address {settings.host} can be reached from outside this machine, and there is no valid API key. "
        "Make one with `tuneloop keys create --name NAME`, or listen on 127.0.0.1."
    )
