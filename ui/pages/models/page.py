"""The models page: a tree of versions, the selected one's card, aliases, engines, import and download of adapters.

It refreshes every few seconds while it is open, and draws what has changed. Owns what each action does; `state`
owns the state, `render`, `tree` and `card` the HTML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gradio as gr

from ui.frame.captions import Updates, merge_updates
from ui.frame.live import Action, live_html, on_action
from ui.frame.session import Session
from ui.frame.shell import QUIET, Frame
from ui.pages.models import calls, render
from ui.pages.models.state import ModelsSession
from ui.server_client import Problem, UIError

POLL_INTERVAL_S = 5.0
"""Seconds between two refreshes."""
SCRIPT = Path(__file__).with_name("models.js").read_text(encoding="utf-8")


class ModelsPage:
    """The page in the current Blocks."""

    session_class: ClassVar[type[Session]] = ModelsSession

    def __init__(self, frame: Frame) -> None:
        self._frame, self._client = frame, frame.client
        self._heading = live_html()
        self._engines = live_html()
        self._notice = live_html(spoken=True)
        self._family = live_html(script=SCRIPT)
        self._aliases = live_html()
        self._broken = live_html()
        self._importing = live_html(script=SCRIPT)
        shown = [*self.outputs, *frame.outputs, frame.address_bar]
        for block in self.outputs:
            on_action(block, self._act, [frame.session, frame.api_key], shown)
        clock = gr.Timer(POLL_INTERVAL_S)
        clock.tick(self._poll, [frame.session, frame.api_key], shown, **QUIET)

    @property
    def outputs(self) -> list[Any]:
        """Every component that `open` and `translate` update."""
        return [
            self._heading, self._engines, self._notice, self._family, self._aliases, self._broken, self._importing
        ]  # fmt: skip

    def translate(self, session: ModelsSession) -> Updates:
        """Return the whole page in the session's language."""
        session.drawn = self._pictures(session)
        return {block: gr.update(value=drawn) for block, drawn in session.drawn.items()}

    async def open(self, session: ModelsSession, api_key: str, query: dict[str, str]) -> Updates:
        """Show the current models; the one in the address is selected."""
        session.chosen = session.chosen or query.get("model")
        session.trouble, session.done, session.out_of_sight = None, None, False
        await self._survey(session, api_key)
        return self.translate(session)

    async def _survey(self, session: ModelsSession, api_key: str) -> None:
        session.found = await calls.survey(self._client, api_key)
        session.asked = True

    async def _poll(self, session: ModelsSession, api_key: str) -> Updates:
        """Draw what has changed; a failure is shown once, and tried again."""
        if not session.asked:
            try:
                await self._survey(session, api_key)
            except UIError:  # already shown when the page was opened
                return {self._notice: gr.skip()}
            return merge_updates(
                self._frame.say(), {self._frame.key_group: gr.update(visible=False)}, self.translate(session)
            )
        try:
            await self._survey(session, api_key)
        except UIError as error:
            if error.problem.kind == "unauthorized":
                session.asked = False
                return self._frame.problem(error.problem, session)
            session.trouble, session.done, session.out_of_sight = error.problem, None, True
        else:
            if session.out_of_sight:
                session.trouble, session.out_of_sight = None, False
        return self._changed(session)

    def _changed(self, session: ModelsSession) -> Updates:
        before, session.drawn = session.drawn, self._pictures(session)
        new = {block: gr.update(value=drawn) for block, drawn in session.drawn.items() if before.get(block) != drawn}
        return new or {self._notice: gr.skip()}

    def _pictures(self, session: ModelsSession) -> dict[Any, str]:
        return {
            self._heading: render.heading(session),
            self._engines: render.engines(session),
            self._notice: render.notice(session),
            self._family: render.family(session),
            self._aliases: render.aliases(session),
            self._broken: render.broken(session),
            self._importing: render.importing(session),
        }

    async def _act(self, session: ModelsSession, api_key: str, event: gr.EventData) -> Updates:
        action = Action.of(event)
        try:
            await self._do(session, api_key, action)
        except UIError as error:
            session.fail(error.problem)
            if error.problem.kind == "unauthorized":
                return merge_updates(self._changed(session), self._frame.problem(error.problem, session))
        chosen = session.version
        return merge_updates(self._changed(session), self._frame.address({"model": chosen["model"]} if chosen else {}))

    async def _do(self, session: ModelsSession, api_key: str, action: Action) -> None:
        """Do the action and refresh. Raises: UIError."""
        client, alias, model = self._client, action.text("alias"), action.text("model")
        match action.name:
            case "choose":
                session.chosen, session.trouble, session.done = model, None, None
                return
            case "history":
                await self._toggle_history(session, api_key, alias)
                return
            case "importing":
                if session.upload_ended != action.text("upload"):
                    session.import_refusal, session.done = None, None
                return
            case "refused":
                session.turn, session.upload_ended = session.turn + 1, action.text("upload")
                session.import_refusal = Problem(_kind(action), action.text("detail"))
                return
            case "download_failed":
                session.fail(Problem("rejected", action.text("detail")))
                return
            case "promote":
                await calls.promote(client, api_key, alias, model)
                session.say("models.done.promoted", alias=alias, model=model)
            case "roll_back":
                back = await calls.roll_back(client, api_key, alias)
                session.say("models.done.rolled_back", alias=alias, model=back["model"])
            case "unalias":
                await calls.delete_alias(client, api_key, alias)
                session.say("models.done.unaliased", alias=alias)
            case "delete":
                await calls.delete_model(client, api_key, model)
                session.chosen = None
                session.say("models.done.deleted", model=model)
            case "imported":
                session.chosen, session.import_refusal, session.upload_ended = model, None, action.text("upload")
                session.say("models.done.imported", model=model)
        await self._survey(session, api_key)
        if session.history_of:
            session.history = await calls.alias_history(client, api_key, session.history_of)

    async def _toggle_history(self, session: ModelsSession, api_key: str, alias: str) -> None:
        if session.history_of == alias:
            session.history_of = None
        else:
            session.history = await calls.alias_history(self._client, api_key, alias)
            session.history_of = alias


def _kind(action: Action) -> Any:
    """Return the kind of problem of a failed upload."""
    if action.text("kind"):
        return action.text("kind")
    return {"401": "unauthorized", "503": "engine_down", "500": "server_error"}.get(action.text("status"), "rejected")
