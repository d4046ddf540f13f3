"""Sends a request to the engine that has the model: leases the adapter and translates errors into OpenAI's.

An answer is returned once its first bytes have arrived. If the engine dies before that, the request is sent once more
when the engine is up again: the client hasn't received anything yet, so nothing can be duplicated.
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
from server.inference.metrics.counts import RequestCounts
from server.inference.metrics.models import ModelMetrics
from server.storage.database import Database
from server.wire.errors import BadRequest, from_engine, from_serving
from serving import Engine, EngineResponse, EngineState, EngineUnavailableError, Registry, ServingError

_JSON = {"content-type": "application/json"}
_STRUCTURE_KEYS = (b'"response_format"', b'"structured_outputs"', b'"guided_')
"""Parameters for structured output; vLLM answers 500 to a structure that it can't use, and keeps running."""
_RESTART_NOTICE_S = 2.0
"""A connection breaks before the engine's end is noticed; its restart is visible within this many seconds."""


@dataclass(frozen=True)
class _Attempt:
    """One attempt at a request."""

    engine: Engine
    generation: int
    """The engine's generation when the request was sent."""
    counts: RequestCounts


class ModelAnswer:
    """An engine's answer with a status below 400. Counts what passes through it."""

    def __init__(self, answer: EngineResponse, counts: RequestCounts) -> None:
        self.status = answer.status
        """HTTP status code."""
        self.headers: Mapping[str, str] = answer.headers
        """Header fields; lookups ignore case."""
        self._first: bytes | None = None
        self._chunks = answer.chunks()
        self._counts = counts

    async def wait_for_first_chunk(self) -> None:
        """Wait for the first bytes. Raises: EngineUnavailableError, with `before_answer` if the request may be
        retried."""
        try:
            self._first = await self._read_chunk()
        except EngineUnavailableError as error:
            self._counts.outcome = "unavailable"
            raise error

    def chunks(self) -> AsyncIterator[bytes]:
        """Return the body as it arrives, unparsed. Raises: EngineUnavailableError if the engine ends before it is
        complete."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk, self._first = self._first, None
        if chunk is None:
            chunk = await self._read_chunk()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _read_chunk(self) -> bytes:
        """Return the next bytes; empty at the end."""
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._counts.outcome = "ok"
            return b""
        except ServingError:
            self._counts.outcome = "cut"
            raise
        self._counts.add_chunk(chunk)
        return chunk


@dataclass(frozen=True)
class Inference:
    """Sends requests to the engine that has the model."""

    registry: Registry
    database: Database
    metrics: ModelMetrics

    @asynccontextmanager
    async def ask(self, caller: Caller, path: str, model: str, body: bytes) -> AsyncIterator[ModelAnswer]:
        """Yield the engine's answer, with a status below 400; the model's adapter stays loaded until the context is
        left.

        Raises:
            APIError: the model is unknown to this caller, the engine is unavailable, or it rejected the request.
        """
        try:
            await checkpoints.check_access(self.database, self.registry, caller, model)
            async with AsyncExitStack() as stack:
                yield await self._ask_with_retry(stack, path, model, body)
        except ServingError as error:
            raise from_serving(error) from error

    async def _ask_with_retry(self, stack: AsyncExitStack, path: str, model: str, body: bytes) -> ModelAnswer:
        """Return the answer once its first bytes have arrived; sends the request twice if the engine died before
        them."""
        attempts: list[_Attempt] = []
        try:
            return await self._ask_once(stack, path, model, body, attempts)
        except EngineUnavailableError as error:
            if not error.before_answer:
                raise
        if attempts:  # otherwise the engine ended while the adapter was being loaded
            attempts[0].counts.outcome = "asked_again"
        await stack.aclose()
        if attempts:
            await _wait_for_restart_notice(attempts[0])
        return await self._ask_once(stack, path, model, body, attempts)

    async def _ask_once(
        self, stack: AsyncExitStack, path: str, model: str, body: bytes, attempts: list[_Attempt]
    ) -> ModelAnswer:
        with self.metrics.count_resolving():
            lease = await stack.enter_async_context(self.registry.lease(model))
        counts = stack.enter_context(self.metrics.count_request(lease.name))
        attempts.append(_Attempt(lease.engine, lease.engine.generation, counts))
        request_body = _replace_model(lease.name, model, body)
        response = await stack.enter_async_context(lease.engine.request("POST", path, body=request_body, headers=_JSON))
        if response.status >= 400:
            message = await response.read()
            if response.status == HTTPStatus.NOT_FOUND and not lease.is_known():
                raise EngineUnavailableError(
                    "The engine was restarted during the request. Try again.", 1.0, before_answer=True
                )
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR and any(
                key in request_body for key in _STRUCTURE_KEYS
            ):
                raise BadRequest(
                    "The engine couldn't compile the requested structure. Check the schema or grammar in "
                    "response_format or structured_outputs: references must resolve, and rules must terminate.",
                    code="invalid_value",
                )
            raise from_engine(response.status, message)
        answer = ModelAnswer(response, counts)
        await answer.wait_for_first_chunk()
        return answer


async def _wait_for_restart_notice(attempt: _Attempt) -> None:
    """Wait until the engine's end has been noticed, or it runs again: requests then wait for it."""
    engine, until_s = attempt.engine, asyncio.get_running_loop().time() + _RESTART_NOTICE_S
    while engine.state is EngineState.READY and engine.generation == attempt.generation:
        if asyncio.get_running_loop().time() > until_s:
            return
        await asyncio.sleep(0.02)


def _replace_model(version: str, model: str, body: bytes) -> bytes:
    """Return the body with the resolved version as its `model`; unchanged if it already says so."""
    if version == model:
        return body
    try:
        return json.dumps({**json.loads(body), "model": version}).encode()
    except RecursionError as error:
        raise BadRequest("The request body is nested too deeply. Send a flatter one.", code="invalid_json") from error
