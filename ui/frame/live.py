"""Interactive HTML blocks: each has one event, whatever HTML it contains.

In a live block, an element with `data-do="NAME"` triggers an action when clicked, a `<form data-do="NAME">` when
submitted. Python gets one `Action`: the name, the other `data-` values, the form's fields by name, and the ids
of uploaded files. `live.js` reads these further attributes:

- `<form data-keep="KEY">` keeps its fields when redrawn or when the tab is refreshed; `data-send` submits it on change.
- `data-forget="KEY"` drops what is kept under KEY, after it was submitted successfully.
- `<form data-fresh="TOKEN">` resets to its HTML when TOKEN (or KEY) changes; with `data-turn="N"`, where N is the
  highest `action.turn` that this HTML responds to (0 at first), not while a later turn is in progress.
- An input with `data-lasting="KEY"` is remembered by the browser for the next visit; one with `data-tell="NAME"`
  triggers an action on change.
- `data-focus="TOKEN"` takes the focus once for each new token; an element with an id keeps it when redrawn.
- `<textarea data-enter>` submits with Enter; Ctrl+Enter submits from any.
- `data-confirm="question"` asks before the action; `data-copy="ADDRESS"` copies, then shows `data-copied`.
- `data-address="PATH"` shows the full address of this path.
- `<time data-unix="SECONDS">` shows this time in the user's time zone and format.
- `data-countdown="SECONDS"` counts down and hides the nearest `[data-until-zero]` at its end; it restarts for another
  `data-clock="TOKEN"`.

Owns the way from the browser to the handler. Knows nothing of any page.
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
"""Handles an action: (session, api_key, action, *further inputs) → updates, in any number of steps."""


@dataclass(frozen=True)
class Action:
    """What the user did in a live block."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    """str for a text or a radio group, list[str] for a group of checkboxes."""
    files: dict[str, str] = field(default_factory=dict)
    """File inputs by name: the id of the file, uploaded by the browser with the input's `data-purpose`."""
    refused: dict[str, str] = field(default_factory=dict)
    """File inputs by name: the server's message if the upload failed."""

    @classmethod
    def of(cls, event: gr.EventData) -> Action:
        """Return the event's action; its name is '' if the event has none."""
        fields = dict(event._data) if isinstance(event._data, dict) else {}
        sent = fields.pop("files", None) or {}
        files = {name: str(file["id"]) for name, file in sent.items() if "id" in file}
        refused = {name: str(file["error"]) for name, file in sent.items() if "error" in file}
        return cls(str(fields.pop("do", "")), fields, files, refused)

    @property
    def turn(self) -> int:
        """How often the form with `data-turn` was submitted, including this time; otherwise 0."""
        turn = self.fields.get("turn")
        return turn if isinstance(turn, int) else 0

    def text(self, name: str) -> str:
        """Return the field's text, stripped; '' if it is missing."""
        value = self.fields.get(name)
        return value.strip() if isinstance(value, str) else ""

    def checked_values(self, name: str) -> list[str]:
        """Return the values of the ticked checkboxes with this name."""
        value = self.fields.get(name)
        return [str(one) for one in value] if isinstance(value, list) else []


def live_html(value: str = "", *, script: str = "", spoken: bool = False, **properties: Any) -> Any:
    """Return a live block; `script` runs after `live.js` and can use `element`, `act(name, fields)` and `trigger`.

    spoken: whether screen readers announce changes.
    """
    return gr.HTML(
        value, js_on_load=SCRIPT + script, spoken=spoken, apply_default_css=False, elem_classes="tl-html", **properties
    )


def on_action(block: Any, handler: Any, inputs: list[Any], outputs: list[Any]) -> None:
    """Call `handler(*inputs, event)` for each of the block's actions, concurrently if they overlap.

    A generator must yield at least once: otherwise Gradio empties all its outputs.
    """
    block.submit(handler, inputs, outputs, trigger_mode="multiple", **QUIET)


def on_steps(block: Any, handler: Handler, frame: Frame, outputs: list[Any], *further: Any) -> None:
    """Call `handler(session, api_key, action, *further inputs)`, an async generator that may yield nothing."""

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
