"""The way from a model's name to the engine's answer: held adapter, opened request, errors in OpenAI's words.

An answer is handed out when its first bytes are there. An engine that dies before that is asked once more, when it is
up again: nothing has been told to the client yet, so nothing can be told twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from server.access import checkpoints
from server.access.keys import Caller
from server.inference.metrics.counts import Counted
from server.inference.metrics.models import ModelMetrics
from server.storage.database import Database
from server.wire.errors import BadRequest, from_engine, from_serving
from serving import Engine, EngineResponse, EngineState, EngineUnavailableError, Registry, ServingError

_JSON = {"content-type": "application/json"}
_STRUCTURED = (b'"response_format"', b'"structured_outputs"', b'"guided_')
"""vLLM answers 500 to a structure that it can't use, and goes on."""
_NOTICED_WITHIN_S = 2.0
"""A connection breaks before anybody knows that the engine ended: its restart shows within so many seconds."""


@dataclass(frozen=True)
class _Attempt:
    """One try at a request."""

    engine: Engine
    generation: int
    """Which of the engine's lives it was asked in."""
    counted: Counted


class ModelAnswer:
    """An engine's answer, its status below 400. Counts what passes through it."""

    def __init__(self, answer: EngineResponse, counted: Counted) -> None:
        self.status = answer.status
        """HTTP status code."""
        self.headers: Mapping[str, str] = answer.headers
        """Header fields; look-ups ignore case."""
        self._first: bytes | None = None
        self._chunks = answer.chunks()
        self._counted = counted

    async def begin(self) -> None:
        """Returns when the first bytes are there. Raises: EngineUnavailableError, `before_answer` if it may be asked
        once more."""
        try:
            self._first = await self._next()
        except EngineUnavailableError as error:
            self._counted.outcome = "unavailable"
            raise error

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, unparsed. Raises: EngineUnavailableError if the engine goes away before its end."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk, self._first = self._first, None
        if chunk is None:
            chunk = await self._next()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _next(self) -> bytes:
        """The next bytes; none at the end."""
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._counted.outcome = "ok"
            return b""
        except ServingError:
            self._counted.outcome = "cut"
            raise
        self._counted.take(chunk)
        return chunk


@dataclass(frozen=True)
class Inference:
    """Asks whichever engine has a model."""

    registry: Registry
    database: Database
    metrics: ModelMetrics

    @asynccontextmanager
    async def ask(self, caller: Caller, path: str, model: str, body: bytes) -> AsyncIterator[ModelAnswer]:
        """The engine's answer, its status below 400; the model's adapter stays where it is until the context is left.

        Raises:
            APIError: the model is unknown to this caller, the engine is away, or it refused the request.
        """
        try:
            await checkpoints.check_access(self.database, self.registry, caller, model)
            async with AsyncExitStack() as held:
                yield await self._ask_twice(held, path, model, body)
        except ServingError as error:
            raise from_serving(error) from error

    async def _ask_twice(self, held: AsyncExitStack, path: str, model: str, body: bytes) -> ModelAnswer:
        """The answer, its first bytes there; asked for twice where the engine died before them."""
        attempts: list[_Attempt] = []
        try:
            return await self._ask_once(held, path, model, body, attempts)
        except EngineUnavailableError as error:
            if not error.before_answer:
                raise
        if attempts:  # else the engine went away while the adapter was being loaded
            attempts[0].counted.outcome = "asked_again"
        await held.aclose()
        if attempts:
            await _wait_until_noticed(attempts[0])
        return await self._ask_once(held, path, model, body, attempts)

    async def _ask_once(
        self, held: AsyncExitStack, path: str, model: str, body: bytes, attempts: list[_Attempt]
    ) -> ModelAnswer:
        with self.metrics.resolving():
            lease = await held.enter_async_context(self.registry.lease(model))
        counted = held.enter_context(self.metrics.request(lease.name))
        attempts.append(_Attempt(lease.engine, lease.engine.generation, counted))
        sent = _name_version(lease.name, model, body)
        response = await held.enter_async_context(lease.engine.request("POST", path, body=sent, headers=_JSON))
        if response.status >= 400:
            message = await response.read()
            if response.status == HTTPStatus.NOT_FOUND and not lease.is_known():
                raise EngineUnavailableError("The engine was restarted meanwhile. Try again.", 1.0, before_answer=True)
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR and any(key in sent for key in _STRUCTURED):
                raise BadRequest(
                    "The engine couldn't make a grammar of the structure that was asked for. Check the schema or "
                    "grammar in response_format or structured_outputs: references must lead somewhere, and rules must "
                    "end.",
                    code="invalid_value",
                )
            raise from_engine(response.status, message)
        answer = ModelAnswer(response, counted)
        await answer.begin()
        return answer


async def _wait_until_noticed(attempt: _Attempt) -> None:
    """Returns when the engine isn't taken for a running one any more, or runs again: requests then wait for it."""
    engine, until_s = attempt.engine, asyncio.get_running_loop().time() + _NOTICED_WITHIN_S
    while engine.state is EngineState.READY and engine.generation == attempt.generation:
        if asyncio.get_running_loop().time() > until_s:
            return
        await asyncio.sleep(0.02)


def _name_version(version: str, model: str, body: bytes) -> bytes:
    """The body with the version that answers as its `model`; as it is where that is what it says."""
    if version == model:
        return body
    try:
        return json.dumps({**json.loads(body), "model": version}).encode()
    except RecursionError as error:
        raise BadRequest("The request body is nested too deeply. Send a flatter one.", code="invalid_json") from error
