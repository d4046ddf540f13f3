"""The training page: a form with a preflight, the queue, and one job with live curves.

Owns what each action does; `state` owns the state, `form`, `jobs` and `job` the HTML. The
browser polls every two seconds (`train.js`), and only changed blocks are sent. The address contains the open job, so
that it stays open after a refresh and after a restart of the server.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr
from markupsafe import Markup

from ui.frame.captions import Updates, merge_updates
from ui.frame.live import Action, live_html, on_steps
from ui.frame.session import Session
from ui.frame.shell import Frame
from ui.html.templates import render
from ui.pages.data import calls as data_calls
from ui.pages.data.render import message, problem_box
from ui.pages.train import calls, form, jobs
from ui.pages.train import job as train_job
from ui.pages.train.state import GOING_ON, OpenJob, TrainSession, state_of
from ui.server_client import Problem, UIError

POLL_SCRIPT = Path(__file__).with_name("train.js").read_text(encoding="utf-8")
UNFOLD_SCRIPT = Path(__file__).with_name("details.js").read_text(encoding="utf-8")
CHANGES = ("pause", "resume", "cancel")


class TrainPage:
    """The page in the current Blocks."""

    session_class: ClassVar[type[Session]] = TrainSession

    def __init__(self, frame: Frame) -> None:
        self._frame, self._client = frame, frame.client
        self._blocks: dict[Any, Callable[[TrainSession], str]] = {
            live_html(): _heading,
            live_html(spoken=True): _notice,
            live_html(script=UNFOLD_SCRIPT): form.form,
            live_html(script=UNFOLD_SCRIPT): form.preflight,
            live_html(): jobs.jobs,
            live_html(script=POLL_SCRIPT): train_job.job,
            live_html(script=UNFOLD_SCRIPT): train_job.curves,
            live_html(): train_job.history,
        }
        self._watched = next(block for block, draw in self._blocks.items() if draw is train_job.job)
        outputs = [*self._blocks, frame.address_bar, *frame.outputs]
        for block in self._blocks:
            on_steps(block, self._act, frame, outputs)

    @property
    def outputs(self) -> list[Any]:
        """Every component that `open` and `translate` update."""
        return list(self._blocks)

    def translate(self, session: TrainSession) -> Updates:
        """Return the whole page in the session's language."""
        session.drawn = {}
        return self._draw(session)

    async def open(self, session: TrainSession, api_key: str, query: dict[str, str]) -> Updates:
        """Show the form with the file in the address, the jobs, and the job in the address."""
        session.opened = True
        session.trouble, session.message, session.preflight, session.form_problem = None, Markup(), None, None
        session.checking = session.starting = session.looking = False
        session.file_id, session.model = query.get("file", ""), query.get("model", "")
        session.open_job = OpenJob(query["job"]) if query.get("job") else None
        await session.survey(self._client, api_key)
        session.files = await data_calls.files(self._client, api_key)
        session.jobs = await calls.jobs(self._client, api_key)
        await self._follow(session, api_key)
        return self.translate(session)

    def _draw(self, session: TrainSession) -> Updates:
        """Return updates for the blocks that have changed."""
        updates: Updates = {}
        for block, draw in self._blocks.items():
            value = draw(session)
            if session.drawn.get(block) != value:
                session.drawn[block] = value
                updates[block] = gr.update(value=value)
        return updates

    async def _act(self, session: TrainSession, api_key: str, action: Action) -> AsyncGenerator[Updates]:
        if not session.opened:  # the server was restarted: reload the page from the browser's state
            yield {self._watched: gr.update(value="<span data-reload></span>")}
            return
        steps = {
            "look": self._poll, "changed": self._changed, "check": self._check, "start": self._start,
            "open": self._open, "close": self._close, **dict.fromkeys(CHANGES, self._change),
        }  # fmt: skip
        if (step := steps.get(action.name)) is None:
            return
        if action.name != "look":
            session.trouble, session.message = None, Markup()
        try:
            async for _ in step(session, api_key, action):
                yield self._draw_with_address(session)
        except UIError as error:
            session.trouble, session.checking, session.starting = error.problem, False, False
            yield merge_updates(self._draw_with_address(session), self._ask_for_key(error.problem, session))

    def _draw_with_address(self, session: TrainSession) -> Updates:
        drawn = self._draw(session)
        query = str(session.query_now())
        if session.drawn.get("address") != query:
            session.drawn["address"] = query
            drawn |= self._frame.address(session.query_now())
        return drawn or {self._watched: gr.update()}  # Gradio treats an empty result as an error

    def _ask_for_key(self, problem: Problem, session: TrainSession) -> Updates:
        return self._frame.problem(problem, session) if problem.kind == "unauthorized" else {}

    async def _poll(self, session: TrainSession, api_key: str, _action: Action) -> AsyncGenerator[None]:
        if session.looking:
            return
        session.looking = True
        try:
            session.jobs = await calls.jobs(self._client, api_key)
            await self._follow(session, api_key)
            session.trouble = None if session.trouble and session.trouble.kind == "unreachable" else session.trouble
        finally:
            session.looking = False
        yield

    async def _changed(self, session: TrainSession, _api_key: str, _action: Action) -> AsyncGenerator[None]:
        """Mark the preflight as outdated after a change in the form."""
        session.outdated, session.form_problem = session.preflight is not None, None
        yield

    async def _check(self, session: TrainSession, api_key: str, action: Action) -> AsyncGenerator[None]:
        if session.checking:
            return
        session.checking, session.form_problem, session.preflight, session.outdated = True, None, None, False
        yield
        try:
            body = form.request_of(action, await self._method(session, api_key, action))
            session.preflight, session.checked_body = await calls.preflight(self._client, api_key, body), body
        except UIError as error:
            session.form_problem = error.problem
            if error.problem.kind == "unauthorized":
                raise
        finally:
            session.checking = False
        yield

    async def _method(self, session: TrainSession, api_key: str, action: Action) -> str:
        """Return the selected method; for `auto`, the one that suits the file's examples."""
        if action.text("method") not in ("", "auto"):
            return action.text("method")
        found = await data_calls.report(self._client, api_key, action.text("training_file"), "")
        return str(found["method"])

    async def _start(self, session: TrainSession, api_key: str, _action: Action) -> AsyncGenerator[None]:
        if session.starting or session.outdated or session.checked_body is None:
            return
        session.starting = True
        yield
        try:
            job = await calls.create(self._client, api_key, session.checked_body)
            session.preflight, session.checked_body = None, None
            session.open_job = OpenJob(job["id"], job)
            session.jobs = await calls.jobs(self._client, api_key)
            await self._follow(session, api_key)
        except UIError as error:
            session.form_problem = error.problem
        finally:
            session.starting = False
        yield

    async def _open(self, session: TrainSession, api_key: str, action: Action) -> AsyncGenerator[None]:
        session.open_job = OpenJob(action.text("job"))
        await self._follow(session, api_key)
        yield

    async def _close(self, session: TrainSession, _api_key: str, _action: Action) -> AsyncGenerator[None]:
        session.open_job = None
        yield

    async def _change(self, session: TrainSession, api_key: str, action: Action) -> AsyncGenerator[None]:
        opened = session.open_job
        if opened is None or opened.changing or opened.id != action.text("job"):
            return
        opened.changing = True
        yield
        try:
            opened.job = await calls.change(self._client, api_key, opened.id, action.name)
            session.jobs = await calls.jobs(self._client, api_key)
        finally:
            opened.changing = False
        await self._follow(session, api_key)
        yield

    async def _follow(self, session: TrainSession, api_key: str) -> None:
        """Refresh the open job; a job that has ended is requested once more, then no longer."""
        opened = session.open_job
        if opened is None or not (opened.goes_on or opened.job is None or not opened.events):
            return
        try:
            listed = next((job for job in session.jobs or () if job["id"] == opened.id), None)
            job = listed or await calls.job(self._client, api_key, opened.id)
        except UIError as error:
            if error.problem.kind in ("unauthorized", "unreachable", "too_busy"):
                raise
            session.open_job, session.message = None, message(session.language, "train.gone")
            return
        # The job first: later events are found by the next poll, and the last poll is after the end.
        fresh = await calls.events_since(self._client, api_key, opened.id, opened.last_event)
        known = {event["id"] for event in opened.events}
        opened.events += [event for event in fresh if event["id"] not in known]
        if fresh or state_of(job) not in GOING_ON:  # an event reports a new checkpoint
            opened.checkpoints = await calls.checkpoints(self._client, api_key, opened.id)
        opened.job = job


def _heading(session: TrainSession) -> str:
    return render("pages/train/templates/heading.html", session.language)


def _notice(session: TrainSession) -> str:
    return session.message + problem_box(session.language, session.trouble)
