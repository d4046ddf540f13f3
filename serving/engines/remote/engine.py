"""A remote engine: vLLM, Ray Serve LLM, SGLang, OpenAI, or another tuneloop. Implements `Engine`.

It polls the list of models every few seconds, which shows whether the engine is up, what it serves, and whether it was
restarted. Names that mean something else on this server are handled in `registry`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from serving.base_model import BaseModel
from serving.engines.engine import AdapterHost, EngineLimits, EngineState, OnProgress
from serving.engines.remote.client import POLL_CONNECTIONS, RemoteAddress, RemoteClient, RemoteResponse, open_session
from serving.errors import EngineUnavailableError, ServingError

POLL_S = 10.0
"""Seconds between two polls of an engine that is up; the maximum between two polls of one that isn't."""
_POLL_TIMEOUT_S = 10.0
_FIRST_POLL_S = 5.0
"""How long the server's start waits for a remote engine."""
_MAX_FAILED_POLLS = 2
"""So many failed polls in a row mark the engine as down. A single one may have hit a busy moment."""
FOREIGN_BASE = BaseModel("elsewhere", Path("/"), "", {})
"""The base of an engine whose models aren't ours; nothing is known about it."""
ANY_LIMITS = EngineLimits(max_lora_rank=512, max_loras=64, max_cpu_loras=64, max_model_len=None)
"""Assumed for an engine that doesn't report its limits; it rejects what it can't take."""

logger = logging.getLogger(__name__)


class RemoteEngine:
    """One remote engine and the task that polls it."""

    def __init__(
        self, address: RemoteAddress, base: BaseModel = FOREIGN_BASE, *, limits: EngineLimits = ANY_LIMITS,
        poll_s: float = POLL_S,
    ) -> None:  # fmt: skip
        """base: the base model if it is one of ours, served under the same name; its adapters are loaded there, too.

        poll_s: seconds between two polls.
        """
        self.base, self.limits = base, limits
        self.on_up: Callable[[AdapterHost], Awaitable[None]] | None = None
        """Called when the engine has come up, before it gets requests. An error means that it can't be trusted."""
        self._address, self._poll_s = address, poll_s
        self._state = EngineState.STOPPED
        self._sessions: tuple[aiohttp.ClientSession, ...] = ()
        self._client: RemoteClient | None = None
        self._polling: asyncio.Task[None] | None = None
        self._poll_requested, self._polled = asyncio.Event(), asyncio.Event()
        self._models: tuple[str, ...] = ()
        self._loaded: set[str] = set()
        self._generation = self._failed_polls = self._in_flight = 0
        self._next_look_at = 0.0
        self._started_at: float | None = None
        self._trouble: str | None = None

    @property
    def state(self) -> EngineState:
        """The engine's state, as far as it can be seen from here."""
        return self._state

    @property
    def generation(self) -> int:
        """How often it was found up again, or without the adapters that were loaded into it."""
        return self._generation

    @property
    def models(self) -> tuple[str, ...]:
        """The models of its last list; kept while it is down."""
        return self._models

    @property
    def url(self) -> str:
        """Its URL, without a key."""
        return self._address.url

    @property
    def restarts(self) -> int:
        """How often it came back."""
        return max(0, self._generation - 1)

    @property
    def started_at(self) -> float | None:
        """When it came up, in Unix seconds; None while it is down."""
        return self._started_at if self._state is EngineState.READY else None

    @property
    def last_trouble(self) -> str | None:
        """Why it was down the last time; None if it never was."""
        return self._trouble

    @property
    def in_flight(self) -> int:
        """Our requests that it is answering."""
        return self._in_flight

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Start polling. An engine that is down may come up later, so that is no error."""
        if self._sessions:
            return
        self._state = EngineState.STARTING
        # Polls have a session of their own: in the other they would wait for a connection, and count as failed.
        requests_session, polling_session = open_session(self._address), open_session(self._address, POLL_CONNECTIONS)
        self._sessions = (requests_session, polling_session)
        self._client = RemoteClient(self._address, requests_session, self.base, self.limits)
        poller = RemoteClient(self._address, polling_session, self.base, self.limits)
        self._polling = asyncio.create_task(self._poll_forever(poller))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_POLL_S):
                await self._polled.wait()

    async def stop(self) -> None:
        """Stop polling; the engine itself goes on."""
        if self._polling:
            self._polling.cancel()
            await asyncio.wait({self._polling})
        for session in self._sessions:
            await session.close()
        self._polling = self._client = None
        self._sessions = ()
        self._state = EngineState.STOPPED

    async def is_healthy(self) -> bool:
        """Return whether the last poll succeeded."""
        return self._state is EngineState.READY

    async def load_adapter(self, name: str, path: Path) -> None:
        """See `Engine.load_adapter`. The engine must see the directory at the same path."""
        await self._ready_client().load_adapter(name, path)
        self._loaded.add(name)

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`."""
        self._loaded.discard(name)
        await self._ready_client().unload_adapter(name)

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[RemoteResponse]:
        """See `Engine.request`."""
        client = self._ready_client()
        self._in_flight += 1
        try:
            async with client.request(method, path, body=body, headers=headers) as response:
                if response.status == 404 and path.startswith("/v1/"):
                    self._poll_requested.set()  # it may have been restarted, or no longer lists the model
                yield response
        except EngineUnavailableError:
            self._poll_requested.set()
            raise
        finally:
            self._in_flight -= 1

    def _ready_client(self) -> RemoteClient:
        if self._client is not None and self._state is EngineState.READY:
            return self._client
        why = self._trouble or f"The remote engine {self._address.id} hasn't responded yet. Try again in a moment."
        raise EngineUnavailableError(why, max(1.0, self._next_look_at - time.monotonic()))

    async def _poll_forever(self, client: RemoteClient) -> None:
        while True:
            self._poll_requested.clear()
            try:
                await self._poll(client)
            except Exception:  # the outermost catcher of this task: otherwise polling would end
                logger.exception("Unexpected error while polling the remote engine %s", self._address.id)
            self._polled.set()
            pause_s = min(2.0 ** (self._failed_polls - 1), self._poll_s) if self._failed_polls else self._poll_s
            self._next_look_at = time.monotonic() + pause_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._poll_requested.wait()

    async def _poll(self, client: RemoteClient) -> None:
        loaded = set(self._loaded)
        try:
            async with asyncio.timeout(_POLL_TIMEOUT_S):
                models = await client.model_names()
            if self._state is not EngineState.READY or not (loaded & self._loaded) <= set(models):
                await self._handle_start(client)
        except (ServingError, TimeoutError) as error:
            late = f"The remote engine {self._address.id} returned no list of models within {_POLL_TIMEOUT_S:.0f} s."
            self._record_failed_poll(str(error) or f"{late} Try again later.")
            return
        self._models, self._failed_polls = models, 0
        if self._state is not EngineState.READY:
            self._state, self._started_at = EngineState.READY, time.time()
            logger.info("The remote engine %s is up, with %d models", self._address.id, len(models))

    async def _handle_start(self, client: RemoteClient) -> None:
        """Handle a new or restarted engine, which has no adapters: they are restored before it gets requests."""
        self._state = EngineState.STARTING if self._generation == 0 else EngineState.DEAD
        self._generation += 1
        self._loaded.clear()
        if self.on_up:
            await self.on_up(RecordingClient(client, self._loaded))

    def _record_failed_poll(self, why: str) -> None:
        self._failed_polls += 1
        if self._failed_polls < _MAX_FAILED_POLLS and self._state is EngineState.READY:
            return
        if self._state is not EngineState.DEAD or self._failed_polls == 1:
            logger.warning("The remote engine %s is down: %s", self._address.id, why)
        self._state, self._trouble = EngineState.DEAD, why


class RecordingClient:
    """The engine before it gets requests: records the adapters loaded into it. Implements `AdapterHost`."""

    def __init__(self, client: RemoteClient, loaded: set[str]) -> None:
        self.base, self.limits = client.base, client.limits
        self.unload_adapter, self.request = client.unload_adapter, client.request
        self._client, self._loaded = client, loaded

    async def load_adapter(self, name: str, path: Path) -> None:
        """See `AdapterHost.load_adapter`."""
        await self._client.load_adapter(name, path)
        self._loaded.add(name)
