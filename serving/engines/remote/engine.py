"""An engine that someone else runs: vLLM, Ray Serve LLM, SGLang, OpenAI, or another tuneloop. Implements `Engine`.

It asks for the list of models every few seconds, which tells whether the engine is up, what it serves, and whether it
was restarted. It refuses to know which of those names mean something else here; see `registry`.
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
from serving.engines.engine import AdapterPlace, EngineLimits, EngineState, OnProgress
from serving.engines.remote.client import LOOK_CONNECTIONS, RemoteAddress, RemoteClient, RemoteResponse, open_session
from serving.errors import EngineUnavailableError, ServingError

LOOK_S = 10.0
"""Seconds between two looks at an engine that is up; and at most between two at one that isn't."""
_LOOK_TIMEOUT_S = 10.0
_FIRST_LOOK_S = 5.0
"""How long the start of a server waits for an engine that it doesn't run."""
_MISSES = 2
"""So many looks in a row that find nothing: then it counts as down. One may have met a moment of much work."""
ELSEWHERE = BaseModel("elsewhere", Path("/"), "", {})
"""The base of an engine whose models aren't ours: nothing is known of it."""
ANY_LIMITS = EngineLimits(max_lora_rank=512, max_loras=64, max_cpu_loras=64, max_model_len=None)
"""What an engine may take that doesn't tell its limits; it refuses by itself what it can't take."""

logger = logging.getLogger(__name__)


class RemoteEngine:
    """One engine that someone else runs, and the task that looks at it."""

    def __init__(
        self, address: RemoteAddress, base: BaseModel = ELSEWHERE, *, limits: EngineLimits = ANY_LIMITS,
        look_s: float = LOOK_S,
    ) -> None:  # fmt: skip
        """base: one of ours that this engine serves, too, under the same name; its adapters are loaded there.

        look_s: seconds between two looks.
        """
        self.base, self.limits = base, limits
        self.on_up: Callable[[AdapterPlace], Awaitable[None]] | None = None
        """Called when it has come up, before anybody else may ask it. An error means that it isn't to be trusted."""
        self._address, self._look_s = address, look_s
        self._state = EngineState.STOPPED
        self._sessions: tuple[aiohttp.ClientSession, ...] = ()
        self._client: RemoteClient | None = None
        self._looking: asyncio.Task[None] | None = None
        self._doubted, self._looked = asyncio.Event(), asyncio.Event()
        self._models: tuple[str, ...] = ()
        self._told: set[str] = set()
        self._generation = self._misses = self._in_flight = 0
        self._next_look_at = 0.0
        self._started_at: float | None = None
        self._trouble: str | None = None

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life, as far as it can be seen from here."""
        return self._state

    @property
    def generation(self) -> int:
        """How many times it was found up again, or without the adapters that it had been told of."""
        return self._generation

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it listed last; those of an engine that went down are still its own."""
        return self._models

    @property
    def url(self) -> str:
        """Its address, which holds no key."""
        return self._address.url

    @property
    def restarts(self) -> int:
        """How many times it came back."""
        return max(0, self._generation - 1)

    @property
    def started_at(self) -> float | None:
        """Since when it answers, in Unix seconds; None while it doesn't."""
        return self._started_at if self._state is EngineState.READY else None

    @property
    def last_trouble(self) -> str | None:
        """Why it was down the last time; None if it never was."""
        return self._trouble

    @property
    def in_flight(self) -> int:
        """Requests of ours that it is answering."""
        return self._in_flight

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Begins to look at it. An engine that is down now may come up later, so that is no error."""
        if self._sessions:
            return
        self._state = EngineState.STARTING
        # Looks have a session of their own: in the other one they would wait for a connection, and be taken for misses.
        asking, looking = open_session(self._address), open_session(self._address, LOOK_CONNECTIONS)
        self._sessions = (asking, looking)
        self._client = RemoteClient(self._address, asking, self.base, self.limits)
        looker = RemoteClient(self._address, looking, self.base, self.limits)
        self._looking = asyncio.create_task(self._keep_looking(looker))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK_S):
                await self._looked.wait()

    async def stop(self) -> None:
        """Looks at it no more; it runs on, since it isn't ours."""
        if self._looking:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        for session in self._sessions:
            await session.close()
        self._looking = self._client = None
        self._sessions = ()
        self._state = EngineState.STOPPED

    async def is_healthy(self) -> bool:
        """Whether it answered when it was last looked at."""
        return self._state is EngineState.READY

    async def load_adapter(self, name: str, path: Path) -> None:
        """See `Engine.load_adapter`. The engine must see the directory at the same path."""
        await self._ready_client().load_adapter(name, path)
        self._told.add(name)

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`."""
        self._told.discard(name)
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
                    self._doubted.set()  # it may have been restarted, or lists the model no more
                yield response
        except EngineUnavailableError:
            self._doubted.set()
            raise
        finally:
            self._in_flight -= 1

    def _ready_client(self) -> RemoteClient:
        if self._client is not None and self._state is EngineState.READY:
            return self._client
        why = self._trouble or "it hasn't answered yet"
        raise EngineUnavailableError(
            f"The remote engine {self._address.id} is away: {why}", max(1.0, self._next_look_at - time.monotonic())
        )

    async def _keep_looking(self, client: RemoteClient) -> None:
        while True:
            self._doubted.clear()
            try:
                await self._look(client)
            except Exception:  # the outermost catcher of this task: without it nobody would look any more
                logger.exception("Looking at the remote engine %s met something unforeseen", self._address.id)
            self._looked.set()
            pause_s = min(2.0 ** (self._misses - 1), self._look_s) if self._misses else self._look_s
            self._next_look_at = time.monotonic() + pause_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._doubted.wait()

    async def _look(self, client: RemoteClient) -> None:
        told = set(self._told)
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                models = await client.model_names()
            if self._state is not EngineState.READY or not (told & self._told) <= set(models):
                await self._come_up(client)
        except (ServingError, TimeoutError) as error:
            self._miss(str(error) or f"It gave no list of models in {_LOOK_TIMEOUT_S:.0f} s.")
            return
        self._models, self._misses = models, 0
        if self._state is not EngineState.READY:
            self._state, self._started_at = EngineState.READY, time.time()
            logger.info("The remote engine %s is up, with %d models", self._address.id, len(models))

    async def _come_up(self, client: RemoteClient) -> None:
        """It is new, or has forgotten what it was told: nobody asks it before that has been made good."""
        self._state = EngineState.STARTING if self._generation == 0 else EngineState.DEAD
        self._generation += 1
        self._told.clear()
        if self.on_up:
            await self.on_up(Noting(client, self._told))

    def _miss(self, why: str) -> None:
        self._misses += 1
        if self._misses < _MISSES and self._state is EngineState.READY:
            return
        if self._state is not EngineState.DEAD or self._misses == 1:
            logger.warning("The remote engine %s is down: %s", self._address.id, why)
        self._state, self._trouble = EngineState.DEAD, why


class Noting:
    """The engine before anybody may ask it: what it is told of is noted. Implements `AdapterPlace`."""

    def __init__(self, client: RemoteClient, told: set[str]) -> None:
        self.base, self.limits = client.base, client.limits
        self.unload_adapter, self.request = client.unload_adapter, client.request
        self._client, self._told = client, told

    async def load_adapter(self, name: str, path: Path) -> None:
        """See `AdapterPlace.load_adapter`."""
        await self._client.load_adapter(name, path)
        self._told.add(name)
