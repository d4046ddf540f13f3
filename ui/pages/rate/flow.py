"""The steps of the rating page: get a pair, rate it, undo the rating.

Each step changes the tab's `RateSession` and returns what to redraw. Owns the calls and their order. Knows nothing of
HTML or Gradio's components.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Literal

from ui.frame.live import Action
from ui.frame.session import FRAME_S
from ui.pages.rate import calls
from ui.pages.rate.state import VERDICTS, Pair, Phase, RateSession, StoredVote, vote_body
from ui.server_client import ServerClient, UIError

Redraw = Literal["all", "panes", "voting", "kept"]
"""The whole page, a part of it, or only the state for a refresh."""
Steps = AsyncGenerator[Redraw]

SAMPLING = {"temperature": 0.7, "max_tokens": 512}
"""Sampling parameters for a rater's own prompt."""


class RateFlow:
    """The steps, which call the server through `client`. Holds no state of a tab."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client

    async def open(self, session: RateSession, api_key: str) -> None:
        """Show the pair from before a refresh, or the first one.

        Raises:
            UIError: the server requires a key; other problems are in `session.trouble`.
        """
        session.phase, session.pair, session.trouble, session.notice = "asking", None, None, None
        session.restore(session.kept)
        kept_id = session.kept.get("comparison")
        try:
            if session.invited:
                await self._open_invited(session, api_key, kept_id)
            elif kept_id:
                await self._restore_pair(session, api_key, kept_id, lost="rate.lost")
        except UIError as error:
            session.trouble = error.problem
            if not session.invited and error.problem.kind == "unauthorized":
                raise

    async def act(self, session: RateSession, api_key: str, action: Action) -> Steps:
        """Do the rater's action; unknown actions do nothing."""
        steps = {"ask": self._ask, "store": self._store, "undo": self._undo, "next": self._next, "retry": self._retry}
        if action.name in ("stop", "name", "verdict", "change"):
            if self._choose(session, action):
                yield "all"
            return
        if (step := steps.get(action.name)) is None:
            return
        session.trouble = None
        try:
            async with aclosing(step(session, api_key, action)) as parts:
                async for part in parts:
                    yield part
        except UIError as error:
            session.trouble = error.problem
            yield "all"

    async def _open_invited(self, session: RateSession, api_key: str, kept_id: str | None) -> None:
        invitation = await calls.invitation(self._client, api_key)
        session.campaign, session.rater = invitation["campaign"], invitation["rater"]
        session.done, session.remaining = invitation["done"], invitation["remaining"]
        if kept_id and session.supersedes:  # a rating was undone: its pair comes first
            await self._restore_pair(session, api_key, kept_id, lost=None)
        if session.pair is None:
            await self._next_assigned(session, api_key, kept_id)

    async def _restore_pair(self, session: RateSession, api_key: str, comparison_id: str, lost: str | None) -> None:
        try:
            pair = Pair.of(await calls.comparison(self._client, api_key, comparison_id))
        except UIError as error:
            if error.problem.kind in ("unauthorized", "unreachable"):
                raise
            session.verdict, session.supersedes, session.notice = None, None, lost
            return
        session.pair = pair
        rated = pair.revealed and session.supersedes is None
        session.phase = "stored" if rated else "scoring" if session.verdict else "voting"

    async def _next_assigned(self, session: RateSession, api_key: str, kept_id: str | None = None) -> None:
        session.pair, session.supersedes = None, None
        try:
            assignment = await calls.assignment(self._client, api_key, (session.campaign or {})["id"])
        except UIError as error:
            session.campaign = (await calls.invitation(self._client, api_key))["campaign"]
            if session.campaign is None or session.campaign.get("status") != "closed":
                raise error
            assignment = {"comparison": None, "done": session.done, "remaining": 0}
        session.done, session.remaining = assignment["done"], assignment["remaining"]
        if assignment["comparison"] is None:
            self._enter_phase(session, "finished")
            return
        session.pair = Pair.of(assignment["comparison"])
        if session.pair.comparison_id != kept_id:
            session.verdict = None
        self._enter_phase(session, "scoring" if session.verdict else "voting")

    @staticmethod
    def _enter_phase(session: RateSession, phase: Phase) -> None:
        """Enter a phase and move the focus there."""
        session.phase, session.turn = phase, session.turn + 1

    def _choose(self, session: RateSession, action: Action) -> bool:
        """Do actions without a call: stop, rater's name, choose or change a verdict. Return whether to redraw."""
        if action.name == "stop":
            session.stop.set()
            return False
        if action.name == "name":
            session.rater = action.text("rater")
            return False
        if session.phase not in ("voting", "scoring"):
            return False
        session.notice = session.trouble = None
        if action.name == "change":
            session.verdict = None
            self._enter_phase(session, "voting")
        elif (verdict := action.text("verdict")) in VERDICTS:
            session.verdict = next(known for known in VERDICTS if known == verdict)
            self._enter_phase(session, "scoring")
        return True

    async def _ask(self, session: RateSession, api_key: str, action: Action) -> Steps:
        prompt = action.text("prompt")
        session.rater = action.text("rater")
        if not prompt or session.phase in ("streaming", "storing"):
            session.notice = session.notice if prompt else "rate.no_prompt"
            yield "all"
            return
        session.verdict = session.supersedes = session.notice = None
        session.pair = Pair(messages=({"role": "user", "content": prompt},))
        self._enter_phase(session, "streaming")
        session.stop = asyncio.Event()
        yield "all"
        try:
            async with aclosing(self._stream(session, api_key, prompt)) as parts:
                async for part in parts:
                    yield part
        finally:
            if session.phase == "streaming":  # failed, or the tab was closed
                session.phase = "asking"
        yield "all"

    async def _stream(self, session: RateSession, api_key: str, prompt: str) -> Steps:
        drawn_s, known_id = time.monotonic(), None
        async with aclosing(calls.draw(self._client, api_key, prompt, SAMPLING)) as events:
            async for event in _until(events, session.stop):
                session.pair = (session.pair or Pair()).apply(event)
                if session.pair.comparison_id != known_id:
                    known_id = session.pair.comparison_id
                    yield "kept"
                if time.monotonic() - drawn_s >= FRAME_S:
                    drawn_s = time.monotonic()
                    yield "panes"
        self._end_stream(session)

    def _end_stream(self, session: RateSession) -> None:
        pair = session.pair or Pair()
        if pair.complete:
            session.notice = "rate.ready"
            self._enter_phase(session, "voting")
            return
        session.notice, session.trouble = "rate.stopped" if session.stop.is_set() else "rate.broken", pair.problem
        self._enter_phase(session, "asking")

    async def _store(self, session: RateSession, api_key: str, action: Action) -> Steps:
        pair = session.pair
        if session.phase != "scoring" or session.verdict is None or pair is None or pair.comparison_id is None:
            return
        session.phase, session.notice = "storing", None
        yield "voting"
        try:
            rating = await calls.vote(self._client, api_key, pair.comparison_id, vote_body(session, action.fields))
        except UIError as error:
            session.phase = "scoring"
            if error.problem.kind != "already_rated":
                raise
            await self._rated_elsewhere(session, api_key)
        else:
            session.last = StoredVote.of(rating, time.time())
            await self._after_vote(session, api_key, rating)
        yield "all"

    async def _after_vote(self, session: RateSession, api_key: str, rating: dict[str, Any]) -> None:
        session.supersedes = None
        if session.invited:
            session.verdict = None
            session.phase = "asking"  # the rating is stored, even if the next pair fails
            await self._next_assigned(session, api_key)
            return
        session.pair = Pair.of(rating | {"id": rating["comparison_id"]})
        self._enter_phase(session, "stored")

    async def _rated_elsewhere(self, session: RateSession, api_key: str) -> None:
        session.verdict = session.supersedes = None
        if session.invited:
            await self._next_assigned(session, api_key)
        else:
            self._enter_phase(session, "stored")
        session.notice = "rate.elsewhere" if session.invited else "rate.elsewhere_free"

    async def _undo(self, session: RateSession, api_key: str, action: Action) -> Steps:
        last = session.last
        if last is None or session.phase in ("storing", "streaming"):
            return
        session.last = None  # a second click while this one is in progress does nothing
        try:
            withdrawal = await calls.withdraw(
                self._client, api_key, last.rating_id, "" if session.invited else last.rater
            )
        except UIError as error:
            if error.problem.kind in ("unreachable", "unauthorized", "too_busy", "server_error"):
                session.last = last
                raise
            session.notice = "rate.undo_late" if not last.undo_left_s(time.time() - 1) else "rate.undo_elsewhere"
        else:
            session.supersedes, session.undone_rater = withdrawal["id"], last.rater
            session.verdict, session.notice = None, "rate.undone"
            session.done, session.remaining = session.done - 1, session.remaining + 1
            session.pair = Pair.of(await calls.comparison(self._client, api_key, last.comparison_id))
            self._enter_phase(session, "voting")
        yield "all"

    async def _next(self, session: RateSession, api_key: str, action: Action) -> Steps:
        session.notice = session.verdict = None
        if session.invited:
            await self._open_invited(session, api_key, None)
        else:
            session.pair = None
            self._enter_phase(session, "asking")
        yield "all"

    async def _retry(self, session: RateSession, api_key: str, action: Action) -> Steps:
        await self._open_invited(session, api_key, session.pair.comparison_id if session.pair else None)
        yield "all"


async def _until(events: AsyncGenerator[dict[str, Any]], stop: asyncio.Event) -> AsyncGenerator[dict[str, Any]]:
    """Yield the events up to their end or to `stop`, whichever comes first, even while nothing arrives."""
    stopping = asyncio.create_task(stop.wait())
    try:
        while True:
            coming = asyncio.ensure_future(anext(events))
            try:
                await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not coming.done():
                    coming.cancel()
                    with suppress(asyncio.CancelledError, StopAsyncIteration, UIError):
                        await coming
            if coming.cancelled() or stop.is_set():
                return
            try:
                yield coming.result()
            except StopAsyncIteration:
                return
    finally:
        stopping.cancel()
