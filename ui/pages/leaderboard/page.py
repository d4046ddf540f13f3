"""The leaderboard page: scores with intervals, and a button to train on the ratings.

The filters are in the address, so that a refresh and a shared link keep them. Owns what each action does;
`filters` owns the filters, `render` and `quality` the HTML.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlencode

import gradio as gr

from ui.frame.captions import Updates, html, merge_updates
from ui.frame.live import Action, live_html, on_steps
from ui.frame.session import Session
from ui.frame.shell import QUIET, Frame
from ui.html import elements
from ui.pages.leaderboard import calls, quality, render
from ui.pages.leaderboard.filters import Filters
from ui.server_client import Problem, UIError

SAVE_JS = "csv => { if (csv) tuneloop.download(JSON.parse(csv).path, 'leaderboard.csv'); }"


@dataclass
class BoardSession(Session):
    """One tab's state."""

    filters: Filters = field(default_factory=Filters)
    turn: int = 0
    """The latest `Action.turn` of the filters' form."""
    board: dict[str, Any] | None = None
    """The leaderboard; None before it was loaded."""
    campaigns: list[dict[str, Any]] = field(default_factory=list)
    sending: bool = False
    """Whether a job is being created."""
    job: dict[str, Any] | None = None
    """The job that was started from here."""
    trouble: Problem | None = None
    downloads: int = 0

    @property
    def raters(self) -> list[str]:
        """The raters of the campaigns."""
        return sorted({one["rater"] for campaign in self.campaigns for one in campaign.get("raters", [])})


class LeaderboardPage:
    """The page in the current Blocks."""

    session_class: ClassVar[type[Session]] = BoardSession

    def __init__(self, frame: Frame) -> None:
        self._frame, self._client = frame, frame.client
        self._heading = html()
        self._filters = live_html()
        self._figures = html()
        self._training = live_html(spoken=True)
        self._download = gr.Textbox(visible="hidden", show_label=False)
        self._download.change(None, [self._download], js=SAVE_JS, **QUIET)
        outputs = [*self.outputs, *frame.outputs, frame.address_bar, self._download]
        for block in (self._filters, self._training):
            on_steps(block, self._act, frame, outputs)

    @property
    def outputs(self) -> list[Any]:
        """Every component that `open` and `translate` update."""
        return [self._heading, self._filters, self._figures, self._training]

    async def open(self, session: BoardSession, api_key: str, query: dict[str, str]) -> Updates:
        """Show the leaderboard with the address's filters."""
        session.filters = Filters.of_query(query)
        session.models = tuple(await self._client.models(api_key))
        session.campaigns = await calls.campaigns(self._client, api_key)
        session.board = await calls.leaderboard(self._client, api_key, session.filters.to_api())
        return self.translate(session)

    def translate(self, session: BoardSession) -> Updates:
        """Return the whole page in the session's language."""
        language = session.language
        drawn = {
            self._heading: render.heading(language),
            self._filters: render.filter_form(
                session.filters, session.campaigns, session.raters, language, session.turn
            ),
            self._figures: _figures(session),
            self._training: _training(session),
        }
        return {block: gr.update(value=value) for block, value in drawn.items()}

    async def _act(self, session: BoardSession, api_key: str, action: Action) -> AsyncGenerator[Updates]:
        is_latest = action.turn >= session.turn
        session.turn = max(session.turn, action.turn)
        if action.name == "train":
            async for drawing in self._train(session, api_key, action.text("model")):
                yield drawing
            return
        if action.name == "csv":
            yield {self._download: gr.update(value=self._csv(session))}
            return
        if action.name in ("filter", "clear") and is_latest:
            session.filters = Filters() if action.name == "clear" else Filters.of_form(action)
            session.job = None
        yield await self._reload(session, api_key)

    def _csv(self, session: BoardSession) -> str:
        """Return the CSV to download; the count makes each click a change, which starts the download."""
        session.downloads += 1
        wanted = {name: value for name, value in session.filters.to_api().items() if value is not None}
        path = f"/v1/leaderboard?{urlencode(wanted | {'format': 'csv'})}"
        return json.dumps({"path": path, "count": session.downloads})

    async def _reload(self, session: BoardSession, api_key: str) -> Updates:
        filters = session.filters
        session.trouble = None
        try:
            board = await calls.leaderboard(self._client, api_key, filters.to_api())
        except UIError as error:
            return merge_updates(self._frame.problem(error.problem, session), self._frame.address(filters.to_query()))
        if filters == session.filters:  # otherwise a newer filter is in progress
            session.board = board
        return merge_updates(
            self._frame.say(), self.translate(session), self._frame.address(session.filters.to_query())
        )

    async def _train(self, session: BoardSession, api_key: str, model: str) -> AsyncGenerator[Updates]:
        if session.sending:
            return
        session.sending, session.job, session.trouble = True, None, None
        try:
            yield self._draw_training(session)
            campaign = {"campaign": session.filters.campaign} if session.filters.campaign else {}
            session.job = await calls.train(self._client, api_key, {"model": model} | campaign)
        except UIError as error:
            session.trouble = error.problem
        finally:
            session.sending = False
        yield self._draw_training(session)

    def _draw_training(self, session: BoardSession) -> Updates:
        return {self._training: gr.update(value=_training(session))}


def _figures(session: BoardSession) -> str:
    board, language = session.board, session.language
    if board is None:
        return ""
    summary = render.summary(board, language)
    if not board.get("votes"):
        return summary + render.empty(session.filters, language)
    parts = (render.ratings, render.matrix, render.decisions,
             quality.dimensions, quality.quality, quality.style)  # fmt: skip
    return render.render_block("board", language, parts=[summary, *(part(board, language) for part in parts)])


def _training(session: BoardSession) -> str:
    if session.board is None or not session.board.get("votes"):
        return ""
    models = quality.trainable(session.models, session.board)
    drawn = quality.training(models, session.sending, session.language, session.job)
    return drawn + (elements.problem_box(session.trouble, session.language) if session.trouble else "")
