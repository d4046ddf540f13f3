"""The Compare page: one conversation with two to four models side by side.

Owns what each control does; `layout` owns the components, `view` their contents,
`conversation` the state, `calls` the requests.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, ClassVar

import gradio as gr

from ui.frame.captions import Captions, Updates, merge_updates
from ui.frame.live import Action, on_steps
from ui.frame.session import Session
from ui.frame.shell import QUIET, Frame
from ui.html import elements
from ui.pages.compare import calls, render
from ui.pages.compare.calls import Sampling
from ui.pages.compare.conversation import Conversation
from ui.pages.compare.layout import FEWEST, MOST, lay_out
from ui.pages.compare.session import CompareSession
from ui.pages.compare.view import CompareView
from ui.server_client import Model, UIError

# Keep text that was typed while the prompt was being sent.
_EMPTY_PROMPT = "(sent, prompt) => sent && JSON.parse(sent)[1] === prompt ? '' : prompt"
KEEP_EVERY_S = 1.0
"""Seconds between two saves of a running conversation, for a refresh."""


class ComparePage:
    """The page in the current Blocks."""

    session_class: ClassVar[type[Session]] = CompareSession

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._captions = Captions(frame.language)
        self._controls = lay_out(self._captions, frame)
        self._view = CompareView(self._controls, frame)
        frame.storage.keep_fields(**self._controls.fields)
        self._wire()

    @property
    def outputs(self) -> list[Any]:
        """Every component that `open` and `translate` update."""
        c = self._controls
        listed = [
            c.introduction,
            *self._view.listing,
            *self._view.conversing,
            *c.fields.values(),
            *self._captions.components,
        ]
        return list(dict.fromkeys(listed))

    async def open(self, session: CompareSession, api_key: str, query: dict[str, str]) -> Updates:
        """Return what a tab shows at first, in the session's language."""
        if not session.conversation.turns:  # otherwise the user has only entered a key
            session.conversation = Conversation.from_json(session.kept)
        session.shared, session.editing, session.drawn = False, None, {}
        session.differences = session.kept.get("differences") is True
        restored = self._frame.storage.restore_fields(session)
        self._choose_by_query(session, query)
        listed = await self._list_models(session, api_key, *self._kept_choice(session))
        problem = await self._open_shared(session, api_key, query)
        return merge_updates(
            restored, listed, self._view.draw(session), self._view.set_model_count(self._kept_count(session)), problem
        )

    async def _open_shared(self, session: CompareSession, api_key: str, query: dict[str, str]) -> Updates:
        """Open the share link `?comparison=ID`: it replaces the tab's own conversation."""
        if not (shared := query.get("comparison")):
            return {}
        try:
            stored = await calls.comparison(self._frame.client, api_key, shared)
        except UIError as error:
            return self._frame.problem(error.problem, session)
        session.conversation, session.shared = Conversation.of_comparison(stored), True
        return {}

    def translate(self, session: CompareSession) -> Updates:
        """Return the whole page in the session's language, otherwise unchanged."""
        c = self._controls
        introduction = {c.introduction: gr.update(value=render.introduction(session.language))}
        session.drawn = {}
        return merge_updates(
            self._captions.updates(session.language),
            introduction,
            self._view.banner(session),
            self._view.draw(session),
            self._view.say(""),
        )

    def _wire(self) -> None:
        c, frame = self._controls, self._frame
        tab = [frame.session, frame.api_key]
        sampling = [c.temperature, c.top_p, c.max_tokens, c.seed]
        question = [*tab, c.asked, *sampling, c.system, c.count, c.prompt, *c.models]
        out = self._view.conversing
        # Allow several at once: a question sent right after an answer must not wait until Gradio has ended the one
        # before.
        gr.on([c.send.click, c.prompt.submit], self._send, question, out, trigger_mode="multiple", **QUIET)
        c.sent.change(None, [c.sent, c.prompt], [c.prompt], js=_EMPTY_PROMPT, **QUIET)
        c.stop.click(self._stop, [frame.session], [c.stop], **QUIET)
        # Counted in the browser, so that no click is lost while the previous one is in progress.
        c.more.click(None, [c.count], [c.count], js=f"count => Math.min(count + 1, {MOST})", **QUIET)
        c.fewer.click(None, [c.count], [c.count], js=f"count => Math.max(count - 1, {FEWEST})", **QUIET)
        c.count.change(self._count, [c.count], [*c.models, c.more, c.fewer], trigger_mode="always_last", **QUIET)
        for button in c.examples:
            button.click(_same, [button], [c.prompt], **QUIET)
        for block in (c.shared, c.past, c.last_prompt, c.actions, c.editing):
            on_steps(block, self._act, frame, out, c.asked, *sampling)
        gr.on([c.retry.tick, c.watch.tick], self._list_again, [*tab, *c.models], self._view.listing, **QUIET)

    # Models

    async def _list_models(self, session: CompareSession, api_key: str, *chosen: str | None) -> Updates:
        await session.survey(self._frame.client, api_key)
        choices = [model.name for model in session.models]
        named = _choose(session.models, chosen)
        listed = {
            component: gr.update(choices=choices, value=name)
            for component, name in zip(self._controls.models, named, strict=True)
        }
        refused = session.models_problem
        shut = {self._frame.key_group: gr.update(visible=False)}
        problem = self._frame.problem(refused, session) if refused and refused.kind == "unauthorized" else shut
        return merge_updates(listed if session.models else {}, self._view.banner(session), problem)

    async def _list_again(self, session: CompareSession, api_key: str, *chosen: str | None) -> Updates | Any:
        before = (session.readiness, session.models, session.models_problem)
        if session.models_problem and session.models_problem.kind == "unauthorized":
            return {self._controls.retry: gr.skip()}  # until the user enters another key
        updates = await self._list_models(session, api_key, *chosen)
        same = before == (session.readiness, session.models, session.models_problem)
        return {self._controls.retry: gr.skip()} if same else updates

    def _choose_by_query(self, session: CompareSession, query: dict[str, str]) -> None:
        """Select the models of `?models=A,B`, which other pages link to."""
        wanted = [name for name in query.get("models", "").split(",") if name][:MOST]
        session.fields |= {f"model_{number}": name for number, name in enumerate(wanted)}
        if len(wanted) >= FEWEST:
            session.fields["count"] = len(wanted)

    def _kept_choice(self, session: CompareSession) -> list[str | None]:
        return [session.fields.get(f"model_{number}") for number in range(MOST)]

    def _kept_count(self, session: CompareSession) -> int:
        kept = session.fields.get("count")
        return min(max(kept, FEWEST), MOST) if isinstance(kept, int) else FEWEST

    def _count(self, count: int) -> Updates:
        return self._view.show_fields(int(count))

    # Sending

    async def _send(
        self,
        session: CompareSession,
        api_key: str,
        seen: int,
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int | None,
        system: str,
        count: int,
        prompt: str,
        *models: str | None,
    ) -> AsyncGenerator[Updates]:
        if session.conversation.running or seen < session.asked:
            yield self._view.say("")  # Gradio would empty every output of a generator that gives nothing
            return
        chosen = models[: int(count)]
        if objection := _objection(prompt, chosen):
            yield self._view.say(elements.notice(objection, session.language))
            return
        earlier = session.conversation if session.editing is None else session.conversation.until(session.editing)
        sampling = _sampling(temperature, top_p, max_tokens, seed)
        session.ask(earlier.ask(prompt, [name or "" for name in chosen], system or "", time.monotonic()))
        sent = {self._controls.sent: gr.update(value=json.dumps([session.asked, prompt]))}
        async with aclosing(self._play(session, api_key, sampling, sent)) as frames:
            async for updates in frames:
                yield updates

    async def _play(
        self, session: CompareSession, api_key: str, sampling: Sampling, at_first: Updates
    ) -> AsyncGenerator[Updates]:
        view, kept_s, first = self._view, time.monotonic(), True
        session.drawn = {}
        async with aclosing(session.follow(self._frame.client, api_key, sampling)) as states:
            async for conversation in states:
                now_s = time.monotonic()
                if first or not conversation.running:
                    yield merge_updates(
                        view.draw(session),
                        view.say(""),
                        self._frame.say(),
                        view.save(session),
                        at_first if first else {},
                    )
                elif now_s - kept_s >= KEEP_EVERY_S:
                    kept_s = now_s
                    yield merge_updates(view.draw_panes(session), view.save(session))
                elif changed := view.draw_panes(session):
                    yield changed
                first = False
        for pane in conversation.turns[-1].panes:
            if pane.problem and pane.problem.kind == "unauthorized":
                yield self._frame.problem(pane.problem, session)
                return

    def _stop(self, session: CompareSession) -> Updates:
        session.stop_requested = True
        return {self._controls.stop: gr.update(interactive=False)}

    # Actions on a conversation

    async def _act(
        self, session: CompareSession, api_key: str, action: Action, seen: int, *sampling: Any
    ) -> AsyncGenerator[Updates]:
        last = session.conversation
        if last.running:
            return
        if action.name != "again":
            yield self._done(session, action)
        elif last.turns and seen >= session.asked:
            earlier, chosen = last.until(len(last.turns) - 1), _sampling(*sampling)
            session.ask(earlier.ask(last.turns[-1].prompt, last.models, last.system, time.monotonic()))
            async with aclosing(self._play(session, api_key, chosen, {})) as frames:
                async for updates in frames:
                    yield updates

    def _done(self, session: CompareSession, action: Action) -> Updates:
        match action.name:
            case "differences":
                session.differences = not session.differences
                return merge_updates(self._view.draw(session), {} if session.shared else self._view.save(session))
            case "edit":
                return self._edit(session, action.text("turn"))
            case "cancel":
                session.editing = None
                return merge_updates(self._view.draw(session), {self._controls.prompt: gr.update(value="")})
            case "new":
                session.conversation, session.shared, session.editing = Conversation(), False, None
                return merge_updates(self._view.draw(session), self._view.save(session), self._frame.address({}))
            case "go_on" if not session.conversation.nameless:
                session.shared = False
                return merge_updates(
                    self._view.draw(session),
                    self._view.save(session),
                    self._frame.address({}),
                    self._view.show_conversation_settings(session),
                )
        return {}

    def _edit(self, session: CompareSession, turn: str) -> Updates:
        number = int(turn) if turn.isdecimal() else -1
        if session.shared or not 0 <= number < len(session.conversation.turns):
            return {}
        session.editing = number
        prompt = session.conversation.turns[number].prompt
        return merge_updates(self._view.draw(session), {self._controls.prompt: gr.update(value=prompt)})


def _choose(models: Sequence[Model], chosen: Sequence[str | None]) -> list[str | None]:
    """Return the selected models; for empty fields the base, then the newest tuned models, aliases aside."""
    bases = [model.name for model in models if model.parent is None]
    tuned = [model.name for model in reversed(models) if model.parent in bases]  # an alias's parent is its version
    free = iter([name for name in [*bases[:1], *tuned] if name not in chosen])
    return [name or next(free, None) for name in chosen]


def _objection(prompt: str, models: Sequence[str | None]) -> str | None:
    """Return the key of the message why this can't be sent, or None if it can."""
    if not all(models) or len(set(models)) < len(models):
        return "notice.other_models"
    return None if prompt.strip() else "notice.no_prompt"


def _sampling(temperature: float, top_p: float, max_tokens: int, seed: int | None) -> Sampling:
    return Sampling(temperature, top_p, int(max_tokens), None if seed is None else int(seed))


def _same(words: str) -> str:
    return words
