"""The campaigns page: create a campaign, watch its progress, invite raters, close it, see its results.

`/campaigns` shows the list and the form for a new one; `/campaigns?campaign=ID` shows one. While something is in
progress, the page refreshes itself. Owns what each action does; `form` and `render` own the HTML.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gradio as gr

from ui.frame.captions import Updates, html, merge_updates
from ui.frame.live import Action, live_html, on_steps
from ui.frame.session import Session
from ui.frame.shell import QUIET, Frame
from ui.html import elements
from ui.pages.campaigns import calls, render
from ui.pages.campaigns.form import Objection, body_of, new_campaign
from ui.pages.leaderboard import calls as board_calls
from ui.server_client import Problem, UIError

POLL_INTERVAL_S = 3.0
"""Seconds between two requests while a campaign is in progress."""


@dataclass
class CampaignsSession(Session):
    """One tab's state."""

    campaigns: list[dict[str, Any]] = field(default_factory=list)
    shown: dict[str, Any] | None = None
    """The campaign in the address."""
    failed: list[dict[str, Any]] = field(default_factory=list)
    """Its first failed answers."""
    agreement: dict[str, Any] | None = None
    """The agreement of its raters on the verdict."""
    counted: tuple[int, int] = (0, 0)
    """Ratings and failed answers when agreement and failures were last requested."""
    invitations: list[dict[str, Any]] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    """Invitations created in this tab, with their links."""
    invited: int = 0
    """How many invitations were created in this tab, including revoked ones."""
    files: list[dict[str, Any]] = field(default_factory=list)
    created: int = 0
    """How many campaigns were created in this tab."""
    busy: bool = False
    message: tuple[str, dict[str, str]] = ("", {})
    """The message about the last action: its key and values."""
    trouble: Problem | None = None
    drawn: dict[int, str] = field(default_factory=dict)
    """The HTML of each block, so that only changed blocks are updated."""

    @property
    def under_way(self) -> bool:
        """Whether anything can change without an action."""
        watched = [self.shown] if self.shown else self.campaigns
        return any(campaign["status"] in ("generating", "open") for campaign in watched)


class CampaignsPage:
    """The page in the current Blocks."""

    session_class: ClassVar[type[Session]] = CampaignsSession

    def __init__(self, frame: Frame) -> None:
        self._frame, self._client = frame, frame.client
        self._heading = html()
        self._notice = live_html(spoken=True)
        self._main = live_html()
        self._second = live_html()
        self._clock = gr.Timer(POLL_INTERVAL_S, active=False)
        outputs = [*self.outputs, *frame.outputs, frame.address_bar]
        for block in (self._main, self._second):
            on_steps(block, self._act, frame, outputs)
        self._clock.tick(self._poll, [frame.session, frame.api_key], outputs, **QUIET)

    @property
    def outputs(self) -> list[Any]:
        """Every component that `open` and `translate` update."""
        return [self._heading, self._notice, self._main, self._second, self._clock]

    async def open(self, session: CampaignsSession, api_key: str, query: dict[str, str]) -> Updates:
        """Show the list, or the campaign in the address; if it doesn't exist, the list with a message."""
        session.shown, session.drawn, session.trouble = None, {}, None
        session.models = tuple(await self._client.models(api_key))
        if campaign := query.get("campaign"):
            try:
                session.shown = await calls.get_campaign(self._client, api_key, campaign)
            except UIError as error:
                if error.problem.kind != "campaign_gone":
                    raise
                session.trouble = error.problem
        if session.shown is not None:
            session.invitations = await calls.invitations(self._client, api_key, session.shown["id"])
            await self._load_details(session, api_key)
        else:
            session.campaigns = await calls.list_campaigns(self._client, api_key)
            session.files = await calls.files(self._client, api_key)
        return self.translate(session)

    def translate(self, session: CampaignsSession) -> Updates:
        """The whole page in the session's language."""
        session.drawn = {}
        return self._draw(session)

    def _draw(self, session: CampaignsSession) -> Updates:
        """Return updates for the blocks that have changed."""
        language, now_s = session.language, time.time()
        key, values = session.message
        sent = f"campaigns.new.{session.created - 1}" if key == "created" else ""
        notice = render.notice(key, language, sent, **values)
        notice += elements.problem_box(session.trouble, language) if session.trouble else ""
        blocks = {self._heading: render.heading(session.shown, language), self._notice: notice}
        if session.shown is None:
            names = [model.name for model in session.models]
            blocks[self._main] = render.listing(session.campaigns, language)
            blocks[self._second] = new_campaign(names, session.files, language, session.created)
        else:
            shown = session.shown
            progress = render.progress(shown, session.failed, now_s, language)
            blocks[self._main] = progress + render.results(shown, session.agreement, language)
            blocks[self._second] = render.invitations(
                shown, session.invitations, session.made, session.invited, now_s, language
            )
        changed = {block: words for block, words in blocks.items() if session.drawn.get(block._id) != words}
        session.drawn |= {block._id: words for block, words in changed.items()}
        clock = {self._clock: gr.update(active=session.under_way)}
        return {block: gr.update(value=words) for block, words in changed.items()} | clock

    async def _poll(self, session: CampaignsSession, api_key: str) -> Updates:
        """Refresh the page on the timer; if the server can't be reached, the page stays unchanged."""
        try:
            if session.shown is not None:
                session.shown = await calls.get_campaign(self._client, api_key, session.shown["id"])
                await self._load_details(session, api_key)
            else:
                session.campaigns = await calls.list_campaigns(self._client, api_key)
        except UIError:
            return {self._clock: gr.update(active=True)}
        return self._draw(session)

    async def _load_details(self, session: CampaignsSession, api_key: str) -> None:
        """Get agreement and failed answers if their counts have changed."""
        shown = session.shown or {}
        counted = (shown["votes"]["done"], shown["answers"].get("failed", 0))
        if counted == session.counted:
            return
        votes, failures = counted
        with suppress(UIError):  # the campaign is shown without them, and they are requested again
            if failures != session.counted[1]:
                session.failed = await calls.failed_answers(self._client, api_key, shown["id"])
            if votes:
                board = await board_calls.leaderboard(self._client, api_key, {"campaign": shown["id"]})
                session.agreement = board["agreement"]["verdict"]
            session.counted = counted

    async def _act(self, session: CampaignsSession, api_key: str, action: Action) -> AsyncGenerator[Updates]:
        if session.busy:
            return
        session.busy, session.trouble, session.message = True, None, ("", {})
        address: Updates = {}
        try:
            address = await self._done(session, api_key, action)
        except Objection as objection:
            session.message = objection.key, objection.values
        except UIError as error:
            session.trouble = error.problem
        finally:
            session.busy = False
        yield merge_updates(self._draw(session), address)

    async def _done(self, session: CampaignsSession, api_key: str, action: Action) -> Updates:
        """Do the action, and change the address if another campaign is shown now."""
        if action.name == "create":
            session.shown = await calls.create(self._client, api_key, body_of(action))
            session.created, session.message = session.created + 1, ("created", {})
            session.invitations, session.made, session.failed, session.counted = [], [], [], (0, 0)
            return self._frame.address({"campaign": session.shown["id"]})
        if session.shown is None:
            return {}
        campaign = session.shown["id"]
        match action.name:
            case "close" | "reopen":
                session.shown = await calls.change_state(self._client, api_key, campaign, action.name)
                session.message = ("closed" if action.name == "close" else "reopened"), {}
            case "delete":
                await calls.delete(self._client, api_key, campaign)
                session.shown, session.message = None, ("deleted", {})
                session.campaigns = await calls.list_campaigns(self._client, api_key)
                session.files = await calls.files(self._client, api_key)
                return self._frame.address({})
            case "invite":
                await self._invite(session, api_key, campaign, action.text("rater"))
            case "revoke":
                await calls.revoke(self._client, api_key, campaign, action.text("invitation"))
                session.made = [one for one in session.made if one["id"] != action.text("invitation")]
                session.invitations = await calls.invitations(self._client, api_key, campaign)
                session.message = "revoked", {}
        return {}

    async def _invite(self, session: CampaignsSession, api_key: str, campaign: str, rater: str) -> None:
        if not rater:
            raise Objection("no_rater")
        session.made.append(await calls.invite(self._client, api_key, campaign, rater))
        session.invited += 1
        session.invitations = await calls.invitations(self._client, api_key, campaign)
