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
from ui.pages.compare.calls import Sampling
from ui.pages.compare.conversation import Conversation
from ui.pages.compare.session import CompareSession
from ui.server_client import ServerClient

SAMPLING = Sampling(0.0, 1.0, 64, seed=7)
CLOSE_TIMEOUT_S = 5


def ask(prompt: str) -> Conversation:
    return Conversation().ask(prompt, ("base", "tuned"), "", 0.0)


def sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


class SlowServer:
    """Answers `endless` without an end, breaks off after one word on `short` and takes long to store what it says on
    `whole`; notes what came and who left."""

    def __init__(self) -> None:
        self.caller_left = threading.Event()
        self.bodies: list[dict[str, Any]] = []

    def app(self, _url: str) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/comparisons")
        async def compare(body: dict[str, Any]) -> StreamingResponse:
            self.bodies.append(body)
            messages = body.get("messages") or body["histories"][0]
            prompt = messages[-1]["content"]
            return StreamingResponse(self.whole(body) if prompt == "whole" else self.stream(prompt == "endless"))

        return app

    async def whole(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        number = len(self.bodies)
        for side, model in zip(("left", "right"), body["models"], strict=True):
            yield sse({"type": "comparison.delta", "side": side, "delta": f"answer {number}"})
            yield sse({"type": "comparison.side_done", "side": side, "model": model, "finish_reason": "stop"})
        await asyncio.sleep(0.5)
        yield sse({"type": "comparison.completed", "comparison": {"id": f"cmp_{number}"}})
        yield b"data: [DONE]\n\n"

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
    session: CompareSession, client: ServerClient, conversation: Conversation, *, stop_after: int = 0
) -> list[Conversation]:
    states = []
    session.ask(conversation)
    async with aclosing(session.follow(client, "", SAMPLING)) as following:
        async for state in following:
            states.append(state)
            if stop_after and state.turns[-1].panes[0].deltas >= stop_after:
                session.stop_requested = True
    return states


def test_words_are_drawn_while_more_are_coming_and_stop_ends_both_sides(
    client: ServerClient, slow_server: SlowServer
) -> None:
    states = asyncio.run(follow(CompareSession(), client, ask("endless"), stop_after=5))
    lefts = [state.turns[-1].panes[0] for state in states]
    assert lefts[0].phase == "waiting"
    assert any(left.phase == "writing" for left in lefts)
    assert [pane.phase for pane in states[-1].turns[-1].panes] == ["stopped", "stopped"]
    assert lefts[-1].content.startswith("word word ")
    assert slow_server.caller_left.wait(CLOSE_TIMEOUT_S)


def test_a_tab_that_goes_away_closes_the_connection(client: ServerClient, slow_server: SlowServer) -> None:
    async def leave() -> CompareSession:
        session = CompareSession()
        session.ask(ask("endless"))
        async with aclosing(session.follow(client, "", SAMPLING)) as following:
            async for state in following:
                if state.turns[-1].panes[0].deltas:
                    break
        return session

    session = asyncio.run(leave())
    assert slow_server.caller_left.wait(CLOSE_TIMEOUT_S)
    assert not session.conversation.running


def test_a_stream_that_breaks_off_keeps_its_words_and_says_so(client: ServerClient) -> None:
    panes = asyncio.run(follow(CompareSession(), client, ask("short")))[-1].turns[-1].panes
    assert panes[0].content == "word "
    assert [pane.problem.kind for pane in panes if pane.problem] == ["cut_off", "cut_off"]


def test_what_is_asked_right_after_an_answer_is_not_stopped_with_it(client: ServerClient) -> None:
    async def ask_on() -> CompareSession:
        session = CompareSession()
        session.ask(ask("short"))
        async with aclosing(session.follow(client, "", SAMPLING)) as following:
            async for state in following:
                if not state.running:
                    session.ask(state.ask("short", ("base", "tuned"), "", 0.0))
        return session

    session = asyncio.run(ask_on())
    assert session.conversation.running
    assert len(session.conversation.turns) == 2


def test_a_question_goes_on_until_its_answers_are_stored(client: ServerClient) -> None:
    session = CompareSession()
    first = asyncio.run(follow(session, client, ask("whole")))
    assert any(all(pane.phase == "done" for pane in state.turns[-1].panes) for state in first[:-1])
    assert [state.running for state in first] == [True] * (len(first) - 1) + [False]
    asyncio.run(follow(session, client, first[-1].ask("whole", ("base", "tuned"), "", 0.0)))
    told = [(turn.comparison_id, turn.panes[0].content, turn.problem) for turn in session.conversation.turns]
    assert told == [("cmp_1", "answer 1", None), ("cmp_2", "answer 2", None)]


def test_half_a_character_is_sent_as_it_is(client: ServerClient, slow_server: SlowServer) -> None:
    asyncio.run(follow(CompareSession(), client, ask("\ud83d")))
    assert slow_server.bodies[0]["messages"][0]["content"] == "\ud83d"


def test_a_follower_that_fails_leaves_no_question_open(monkeypatch: pytest.MonkeyPatch, client: ServerClient) -> None:
    session = CompareSession()
    monkeypatch.setattr(client, "stream", lambda *_: [][0])
    with pytest.raises(IndexError):
        asyncio.run(follow(session, client, ask("short")))
    assert not session.conversation.running


def test_two_tabs_never_mix(client: ServerClient) -> None:
    async def both() -> list[str]:
        one, two = CompareSession(), CompareSession()
        await asyncio.gather(follow(one, client, ask("endless"), stop_after=3), follow(two, client, ask("short")))
        return [session.conversation.turns[-1].panes[0].phase for session in (one, two)]

    assert asyncio.run(both()) == ["stopped", "failed"]


def test_histories_are_sent_once_they_went_apart(client: ServerClient, slow_server: SlowServer) -> None:
    session = CompareSession()
    asyncio.run(follow(session, client, ask("short")))
    asyncio.run(follow(session, client, session.conversation.ask("short", ("base", "tuned"), "", 0.0)))
    first, second = slow_server.bodies
    shared = {"models": ["base", "tuned"], "blind": False, "stream": True, "temperature": 0.0, "top_p": 1.0,
              "max_tokens": 64, "seed": 7}  # fmt: skip
    short = {"role": "user", "content": "short"}
    assert first == {**shared, "messages": [short]}
    assert second == {**shared, "histories": [[short, {"role": "assistant", "content": "word "}, short], [short]]}
