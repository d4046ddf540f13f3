"""Draws the Compare page: which component shows which part of a tab's state.

Owns the updates that handlers return. Knows nothing of actions or requests.
"""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from ui.frame.captions import Updates, merge_updates
from ui.frame.shell import Frame
from ui.html import elements
from ui.pages.compare import render
from ui.pages.compare.layout import FEWEST, MOST, CompareControls
from ui.pages.compare.session import CompareSession


class CompareView:
    """The page's components, and what they show."""

    def __init__(self, controls: CompareControls, frame: Frame) -> None:
        self._controls = controls
        self._frame = frame

    @property
    def listing(self) -> list[Any]:
        """The components that a new list of models updates."""
        c = self._controls
        return [c.banner, c.retry, *c.models, *self._frame.outputs]

    @property
    def conversing(self) -> list[Any]:
        """The components that a conversation updates."""
        c = self._controls
        answers = [c.asked, c.past, c.last_prompt, *c.panes, c.actions, c.announcement]
        drawn = [c.shared, *answers, c.notice, c.editing, c.composer]
        played = [c.prompt, c.sent, c.example_row, c.send, c.stop, c.more, c.fewer, c.count, c.system, *c.models]
        return [*drawn, *played, self._frame.storage.component, self._frame.address_bar, *self._frame.outputs]

    def show_conversation_settings(self, session: CompareSession) -> Updates:
        """Show the conversation's models and system prompt in the fields, so that the next prompt uses them."""
        c, conversation = self._controls, session.conversation
        named = {
            component: gr.update(value=name) for component, name in zip(c.models, conversation.models, strict=False)
        }
        return merge_updates(
            self.set_model_count(len(conversation.models)), named, {c.system: gr.update(value=conversation.system)}
        )

    def draw(self, session: CompareSession) -> Updates:
        """Draw the whole conversation."""
        c, conversation, language = self._controls, session.conversation, session.language
        running, seen = conversation.running, {"differences": session.differences, "shared": session.shared}
        shared = render.shared_note(conversation, language) if session.shared else ""
        editing = self._editing_note(session)
        return {
            c.shared: gr.update(value=shared, visible=session.shared),
            c.asked: gr.update(value=session.asked),
            c.past: gr.update(value=render.past(conversation, language, **seen)),
            c.last_prompt: gr.update(value=render.last_prompt(conversation, language, shared=session.shared)),
            c.actions: gr.update(value=render.actions(conversation, language, **seen)),
            c.announcement: gr.update(value=render.announcement(conversation, language)),
            c.editing: gr.update(value=editing, visible=bool(editing)),
            c.composer: gr.update(visible=not session.shared),
            c.send: gr.update(visible=not running),
            c.stop: gr.update(visible=running, interactive=True),
            c.example_row: gr.update(visible=bool(c.examples) and not conversation.turns),
            **self.draw_panes(session),
        }

    def _editing_note(self, session: CompareSession) -> str:
        if session.editing is None:
            return ""
        later = len(session.conversation.turns) - session.editing - 1
        return render.editing_note(session.editing, later, session.language)

    def draw_panes(self, session: CompareSession) -> Updates:
        """Draw the last turn's panes that have changed."""
        now_s, updates, turns = time.monotonic(), {}, session.conversation.turns
        for place, component in enumerate(self._controls.panes):
            there = bool(turns) and place < len(turns[-1].panes)
            drawn = (
                render.pane(turns[-1], place, session.language, now_s, differences=session.differences) if there else ""
            )
            if session.drawn.get(place) != drawn:
                session.drawn[place] = drawn
                updates[component] = gr.update(value=drawn, visible=there)
        return updates

    def save(self, session: CompareSession) -> Updates:
        """Save the conversation for a refresh."""
        return self._frame.storage.put(session.conversation.to_json() | {"differences": session.differences})

    def banner(self, session: CompareSession) -> Updates:
        """Show what the user should know first, and start the timer if the engine isn't ready."""
        c = self._controls
        banner = _banner_html(session)
        return {
            c.banner: gr.update(value=banner, visible=bool(banner)),
            c.retry: gr.update(active=session.readiness != "ready"),
        }

    def say(self, words: str) -> Updates:
        """Show why the last click did nothing; '' clears it."""
        return {self._controls.notice: gr.update(value=words, visible=bool(words))}

    def set_model_count(self, count: int) -> Updates:
        """Set the number of models."""
        return self.show_fields(count) | {self._controls.count: gr.update(value=count)}

    def show_fields(self, count: int) -> Updates:
        """Show the fields and buttons for this number of models."""
        c = self._controls
        shown = {component: gr.update(visible=number < count) for number, component in enumerate(c.models)}
        return shown | {c.more: gr.update(visible=count < MOST), c.fewer: gr.update(visible=count > FEWEST)}


def _banner_html(session: CompareSession) -> str:
    if session.readiness != "ready":
        return elements.readiness(session.readiness, session.language)
    if session.models_problem is not None:
        known = session.models_problem.kind == "unauthorized"  # the frame shows it, with the key's field
        return "" if known else elements.problem_box(session.models_problem, session.language)
    if any(model.parent for model in session.models):
        return ""
    return elements.empty_state(session.language, has_base=bool(session.models))
