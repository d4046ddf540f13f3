"""Generates the sides of a comparison at once, as events. What it heard is what gets stored: no client reports it.

Knows nothing of HTTP answers and of the database; the route joins them.
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
    """One model's answer while it comes in."""

    model: str
    """As it was asked for; where that is an alias, what it stands for, once it is asked."""
    content: str = ""
    finish_reason: str | None = None
    completion_tokens: int | None = None
    time_to_first_token_s: float | None = None
    duration_s: float | None = None
    error: APIError | None = None
    answered_by: str | None = None
    messages: Sequence[Any] = ()
    """What the model is asked."""
    started_s: float = field(default_factory=time.perf_counter)

    def stored(self) -> dict[str, Any]:
        """What the comparison keeps of this side."""
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
    """Events of all sides as they come, in the words of the public contract; `sides` holds the answers at the end.

    sampling: parameters, the same for all sides.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def run(name: str, side: Side) -> None:
        try:
            async for event in answer(inference, caller, sampling, side):
                events.put_nowait((_unnamed(event, side) if blind else event) | {"side": name})
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


def _unnamed(event: Event, side: Side) -> Event:
    """The event without what tells the model: its name, and the words of its error, which the side loses as well."""
    if side.error is not None:
        logger.warning("A side of a blind comparison failed, as %s: %s", side.model, side.error.message)
        side.error = _told_blind(side.error)
        return event | side.error.body()
    return event | ({"model": None} if "model" in event else {})


def _told_blind(error: APIError) -> APIError:
    """The same error without a word that an engine or a model has put into its message."""
    told = APIError(
        f"This side could not answer ({error.code or error.error_type}), and a blind comparison doesn't tell whose it "
        "is. Ask again; if it fails again, shorten the conversation, or compare open, where the whole reason is told.",
        code=error.code,
        headers=error.headers,
    )
    told.status, told.error_type = error.status, error.error_type
    return told


async def answer(inference: Inference, caller: Caller, sampling: Mapping[str, Any], side: Side) -> AsyncIterator[Event]:
    """Events of one side as they come; `side` holds the answer at the end, or its error."""
    side.model = inference.registry.version_of(side.model)  # what is rated and stored: an alias will mean another one
    asked = {"messages": list(side.messages), **sampling, "model": side.model}
    body = asked | {"stream": True, "n": 1, "stream_options": {"include_usage": True}}
    side.started_s = time.perf_counter()
    try:
        encoded = json.dumps(body).encode()
        async with inference.ask(caller, "/v1/chat/completions", side.model, encoded) as response:
            async for chunk in _data(response.chunks()):
                delta = _take(side, chunk)
                if delta:
                    yield {"type": "comparison.delta", "delta": delta}
        _check(side)
    except APIError as error:
        side.error = error
        yield {"type": "comparison.side_failed", **error.body()}
        return
    side.duration_s = round(time.perf_counter() - side.started_s, 4)
    yield {"type": "comparison.side_done"} | {key: value for key, value in side.stored().items() if key != "content"}


def _check(side: Side) -> None:
    if side.answered_by != side.model:
        raise ServerError(
            f"The engine answered as {side.answered_by!r} where {side.model!r} was asked; the answer is thrown away.",
            code="wrong_model_answered",
        )
    if side.finish_reason is None:
        raise ServerError("The engine's answer broke off before its end. Ask again.", code="answer_broken_off")


def _take(side: Side, chunk: dict[str, Any]) -> str:
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


async def _data(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each `data:` line of a server-sent event stream, without its closing `[DONE]`."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and line[5:].strip() not in (b"", b"[DONE]"):
                yield json.loads(line[5:])
