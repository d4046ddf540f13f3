"""An engine's answer over HTTP: bytes as they are, errors in OpenAI's words, and an end when the caller leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from server.access.keys import Caller
from server.inference.ask import Inference
from server.wire.disconnect import wait_for_disconnect
from server.wire.errors import BadRequest, from_serving
from serving import ServingError

_ENGINES_OWN = ("kv_transfer_params", "ec_transfer_params")
"""What vLLM writes into a request's `vllm_xargs` itself, and fails over where a client has."""
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")


def model_of(body: bytes) -> str:
    """The body's `model`.

    Raises:
        BadRequest: the body is no JSON object, names no model, or holds what is the engine's own.
    """
    try:
        content = _parsed(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(
            f"The request body is not valid JSON: {error}. Send a JSON object such as "
            '{"model": "…", "messages": [{"role": "user", "content": "…"}]}.',
            code="invalid_json",
        ) from error
    if not isinstance(content, dict):
        raise BadRequest('The request body must be a JSON object, like {"model": …}.', code="invalid_json")
    model = content.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest(
            "You must provide a model parameter, a string: GET /v1/models lists the names.",
            param="model",
            code="missing_required_parameter" if model is None else "invalid_type",
        )
    given = content.get("vllm_xargs")
    extra = given if isinstance(given, dict) else {}
    for name in _ENGINES_OWN:
        if name in extra:
            raise BadRequest(
                f"vllm_xargs can't hold {name}: engines use it among themselves. Leave it out.",
                param=f"vllm_xargs.{name}",
                code="unknown_parameter",
            )
    return model


def _parsed(body: bytes) -> object:
    """What vLLM's own parser would make of it, in a fraction of the time: a body with a picture is megabytes."""
    try:
        return orjson.loads(body)
    except ValueError:  # what it alone refuses, such as NaN, is vLLM's to judge
        content = json.loads(body)
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # vLLM takes it, can't send it to its engine, and answers 500
        raise ValueError("it holds half of a surrogate pair, as of a broken emoji") from error
    return content


class EngineAnswer(Response):
    """Streams the engine's answer to the caller, and stops the engine when the caller leaves."""

    def __init__(self, inference: Inference, caller: Caller, path: str, model: str, body: bytes) -> None:
        super().__init__()
        self._inference, self._caller = inference, caller
        self._path, self._model, self._body = path, model, body
        self.has_begun = False
        """Whether the caller has got anything of it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = asyncio.create_task(self._answer(send))
        leaving = asyncio.create_task(wait_for_disconnect(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answering, leaving):
                if not task.done():
                    task.cancel()
            await asyncio.wait({answering, leaving})
        if not answering.cancelled():
            answering.result()

    async def _answer(self, send: Send) -> None:
        async with self._inference.ask(self._caller, self._path, self._model, self._body) as answer:
            content_type = answer.headers.get("content-type", "application/json")
            is_stream = content_type.startswith("text/event-stream")
            headers = [(b"content-type", content_type.encode("latin-1"))]
            if length := answer.headers.get("content-length"):
                headers.append((b"content-length", length.encode("latin-1")))
            self.has_begun = True
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            try:
                async for chunk in whole_events(answer.chunks()) if is_stream else answer.chunks():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except ServingError as error:
                if not is_stream:
                    raise  # the length is announced already: a broken connection is the honest answer
                await send({"type": "http.response.body", "body": from_serving(error).event(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def whole_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks of an event stream, cut where events end
    (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    An engine that dies may leave half an event behind. Passed on, it would swallow the error event that follows.
    """
    begun = b""
    async for chunk in chunks:
        chunk = begun + chunk if begun else chunk
        if chunk.endswith(_EVENT_ENDS):
            begun = b""
            yield chunk
            continue
        ended = max(chunk.rfind(end) + len(end) if end in chunk else 0 for end in _EVENT_ENDS)
        begun = chunk[ended:]
        if ended:
            yield chunk[:ended]
    if begun:
        yield begun
