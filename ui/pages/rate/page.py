"""The rating page: a blind pair, a verdict, optional scores, then the names, and a minute to undo.

Without an invitation, the rater enters a prompt and the server picks two models; with `?invite=TOKEN`, the rater gets
the campaign's pairs. One POST stores verdict, scores, flag and comment together. Owns the components; `flow` owns what
each action does, `state` the state, `render` the HTML.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr

from ui.frame.captions import Updates, merge_updates
from ui.frame.live import Action, live_html, on_steps
from ui.frame.session import Session
from ui.frame.shell import Frame
from ui.pages.rate import render
from ui.pages.rate.flow import RateFlow, Redraw
from ui.pages.rate.state import RateSession

KEYS_SCRIPT = Path(__file__).with_name("rate.js").read_text(encoding="utf-8")


class RatePage:
    """The page in the current Blocks."""

    session_class: ClassVar[type[Session]] = RateSession

    def __init__(self, frame: Frame) -> None:
        self._frame, self._flow = frame, RateFlow(frame.client)
        self._heading = live_html()
        self._asking = live_html()
        self._panes = live_html()
        self._notice = live_html(spoken=True)
        self._voting = live_html(script=KEYS_SCRIPT)
        for block in self.outputs:
            on_steps(block, self._act, frame, [*self.outputs, frame.storage.component])

    @property
    def outputs(self) -> list[Any]:
        """Every component that `open` and `translate` update."""
        return [self._heading, self._asking, self._panes, self._notice, self._voting]

    async def open(self, session: RateSession, api_key: str, query: dict[str, str]) -> Updates:
        """Show the pair from before a refresh, or the first one."""
        await self._flow.open(session, api_key)
        return self.translate(session)

    def translate(self, session: RateSession) -> Updates:
        """Return the whole page in the session's language."""
        drawn = {
            self._heading: render.heading(session) + render.last_vote(session, time.time()),
            self._asking: render.asking(session),
            self._panes: render.panes(session),
            self._notice: render.notice(session),
            self._voting: render.voting(session),
        }
        return {block: gr.update(value=value) for block, value in drawn.items()}

    async def _act(self, session: RateSession, api_key: str, action: Action) -> AsyncGenerator[Updates]:
        async with aclosing(self._flow.act(session, api_key, action)) as parts:
            async for part in parts:
                yield self._redraw(session, part)

    def _redraw(self, session: RateSession, part: Redraw) -> Updates:
        match part:
            case "panes":
                return {self._panes: gr.update(value=render.panes(session))}
            case "voting":
                return {self._voting: gr.update(value=render.voting(session))}
        kept = self._frame.storage.put(session.to_keep())
        return kept if part == "kept" else merge_updates(self.translate(session), kept)
