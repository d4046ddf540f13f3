"""What one browser tab holds on the server while it is open, and how it follows one comparison.

Gradio keeps one `Session` per tab, so two tabs never share anything. It is mutable on purpose: Stop, a change of
language and the running comparison are handlers of the same tab that run beside each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from ui.client import Model, Problem, Question, Readiness, ServerClient, UIError
from ui.i18n import Language
from ui.panes import Comparison

FRAME_S = 0.06
"""Time between two drawings: text flows smoothly, and a fast model doesn't flood the browser."""
_IDLE_FRAMES = 5  # with nothing new, draw the clock every fifth frame


@dataclass
class Session:
    """One tab's state."""

    language: Language = "en"
    comparison: Comparison = field(default_factory=Comparison)
    stop_requested: bool = False
    voting: bool = False
    """A vote is on its way; a second click meanwhile does nothing."""
    readiness: Readiness = "ready"
    models: tuple[Model, ...] = ()
    """The served models when last asked."""
    models_problem: Problem | None = None
    """Why they could not be listed."""

    async def survey(self, client: ServerClient, api_key: str) -> None:
        """Asks the server anew for its readiness and its models."""
        self.readiness = await client.readiness()
        try:
            self.models, self.models_problem = tuple(await client.models(api_key)), None
        except UIError as error:
            self.models, self.models_problem = (), error.problem

    async def follow(self, client: ServerClient, question: Question, api_key: str) -> AsyncGenerator[Comparison]:
        """Each state of `question`'s comparison that is worth drawing; the last one is not running any more.

        Ends early when `stop_requested` is set. Closing the iterator, as Gradio does when the tab goes, closes the
        connection to the server, which then stops both generations.
        """
        self.stop_requested = False
        self.comparison = Comparison.ask(question, time.monotonic())
        arrived: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        reader = asyncio.create_task(_read(client, question, api_key, arrived))
        try:
            yield self.comparison
            async for comparison in self._frames(reader, arrived):
                yield comparison
        finally:
            await _end(reader)
            self.comparison = self.comparison.stop()

    async def _frames(
        self, reader: asyncio.Task[Problem | None], arrived: asyncio.Queue[dict[str, Any]]
    ) -> AsyncGenerator[Comparison]:
        idle = 0
        while not self.stop_requested:
            await asyncio.sleep(FRAME_S)
            finished = reader.done()  # before draining: what came before the end must be drawn too
            idle = 0 if self._drain(arrived) else idle + 1
            if finished:
                break
            if idle % _IDLE_FRAMES == 0:
                yield self.comparison
        if self.stop_requested:
            self.comparison = self.comparison.stop()
        else:
            self.comparison = self.comparison.fail(reader.result() or Problem("cut_off"))
        yield self.comparison

    def _drain(self, arrived: asyncio.Queue[dict[str, Any]]) -> bool:
        changed = False
        now_s = time.monotonic()
        while not arrived.empty():
            self.comparison = self.comparison.apply(arrived.get_nowait(), now_s)
            changed = True
        return changed


async def _read(
    client: ServerClient, question: Question, api_key: str, arrived: asyncio.Queue[dict[str, Any]]
) -> Problem | None:
    try:
        async with aclosing(client.compare(question, api_key)) as events:
            async for event in events:
                arrived.put_nowait(event)
    except UIError as error:
        return error.problem
    return None


async def _end(reader: asyncio.Task[Problem | None]) -> None:
    reader.cancel()
    with suppress(asyncio.CancelledError):
        await reader
