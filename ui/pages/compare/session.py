"""The state of a tab of the Compare page, and how it follows the answers to one question."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from ui.frame.session import FRAME_S, Session
from ui.pages.compare.calls import Question, Sampling, ask
from ui.pages.compare.conversation import Conversation
from ui.server_client import Problem, ServerClient, UIError

_IDLE_FRAMES = 5  # without news, update the clock every fifth frame


@dataclass
class CompareSession(Session):
    """One tab's conversation and what the user is doing with it."""

    conversation: Conversation = field(default_factory=Conversation)
    shared: bool = False
    """Opened by a share link: read-only, until the user continues from there."""
    editing: int | None = None
    """The turn whose prompt is being edited."""
    differences: bool = False
    """Whether differences are highlighted."""
    stop_requested: bool = False
    drawn: dict[int, str] = field(default_factory=dict)
    """Each pane's HTML in the browser, so that only changes are sent."""
    asked: int = 0
    """Number of questions sent in this tab. Each request contains the number that the tab has seen, so that a question
    that is sent twice, for example on a slow network, is recognized."""

    def ask(self, asked: Conversation) -> None:
        """Start the question at once, so that no second one can interfere."""
        self.conversation, self.editing, self.stop_requested = asked, None, False
        self.asked += 1

    async def follow(self, client: ServerClient, api_key: str, sampling: Sampling) -> AsyncGenerator[Conversation]:
        """Yield each state of the last turn that should be drawn; in the last one, it is no longer running.

        It ends early if `stop_requested` is set. Closing the iterator, as Gradio does when the tab is closed, closes
        the connection to the server, which then stops all answers.
        """
        mine = self.asked
        question = Question(self.conversation.models, self.conversation.histories(), sampling)
        arrived: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        reader = asyncio.create_task(_read(client, question, api_key, arrived))
        try:
            yield self.conversation
            async for conversation in self._frames(reader, arrived):
                yield conversation
        finally:
            if self.asked == mine:  # otherwise the user has sent another question meanwhile
                self.conversation = self.conversation.stop()
            await _end(reader)

    async def _frames(
        self, reader: asyncio.Task[Problem | None], arrived: asyncio.Queue[dict[str, Any]]
    ) -> AsyncGenerator[Conversation]:
        idle = 0
        while not self.stop_requested:
            await asyncio.sleep(FRAME_S)
            finished = reader.done()  # before draining: what arrived before the end must be drawn, too
            idle = 0 if self._drain(arrived) else idle + 1
            if finished:
                break
            if idle % _IDLE_FRAMES == 0:
                yield self.conversation
        if self.stop_requested:
            self.conversation = self.conversation.stop()
        else:
            turn = self.conversation.turns[-1].end(reader.result() or Problem("cut_off"))
            self.conversation = self.conversation.with_last(turn)
        yield self.conversation

    def _drain(self, arrived: asyncio.Queue[dict[str, Any]]) -> bool:
        if arrived.empty():
            return False
        now_s, turn = time.monotonic(), self.conversation.turns[-1]
        while not arrived.empty():
            turn = turn.apply(arrived.get_nowait(), now_s)
        self.conversation = self.conversation.with_last(turn)
        return True


async def _read(
    client: ServerClient, question: Question, api_key: str, arrived: asyncio.Queue[dict[str, Any]]
) -> Problem | None:
    try:
        async with aclosing(ask(client, api_key, question)) as events:
            async for event in events:
                arrived.put_nowait(event)
    except UIError as error:
        return error.problem
    return None


async def _end(reader: asyncio.Task[Problem | None]) -> None:
    reader.cancel()
    with suppress(asyncio.CancelledError):
        await reader
