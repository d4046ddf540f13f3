"""Generates the sides of a comparison concurrently, as events.

What is stored is what the engine sent, not what a client reports. The route streams the events and stores the sides.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.access.keys import Caller
from server.inference.ask import Inference
from server.wire.errors import APIError, ServerError

Event = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass
class Side:
    """One model's answer while it is generated."""

    model: str
    """As requested; an alias is replaced by its version when generation starts."""
    content: str = ""
    finish_reason: str | None = None
    completion_tokens: int | None = None
    time_to_first_token_s: float | None = None
    duration_s: float | None = None
    error: APIError | None = None
    answered_by: str | None = None
    messages: Sequence[Any] = ()
    """The messages that are sent to the model."""
    started_s: float = field(default_factory=time.perf_counter)

    def to_record(self) -> dict[str, Any]:
        """Return what the comparison stores of this side."""
        return {
            "model": self.model,
            "content": self.content,
            "finish_reason": self.finish_reason,
            "completion_tokens": self.completion_tokens,
            "time_to_first_token_s": self.time_to_first_token_s,
            "duration_s": self.duration_s,
        }


async def generate(
    inference: Inference, caller: Caller, sampling: Mapping[str, Any], sides: Mapping[str, Side], *, blind: bool
) -> AsyncIterator[Event]:
    """Yield the events of all sides, as in the public API; `sides` has the answers at the end.

    sampling: parameters, the same for all sides.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def run(name: str, side: Side) -> None:
        try:
            async for event in generate_side(inference, caller, sampling, side):
                events.put_nowait((_hide_model(event, side) if blind else event) | {"side": name})
        finally:
            events.put_nowait(None)

    tasks = [asyncio.create_task(run(name, side)) for name, side in sides.items()]
    try:
        running = len(tasks)
        while running:
            event = await events.get()
            if event is None:
                running -= 1
            else:
                yield event
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _hide_model(event: Event, side: Side) -> Event:
    """Return the event without the model's name and without the error's message, which is also removed from the
    side."""
    if side.error is not None:
        logger.warning("A side of a blind comparison failed, as %s: %s", side.model, side.error.message)
        side.error = _hide_error(side.error)
        return event | side.error.body()
    return event | {name: None for name in ("model", "requested_model") if name in event}


def _hide_error(error: APIError) -> APIError:
    """Return the error without any text from an engine or a model."""
    hidden = APIError(
        f"This side couldn't answer ({error.code or error.error_type}); a blind comparison doesn't reveal which "
        "model it is. Try again; if it fails again, shorten the conversation, or use an open comparison, which "
        "shows the full reason.",
        code=error.code,
        headers=error.headers,
    )
    hidden.status, hidden.error_type = error.status, error.error_type
    return hidden


async def generate_side(
    inference: Inference, caller: Caller, sampling: Mapping[str, Any], side: Side
) -> AsyncIterator[Event]:
    """Yield the events of one side; `side` has the answer or its error at the end."""
    requested = side.model
    side.model = inference.registry.version_of(requested)  # the version is stored, as an alias may be moved
    request = {"messages": list(side.messages), **sampling, "model": side.model}
    body = request | {"stream": True, "n": 1, "stream_options": {"include_usage": True}}
    side.started_s = time.perf_counter()
    try:
        encoded = json.dumps(body).encode()
        async with inference.ask(caller, "/v1/chat/completions", side.model, encoded) as response:
            async for chunk in _read_events(response.chunks()):
                delta = _add_chunk(side, chunk)
                if delta:
                    yield {"type": "comparison.delta", "delta": delta}
        _check_side(side)
    except APIError as error:
        side.error = error
        yield {"type": "comparison.side_failed", **error.body()}
        return
    side.duration_s = round(time.perf_counter() - side.started_s, 4)
    record = {key: value for key, value in side.to_record().items() if key != "content"}
    yield {"type": "comparison.side_done", "requested_model": requested} | record


def _check_side(side: Side) -> None:
    if side.answered_by != side.model:
        raise ServerError(
            f"The engine answered as {side.answered_by!r} instead of {side.model!r}; the answer was discarded.",
            code="wrong_model_answered",
        )
    if side.finish_reason is None:
        raise ServerError("The engine's answer was interrupted. Try again.", code="answer_broken_off")


def _add_chunk(side: Side, chunk: dict[str, Any]) -> str:
    if "error" in chunk:
        raise ServerError(str(chunk["error"].get("message", "The engine failed.")), code="engine_failed")
    side.answered_by = chunk.get("model", side.answered_by)
    if chunk.get("usage"):
        side.completion_tokens = chunk["usage"].get("completion_tokens")
    if not chunk.get("choices"):
        return ""
    choice = chunk["choices"][0]
    side.finish_reason = choice.get("finish_reason") or side.finish_reason
    delta = choice.get("delta", {}).get("content") or ""
    if delta and side.time_to_first_token_s is None:
        side.time_to_first_token_s = round(time.perf_counter() - side.started_s, 4)
    side.content += delta
    return delta


async def _read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON of each `data:` line of a server-sent event stream, without the final `[DONE]`."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and line[5:].strip() not in (b"", b"[DONE]"):
                yield json.loads(line[5:])
