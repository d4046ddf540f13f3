"""HTML of our own that answers to the reader: one block, one event, whatever stands in it.

Inside a live block an element with `data-do="NAME"` acts when clicked, and a `<form data-do="NAME">` when sent. Either
way Python gets one `Action`: the name, the element's other `data-` values, the form's fields by name, and the ids
under which chosen files were stored. Further signs in the HTML, all read by `live.js`:

- `<form data-keep="KEY">` keeps its fields over a redrawing and a refresh of the tab; `data-send` sends it at a change.
- `data-forget="KEY"` drops what was kept under KEY, where it was sent for good.
- `<form data-fresh="TOKEN">` goes back to what its HTML says when TOKEN (or KEY) changes; with `data-turn="N"`, N being
  the greatest `action.turn` that this HTML answers (0 at first), not while a later turn is on its way.
- An input with `data-lasting="KEY"` is remembered by the browser for its next visit; one with `data-tell="NAME"` acts
  when it was changed.
- `data-focus="TOKEN"` takes the focus, once for each new token; an element with an id keeps it over a redrawing.
- `<textarea data-enter>` sends with Enter; Ctrl+Enter sends from any.
- `data-confirm="question"` asks before acting; `data-copy="ADDRESS"` copies, then says `data-copied`.
- `data-address="PATH"` shows the whole address of that path as the reader must type it.
- `<time data-unix="SECONDS">` shows that moment in the reader's zone and manner.
- `data-countdown="SECONDS"` counts down and hides the nearest `[data-until-zero]` at its end; anew for another
  `data-clock="TOKEN"`.

Owns the passage from browser to handler. Knows nothing of any page.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from ui.frame.captions import Updates
from ui.frame.shell import QUIET, Frame

SCRIPT = Path(__file__).with_name("live.js").read_text(encoding="utf-8")


Handler = Callable[..., AsyncGenerator[Updates]]
"""What answers an action: (session, api_key, action, *further inputs) → what to redraw, in any number of steps."""


@dataclass(frozen=True)
class Action:
    """What the reader did in a live block."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    """A text or a radio's choice is str, a group of checkboxes list[str]."""
    files: dict[str, str] = field(default_factory=dict)
    """File inputs by name: the id of the file that the browser has uploaded with the input's `data-purpose`."""
    refused: dict[str, str] = field(default_factory=dict)
    """File inputs by name: why the upload failed, in the server's words."""

    @classmethod
    def of(cls, event: gr.EventData) -> Action:
        """The action that the event carries; an event without one is the action named ''."""
        told = dict(event._data) if isinstance(event._data, dict) else {}
        sent = told.pop("files", None) or {}
        files = {name: str(file["id"]) for name, file in sent.items() if "id" in file}
        refused = {name: str(file["error"]) for name, file in sent.items() if "error" in file}
        return cls(str(told.pop("do", "")), told, files, refused)

    @property
    def turn(self) -> int:
        """How many times the form with `data-turn` had been sent, this time included; else 0."""
        turn = self.fields.get("turn")
        return turn if isinstance(turn, int) else 0

    def text(self, name: str) -> str:
        """The field's text without the white space around it; '' where it wasn't given."""
        value = self.fields.get(name)
        return value.strip() if isinstance(value, str) else ""

    def checked_values(self, name: str) -> list[str]:
        """The ticked values of the checkboxes of that name."""
        value = self.fields.get(name)
        return [str(one) for one in value] if isinstance(value, list) else []


def live_html(value: str = "", *, script: str = "", spoken: bool = False, **properties: Any) -> Any:
    """A live block; `script` runs after ours, with `element`, `act(name, fields)` and Gradio's `trigger` at hand.

    `spoken`: screen readers say what changes in it.
    """
    return gr.HTML(
        value, js_on_load=SCRIPT + script, spoken=spoken, apply_default_css=False, elem_classes="tl-html", **properties
    )


def on_action(block: Any, handler: Any, inputs: list[Any], outputs: list[Any]) -> None:
    """Calls `handler(*inputs, event)` for each of the block's actions, several at once where they overlap.

    A handler that is a generator must give something each time: Gradio empties every output of one that gives nothing.
    """
    block.submit(handler, inputs, outputs, trigger_mode="multiple", **QUIET)


def on_steps(block: Any, handler: Handler, frame: Frame, outputs: list[Any], *further: Any) -> None:
    """Calls `handler(session, api_key, action, *further inputs)`, an asynchronous generator that may give nothing."""

    async def act(session: Any, api_key: str, event: gr.EventData, *values: Any) -> AsyncGenerator[Updates]:
        is_drawn = False
        async with aclosing(handler(session, api_key, Action.of(event), *values)) as drawings:
            async for drawing in drawings:
                is_drawn = is_drawn or bool(drawing)
                if drawing:
                    yield drawing
        if not is_drawn:
            yield {block: gr.update()}

    on_action(block, act, [frame.session, frame.api_key, *further], outputs)
