"""The state of a browser tab on the server while the tab is open.

Gradio keeps one `Session` per tab, so tabs never share anything. It is mutable on purpose: handlers of the same tab
run concurrently. Pages with more state have their own subclass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ui.server_client import Model, Problem, Readiness, ServerClient, UIError
from ui.words.i18n import Language

FRAME_S = 0.06
"""Seconds between two updates: text flows smoothly, and a fast model doesn't flood the browser."""


@dataclass
class Session:
    """One tab's state."""

    language: Language = "en"
    is_language_asked: bool = False
    """Whether the user chose it in this tab; then the language at the next opening doesn't override it."""
    query: dict[str, str] = field(default_factory=dict)
    """The query of the address when the tab was opened."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What the page stored in `TabStorage` before the refresh; empty in a new tab."""
    fields: dict[str, Any] = field(default_factory=dict)
    """The values that `TabStorage.keep_fields` kept, by name."""
    api_key: str | None = None
    """The tab's current key; None before the page has opened."""
    readiness: Readiness = "ready"
    models: tuple[Model, ...] = ()
    """The served models, as of the last request."""
    models_problem: Problem | None = None
    """Why they couldn't be listed."""

    async def survey(self, client: ServerClient, api_key: str) -> None:
        """Get the server's readiness and models; late responses to an earlier key are ignored."""
        readiness = await client.readiness()
        models: tuple[Model, ...] = ()
        problem = None
        try:
            models = tuple(await client.models(api_key))
        except UIError as error:
            problem = error.problem
        if self.api_key in (None, api_key):
            self.readiness, self.models, self.models_problem = readiness, models, problem
