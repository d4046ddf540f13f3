"""What one browser tab holds on the server while it is open.

Gradio keeps one `Session` per tab, so two tabs never share anything. It is mutable on purpose: handlers of the same tab
run beside each other. A page with more to hold has a subclass of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ui.server_client import Model, Problem, Readiness, ServerClient, UIError
from ui.words.i18n import Language

FRAME_S = 0.06
"""Time between two drawings: text flows smoothly, and a fast model doesn't flood the browser."""


@dataclass
class Session:
    """One tab's state."""

    language: Language = "en"
    is_language_asked: bool = False
    """Whether the reader chose it in this tab: what the page opens with doesn't overrule that."""
    query: dict[str, str] = field(default_factory=dict)
    """The address's query when the tab was opened."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What the page put into `Kept` before the refresh; empty in a fresh tab."""
    fields: dict[str, Any] = field(default_factory=dict)
    """The inputs that `Kept.fields` kept, by name."""
    api_key: str | None = None
    """The key that the tab uses now; None before it has opened."""
    readiness: Readiness = "ready"
    models: tuple[Model, ...] = ()
    """The served models when last asked."""
    models_problem: Problem | None = None
    """Why they could not be listed."""

    async def survey(self, client: ServerClient, api_key: str) -> None:
        """Asks the server anew for its readiness and its models; what an earlier key is told late doesn't count."""
        readiness = await client.readiness()
        models: tuple[Model, ...] = ()
        problem = None
        try:
            models = tuple(await client.models(api_key))
        except UIError as error:
            problem = error.problem
        if self.api_key in (None, api_key):
            self.readiness, self.models, self.models_problem = readiness, models, problem
