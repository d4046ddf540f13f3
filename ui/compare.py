"""The compare page: what happens when its controls are used.

One prompt goes to two models, both answers stream side by side, a vote is stored through the API. Owns the handlers;
`compare_layout` owns the components, `session` the tab's state, `client` the wire.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import gradio as gr

from ui import render
from ui.captions import Captions, Updates, merged
from ui.client import Model, Question, ServerClient, UIError, Verdict
from ui.compare_layout import lay_out
from ui.i18n import Language
from ui.panes import SIDES, Comparison
from ui.session import Session
from ui.style import KEY_JS


class ComparePage:
    """The page in the current `gr.Blocks`; `session` is the `gr.State` that holds each tab's `Session`."""

    def __init__(self, client: ServerClient, session: Any, language: Language, example_prompts: Sequence[str]) -> None:
        self._client = client
        self._session = session
        self._captions = Captions(language)
        self._controls = lay_out(self._captions, language, example_prompts)
        self._wire()

    @property
    def api_key(self) -> Any:
        """The component that holds the tab's key."""
        return self._controls.api_key

    @property
    def outputs(self) -> list[Any]:
        """Every component that `open` and `speak` update."""
        c = self._controls
        drawn = [c.introduction, c.banner, c.key_group, c.api_key, c.notice, c.retry, *c.panes, c.vote_note]
        return list(dict.fromkeys([*drawn, *self._captions.components]))

    async def open(self, session: Session, api_key: str) -> Updates:
        """What a tab shows at first, in the session's language."""
        models = await self._list_models(session, api_key, None, None)
        return merged(self.speak(session), models, {self._controls.api_key: gr.update(value=api_key)})

    def speak(self, session: Session) -> Updates:
        """The whole page in the session's language, nothing else changed."""
        c = self._controls
        introduction = {c.introduction: gr.update(value=render.introduction(session.language))}
        return merged(
            self._captions.updates(session.language),
            introduction,
            self._banner(session),
            self._drawn(session),
            self._say(""),
        )

    def _wire(self) -> None:
        c = self._controls
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        tab = [self._session, c.api_key]
        played = [*c.panes, c.send, c.stop, c.notice, c.key_group, c.vote_note, c.comment, *c.votes.values()]
        question = [c.prompt, c.first_model, c.second_model, c.blind, c.temperature, c.max_tokens]
        gr.on([c.send.click, c.prompt.submit], self._ask, [*tab, *question], played, **quiet)
        c.stop.click(self._stop, [self._session], [c.stop], **quiet)
        for verdict, button in c.votes.items():
            button.click(partial(self._vote, verdict), [*tab, c.comment], played, **quiet)
        for button in c.examples:
            button.click(_same, [button], [c.prompt], **quiet)
        chosen = [c.first_model, c.second_model]
        listed = [c.banner, c.key_group, c.retry, c.notice, *chosen]
        gr.on([c.refresh.click, c.retry.tick], self._list_models, [*tab, *chosen], listed, **quiet)
        keyed = [c.api_key, self._session, *chosen]
        gr.on([c.use_key.click, c.api_key.submit], self._use_key, keyed, listed, js=KEY_JS, **quiet)

    async def _list_models(self, session: Session, api_key: str, first: str | None, second: str | None) -> Updates:
        c = self._controls
        await session.survey(self._client, api_key)
        choices = [model.name for model in session.models]
        first, second = _choose(session.models, first, second)
        chosen = {
            c.first_model: gr.update(choices=choices, value=first),
            c.second_model: gr.update(choices=choices, value=second),
        }
        return merged(chosen, self._banner(session), self._say(""))

    async def _use_key(self, api_key: str, session: Session, first: str | None, second: str | None) -> Updates:
        updates = await self._list_models(session, api_key, first, second)
        refused = session.models_problem
        return merged(updates, self._say(render.problem_box(refused, session.language) if refused else ""))

    async def _ask(
        self,
        session: Session,
        api_key: str,
        prompt: str,
        first: str | None,
        second: str | None,
        blind: bool,
        temperature: float,
        max_tokens: int,
    ) -> AsyncGenerator[Updates]:
        objection = _objection(prompt, first, second)
        if objection or session.comparison.running:
            yield self._say(render.notice(objection, session.language) if objection else "")
            return
        question = Question(prompt, (first or "", second or ""), blind, temperature, int(max_tokens))
        yield {self._controls.comment: gr.update(value="")}
        async with aclosing(session.follow(self._client, question, api_key)) as states:
            async for number, comparison in _numbered(states):
                whole = number == 0 or not comparison.running
                yield merged(self._drawn(session), self._say("")) if whole else self._drawn_panes(session)
        if any(pane.problem and pane.problem.kind == "unauthorized" for pane in session.comparison.panes):
            yield {self._controls.key_group: gr.update(visible=True)}

    def _stop(self, session: Session) -> Updates:
        session.stop_requested = True
        return {self._controls.stop: gr.update(interactive=False)}

    async def _vote(self, verdict: Verdict, session: Session, api_key: str, comment: str) -> AsyncGenerator[Updates]:
        comparison = session.comparison
        if session.voting or not comparison.can_be_rated or comparison.comparison_id is None:
            yield self._say("" if session.voting else render.notice("vote.gone", session.language))
            return
        session.voting = True
        try:
            yield self._vote_switch(False)
            said = ""
            try:
                rating = await self._client.rate(comparison.comparison_id, verdict, comment.strip(), api_key)
                if session.comparison is comparison:  # else the reader has gone on to the next prompt
                    session.comparison = comparison.rate(verdict, rating)
            except UIError as error:
                said = render.problem_box(error.problem, session.language)
            yield merged(self._drawn(session), self._say(said))
        finally:
            session.voting = False

    def _drawn(self, session: Session) -> Updates:
        c = self._controls
        comparison = session.comparison
        buttons = {
            c.send: gr.update(visible=not comparison.running),
            c.stop: gr.update(visible=comparison.running, interactive=True),
            c.vote_note: gr.update(value=render.vote_note(comparison, session.language)),
        }
        return self._drawn_panes(session) | buttons | self._vote_switch(comparison.can_be_rated)

    def _drawn_panes(self, session: Session) -> Updates:
        now_s = time.monotonic()
        return {
            component: gr.update(value=render.pane(session.comparison, side, session.language, now_s))
            for side, component in zip(SIDES, self._controls.panes, strict=True)
        }

    def _vote_switch(self, enabled: bool) -> Updates:
        return {
            component: gr.update(interactive=enabled)
            for component in (*self._controls.votes.values(), self._controls.comment)
        }

    def _banner(self, session: Session) -> Updates:
        c = self._controls
        html = _banner_html(session)
        waiting = session.readiness != "ready"
        refused = session.models_problem is not None and session.models_problem.kind == "unauthorized"
        return {
            c.banner: gr.update(value=html, visible=bool(html)),
            c.key_group: gr.update(visible=refused),
            c.retry: gr.update(active=waiting),
        }

    def _say(self, html: str) -> Updates:
        return {self._controls.notice: gr.update(value=html, visible=bool(html))}


def _banner_html(session: Session) -> str:
    if session.readiness != "ready":
        return render.readiness(session.readiness, session.language)
    if session.models_problem is not None:
        known = session.models_problem.kind == "unauthorized"  # the key's field says it
        return "" if known else render.problem_box(session.models_problem, session.language)
    if any(model.parent for model in session.models):
        return ""
    return render.empty_state(session.language, has_base=bool(session.models))


def _choose(models: Sequence[Model], first: str | None, second: str | None) -> tuple[str | None, str | None]:
    """What was chosen where it is still served; else the base on the left and the newest tuned model on the right."""
    names = {model.name for model in models}
    base = next((model.name for model in models if model.parent is None), None)
    tuned = next((model.name for model in reversed(models) if model.parent is not None), None)
    return (first if first in names else base), (second if second in names else tuned)


def _objection(prompt: str, first: str | None, second: str | None) -> str | None:
    """The key of the reason why this can't be asked, None when it can."""
    if not first or not second or first == second:
        return "notice.two_models"
    return None if prompt.strip() else "notice.no_prompt"


async def _numbered(states: AsyncIterator[Comparison]) -> AsyncGenerator[tuple[int, Comparison]]:
    number = 0
    async for state in states:
        yield number, state
        number += 1


def _same(words: str) -> str:
    return words
