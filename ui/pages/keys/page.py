"""The page of keys and settings, for admins: create and revoke keys; see webhooks and settings.

The first key locks out everybody without a key, so the tab uses it at once. Owns what each action does; `state` owns
the state, `render` the HTML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gradio as gr

from ui.frame.captions import Updates, merge_updates
from ui.frame.live import Action, live_html, on_action
from ui.frame.session import Session
from ui.frame.shell import QUIET, Frame
from ui.pages.keys import calls, render
from ui.pages.keys.state import KeysSession
from ui.server_client import UIError

OWN_KEY_JS = "key => { if (key) tuneloop.keepKey(key); return ''; }"
SCRIPT = Path(__file__).with_name("keys.js").read_text(encoding="utf-8")


class KeysPage:
    """The page in the current Blocks."""

    session_class: ClassVar[type[Session]] = KeysSession

    def __init__(self, frame: Frame) -> None:
        self._frame, self._client = frame, frame.client
        self._heading = live_html()
        self._notice = live_html(script=SCRIPT, spoken=True)
        self._keys = live_html()
        self._webhooks = live_html()
        self._settings = live_html()
        self._own_key = gr.Textbox(visible="hidden", show_label=False)
        shown = [*self.outputs, *frame.outputs, frame.api_key, self._own_key]
        for block in (self._notice, self._keys):
            on_action(block, self._act, [frame.session, frame.api_key], shown)
        # The browser keeps the tab's key; the component that transfers it is emptied again.
        self._own_key.change(None, [self._own_key], [self._own_key], js=OWN_KEY_JS, **QUIET)

    @property
    def outputs(self) -> list[Any]:
        """Every component that `open` and `translate` update."""
        return [self._heading, self._notice, self._keys, self._webhooks, self._settings]

    def translate(self, session: KeysSession) -> Updates:
        """Return the whole page in the session's language."""
        drawn = {
            self._heading: render.heading(session),
            self._notice: render.notice(session),
            self._keys: render.keys(session),
            self._webhooks: render.webhooks(session),
            self._settings: render.settings(session),
        }
        return {block: gr.update(value=value) for block, value in drawn.items()}

    async def open(self, session: KeysSession, api_key: str, query: dict[str, str]) -> Updates:
        """Show the page if the tab's key allows it; otherwise, say what is needed."""
        session.begin()
        return await self._load(session, api_key)

    async def _load(self, session: KeysSession, api_key: str) -> Updates:
        try:
            session.overview, session.admitted = await calls.load_overview(self._client, api_key), True
        except UIError as error:
            session.admitted = False
            shown = merge_updates(self.translate(session), self._frame.problem(error.problem, session))
            wanted = error.problem.kind in ("unauthorized", "not_admin")
            return merge_updates(shown, {self._frame.key_group: gr.update(visible=True)}) if wanted else shown
        return self.translate(session)

    async def _act(self, session: KeysSession, api_key: str, event: gr.EventData) -> Updates:
        action = Action.of(event)
        if action.name == "create" and _is_again(session, api_key):
            return {self._notice: gr.skip()}
        session.begin()
        own: Updates = {}
        try:
            match action.name:
                case "create":
                    own = await self._create(session, api_key, action)
                    api_key = own[self._frame.api_key]["value"] if own else api_key
                case "revoke" | "force":
                    await self._revoke(session, api_key, action.text("key"), force=action.name == "force")
                case "put_away":
                    session.fresh = None
        except UIError as error:
            session.trouble = error.problem
        return merge_updates(await self._load(session, api_key), own)

    async def _create(self, session: KeysSession, api_key: str, action: Action) -> Updates:
        """Create the key; the first one becomes the tab's key. Raises: UIError."""
        admin = None if session.overview.keyless else "yes" in action.checked_values("admin")
        name, project = action.text("name"), action.text("project")
        session.creating = True
        try:
            session.fresh = key = await calls.create(self._client, api_key, name, project, admin=admin)
        finally:
            session.creating = False
        if not key.get("notice"):
            return {}
        return {self._frame.api_key: gr.update(value=key["key"]), self._own_key: gr.update(value=key["key"])}

    async def _revoke(self, session: KeysSession, api_key: str, key_id: str, *, force: bool) -> None:
        """Revoke the key; ask again before the last admin key is revoked. Raises: UIError."""
        try:
            key = await calls.revoke(self._client, api_key, key_id, force=force)
        except UIError as error:
            if error.problem.kind != "last_admin":
                raise
            session.last_admin = key_id
            return
        session.fresh = None if session.fresh and session.fresh["id"] == key_id else session.fresh
        session.done = ("keys.done.revoked", {"name": key["name"]})


def _is_again(session: KeysSession, api_key: str) -> bool:
    """Whether this is a second click on the same button: while the key is being created, or before the tab uses it."""
    is_first_here = session.fresh is not None and bool(session.fresh.get("notice"))
    return session.creating or (is_first_here and not api_key)
