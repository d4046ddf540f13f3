"""Following a stream over a real connection: in time, stopped, and cut off."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from tests.ui.running import running
from ui.client import Question, ServerClient
from ui.panes import Comparison
from ui.session import Session

ENDLESS = Question("endless", ("base", "tuned"), blind=False, temperature=0.0, max_tokens=64)
SHORT = Question("short", ("base", "tuned"), blind=False, temperature=0.0, max_tokens=64)
CLOSE_TIMEOUT_S = 5


def sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


class SlowServer:
    """Answers `endless` without an end and breaks off after one word on `short`; notes when a caller left."""

    def __init__(self) -> None:
        self.caller_left = threading.Event()

    def app(self, _url: str) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/comparisons")
        async def compare(body: dict[str, Any]) -> StreamingResponse:
            return StreamingResponse(self.stream(body["messages"][0]["content"] == "endless"))

        return app

    async def stream(self, endless: bool) -> AsyncIterator[bytes]:
        try:
            yield sse({"type": "comparison.created", "comparison_id": "cmp_1"})
            while True:
                yield sse({"type": "comparison.delta", "side": "left", "delta": "word "})
                if not endless:
                    return
                await asyncio.sleep(0.02)
        finally:
            self.caller_left.set()


@pytest.fixture
def slow_server() -> SlowServer:
    return SlowServer()


@pytest.fixture
def client(slow_server: SlowServer) -> Iterator[ServerClient]:
    with running(slow_server.app) as url:
        yield ServerClient(url)


async def follow(
    session: Session, client: ServerClient, question: Question, *, stop_after: int = 0
) -> list[Comparison]:
    states = []
    async with aclosing(session.follow(client, question, "")) as following:
        async for comparison in following:
            states.append(comparison)
            if stop_after and comparison.left.deltas >= stop_after:
                session.stop_requested = True
    return states


def test_words_are_drawn_while_more_are_coming_and_stop_ends_both_sides(
    client: ServerClient, slow_server: SlowServer
) -> None:
    states = asyncio.run(follow(Session(), client, ENDLESS, stop_after=5))
    assert states[0].left.phase == "waiting"
    assert any(state.left.phase == "writing" for state in states)
    assert [pane.phase for pane in states[-1].panes] == ["stopped", "stopped"]
    assert states[-1].left.content.startswith("word word ")
    assert slow_server.caller_left.wait(CLOSE_TIMEOUT_S)


def test_a_tab_that_goes_away_closes_the_connection(client: ServerClient, slow_server: SlowServer) -> None:
    async def leave() -> Session:
        session = Session()
        async with aclosing(session.follow(client, ENDLESS, "")) as following:
            async for comparison in following:
                if comparison.left.deltas:
                    break
        return session

    session = asyncio.run(leave())
    assert slow_server.caller_left.wait(CLOSE_TIMEOUT_S)
    assert not session.comparison.running


def test_a_stream_that_breaks_off_keeps_its_words_and_says_so(client: ServerClient) -> None:
    last = asyncio.run(follow(Session(), client, SHORT))[-1]
    assert last.left.content == "word "
    assert [pane.problem.kind for pane in last.panes if pane.problem] == ["cut_off", "cut_off"]


def test_two_tabs_never_mix(client: ServerClient) -> None:
    async def both() -> tuple[Session, Session]:
        one, two = Session(), Session()
        await asyncio.gather(follow(one, client, ENDLESS, stop_after=3), follow(two, client, SHORT))
        return one, two

    one, two = asyncio.run(both())
    assert (one.comparison.left.phase, two.comparison.left.phase) == ("stopped", "failed")
    assert two.comparison.left.content == "word "
