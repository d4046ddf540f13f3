"""The data page: upload files of examples, inspect them, clean them, train on them.

Owns what each action does; `state` owns the state, `render`, `report` and `cleaning` the HTML. The
browser uploads straight to the API (`data.js`); all else goes through `calls`. The address contains the open
file, so that a refresh and a shared link show the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr
from markupsafe import Markup

from ui.frame.captions import Updates, merge_updates
from ui.frame.live import Action, live_html, on_steps
from ui.frame.session import Session
from ui.frame.shell import Frame
from ui.pages.data import calls, render
from ui.pages.data.cleaning import cleaning, settings_of
from ui.pages.data.state import DataSession
from ui.server_client import Problem, UIError

DROP_SCRIPT = Path(__file__).with_name("data.js").read_text(encoding="utf-8")
_LOOKS, _LOOK_EVERY_S = 40, 0.5
"""Number of requests for the list, and seconds between them, until a new file has been checked."""


class DataPage:
    """The page in the current Blocks."""

    session_class: ClassVar[type[Session]] = DataSession

    def __init__(self, frame: Frame) -> None:
        self._frame, self._client = frame, frame.client
        self._heading = live_html()
        self._upload = live_html(render.upload(frame.language), script=DROP_SCRIPT)
        self._notice = live_html(spoken=True)
        self._files = live_html()
        self._opened = live_html()
        self._examples = live_html()
        self._cleaning = live_html()
        outputs = [*self.outputs, frame.address_bar, *frame.outputs]
        for block in (self._upload, *self._drawn_blocks):
            on_steps(block, self._act, frame, outputs)

    @property
    def outputs(self) -> list[Any]:
        """Every component that `open` and `translate` update."""
        return [self._heading, self._upload, *self._drawn_blocks]

    @property
    def _drawn_blocks(self) -> list[Any]:
        return [self._notice, self._files, self._opened, self._examples, self._cleaning]

    def translate(self, session: DataSession) -> Updates:
        """Return the whole page in the session's language."""
        fixed = {
            self._heading: render.heading(session.language),
            self._upload: render.upload(session.language),
        }
        return {block: gr.update(value=value) for block, value in fixed.items()} | self._draw(session)

    async def open(self, session: DataSession, api_key: str, query: dict[str, str]) -> Updates:
        """Show the list, and the file in the address with its report and examples."""
        session.opened, session.trouble, session.message = True, None, Markup()
        offset = query.get("offset", "")
        session.open_file(query.get("file", ""), query.get("base", ""), int(offset) if offset.isdecimal() else 0)
        await session.survey(self._client, api_key)
        session.files = await calls.files(self._client, api_key)
        if session.file_id:
            await self._load_file(session, api_key)
            if session.file is not None:
                await self._inspect(session, api_key)
        return self.translate(session)

    def _draw(self, session: DataSession) -> Updates:
        drawn = {
            self._notice: render.notice(session),
            self._files: render.files(session),
            self._opened: render.opened(session),
            self._examples: render.examples(session),
            self._cleaning: cleaning(session),
        }
        return {block: gr.update(value=value) for block, value in drawn.items()}

    def _draw_with_address(self, session: DataSession) -> Updates:
        return merge_updates(self._draw(session), self._frame.address(session.query_now()))

    async def _act(self, session: DataSession, api_key: str, action: Action) -> AsyncGenerator[Updates]:
        steps = {
            "uploaded": self._take, "refused": self._refuse, "refresh": self._refresh, "open": self._open,
            "close": self._close, "base": self._choose_base, "page": self._turn, "delete": self._delete,
            "clean": self._clean,
        }  # fmt: skip
        if not session.opened:  # the server was restarted: reload the page from the browser's state
            yield {self._upload: gr.update(value="<span data-reload></span>")}
            return
        if (step := steps.get(action.name)) is None:
            return
        session.trouble, session.message = None, Markup()
        try:
            async for _ in step(session, api_key, action):
                yield self._draw_with_address(session)
        except UIError as error:
            session.trouble, session.inspecting, session.cleaning = error.problem, False, False
            yield merge_updates(self._draw_with_address(session), self._ask_for_key(error.problem, session))
            return
        yield self._draw_with_address(session)

    def _ask_for_key(self, problem: Problem, session: DataSession) -> Updates:
        return self._frame.problem(problem, session) if problem.kind == "unauthorized" else {}

    async def _refresh(self, session: DataSession, api_key: str, _action: Action) -> AsyncGenerator[None]:
        await session.survey(self._client, api_key)
        session.files = await calls.files(self._client, api_key)
        yield

    async def _take(self, session: DataSession, api_key: str, action: Action) -> AsyncGenerator[None]:
        """Show a file that the browser has just uploaded, and open it when its check has ended."""
        session.open_file(action.text("file"))
        session.inspecting = True
        inspecting = asyncio.create_task(self._inspect(session, api_key))
        try:
            async for _ in self._until_checked(session, api_key):
                yield
            await inspecting
        finally:
            inspecting.cancel()

    async def _refuse(self, session: DataSession, _api_key: str, action: Action) -> AsyncGenerator[None]:
        name, message = action.text("name"), action.text("message")
        broken = message in ("", "network")
        key = "data.upload_broken" if broken else "data.upload_refused"
        session.message = render.message(session.language, key, "" if broken else message, name=name)
        yield

    async def _open(self, session: DataSession, api_key: str, action: Action) -> AsyncGenerator[None]:
        session.open_file(action.text("file"), session.base)
        session.inspecting = True
        await self._load_file(session, api_key)
        yield
        if session.file is not None:
            await self._inspect(session, api_key)

    async def _close(self, session: DataSession, _api_key: str, _action: Action) -> AsyncGenerator[None]:
        session.open_file("", session.base)
        yield

    async def _choose_base(self, session: DataSession, api_key: str, action: Action) -> AsyncGenerator[None]:
        session.base, session.inspecting = action.text("base"), True
        yield
        await self._inspect(session, api_key)

    async def _turn(self, session: DataSession, api_key: str, action: Action) -> AsyncGenerator[None]:
        way = calls.PAGE if action.text("way") == "1" else -calls.PAGE
        session.offset = max(0, session.offset + way)
        asked = session.file_id, session.base, session.offset
        page = await calls.examples(self._client, api_key, *asked)
        if (session.file_id, session.base, session.offset) == asked:  # otherwise a later click's page is shown
            session.page = page
        yield

    async def _delete(self, session: DataSession, api_key: str, action: Action) -> AsyncGenerator[None]:
        file_id = action.text("file")
        await calls.delete(self._client, api_key, file_id)
        if session.file_id == file_id:
            session.open_file("", session.base)
        session.files = await calls.files(self._client, api_key)
        session.message = render.message(session.language, "data.deleted", name=action.text("name"))
        yield

    async def _clean(self, session: DataSession, api_key: str, action: Action) -> AsyncGenerator[None]:
        if session.cleaning or session.file is None:
            return
        file_id, session.cleaning, session.cleaned, session.cleaning_problem = session.file_id, True, None, None
        yield
        cleaned = problem = None
        try:
            cleaned = await calls.clean(self._client, api_key, file_id, settings_of(action))
        except UIError as error:
            problem = error.problem
        if session.file_id == file_id:  # otherwise the user has opened another file meanwhile
            session.cleaning, session.cleaned, session.cleaning_problem = False, cleaned, problem
        async for _ in self._until_checked(session, api_key):
            yield

    async def _until_checked(self, session: DataSession, api_key: str) -> AsyncGenerator[None]:
        """Refresh the list, and again while the server is still checking a file."""
        for _ in range(_LOOKS):
            session.files = await calls.files(self._client, api_key)
            yield
            if not any(file["status"] == "uploaded" for file in session.files):
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _load_file(self, session: DataSession, api_key: str) -> None:
        """Add the open file to the list if it is missing; show a message if the file doesn't exist."""
        session.files = await calls.files(self._client, api_key)
        if session.file is not None:
            return
        try:
            session.files = [await calls.file(self._client, api_key, session.file_id), *session.files]
        except UIError as error:
            if error.problem.kind in ("unauthorized", "unreachable"):
                raise
            session.message = render.message(session.language, "data.gone")
            session.open_file("")

    async def _inspect(self, session: DataSession, api_key: str) -> None:
        """Get report and examples of the open file; if another was opened meanwhile, its own handler does."""
        asked = session.file_id, session.base, session.offset
        session.inspecting, session.report_problem = True, None
        report = page = problem = None
        try:
            report, page = await asyncio.gather(
                calls.report(self._client, api_key, asked[0], asked[1]), calls.examples(self._client, api_key, *asked)
            )
        except UIError as error:
            problem = error.problem
        if (session.file_id, session.base, session.offset) == asked:
            session.inspecting, session.report, session.page, session.report_problem = False, report, page, problem
