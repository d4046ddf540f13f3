"""An engine's answer as an HTTP response: unchanged bytes, OpenAI's errors, cancelled when the client disconnects."""

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

_ENGINE_PARAMETERS = ("kv_transfer_params", "ec_transfer_params")
"""Parameters that vLLM itself puts into `vllm_xargs`; it fails if a client sends them."""
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")


def read_model(body: bytes) -> str:
    """Return the body's `model`.

    Raises:
        BadRequest: the body isn't a JSON object, names no model, or has a parameter that only engines may set.
    """
    try:
        content = _parse_json(body)
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
            "You must provide a model parameter, a string. GET /v1/models lists the models.",
            param="model",
            code="missing_required_parameter" if model is None else "invalid_type",
        )
    xargs = content.get("vllm_xargs")
    extra = xargs if isinstance(xargs, dict) else {}
    for name in _ENGINE_PARAMETERS:
        if name in extra:
            raise BadRequest(
                f"vllm_xargs must not contain {name}: it is reserved for engines. Leave it out.",
                param=f"vllm_xargs.{name}",
                code="unknown_parameter",
            )
    return model


def _parse_json(body: bytes) -> object:
    """Parse the body as vLLM would, but much faster: a body with an image has megabytes."""
    try:
        return orjson.loads(body)
    except ValueError:  # orjson is stricter, for example about NaN, and vLLM decides
        content = json.loads(body)
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # vLLM accepts it, fails to pass it to its engine, and answers 500
        raise ValueError("it contains half of a surrogate pair (a broken emoji, for example)") from error
    return content


class EngineAnswer(Response):
    """Streams the engine's answer to the client, and cancels it when the client disconnects."""

    def __init__(self, inference: Inference, caller: Caller, path: str, model: str, body: bytes) -> None:
        super().__init__()
        self._inference, self._caller = inference, caller
        self._path, self._model, self._body = path, model, body
        self.has_begun = False
        """Whether the client has received anything of it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer_task = asyncio.create_task(self._stream(send))
        disconnect_task = asyncio.create_task(wait_for_disconnect(receive))
        try:
            await asyncio.wait({answer_task, disconnect_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answer_task, disconnect_task):
                if not task.done():
                    task.cancel()
            await asyncio.wait({answer_task, disconnect_task})
        if not answer_task.cancelled():
            answer_task.result()

    async def _stream(self, send: Send) -> None:
        async with self._inference.ask(self._caller, self._path, self._model, self._body) as answer:
            content_type = answer.headers.get("content-type", "application/json")
            is_stream = content_type.startswith("text/event-stream")
            headers = [(b"content-type", content_type.encode("latin-1"))]
            if length := answer.headers.get("content-length"):
                headers.append((b"content-length", length.encode("latin-1")))
            self.has_begun = True
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            try:
                async for chunk in split_at_events(answer.chunks()) if is_stream else answer.chunks():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except ServingError as error:
                if not is_stream:
                    raise  # the length has already been sent, so the connection must break
                await send({"type": "http.response.body", "body": from_serving(error).event(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def split_at_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the bytes of an event stream, split only at the ends of events.

    An engine that dies may leave half an event behind. Passed on, it would swallow the error event that follows.
    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    pending = b""
    async for chunk in chunks:
        chunk = pending + chunk if pending else chunk
        if chunk.endswith(_EVENT_ENDS):
            pending = b""
            yield chunk
            continue
        complete = max(chunk.rfind(end) + len(end) if end in chunk else 0 for end in _EVENT_ENDS)
        pending = chunk[complete:]
        if complete:
            yield chunk[:complete]
    if pending:
        yield pending
