"""The form for a new campaign: its HTML, and the API's body from its fields.

Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ui.frame.live import Action
from ui.html.templates import render
from ui.words.i18n import Language

DEFAULTS = {"temperature": 0.7, "max_tokens": 512, "raters_per_item": 2}
MODELS = range(2, 9)
"""Number of models in a campaign."""


class Objection(Exception):
    """The form can't be submitted; `key` and `values` are those of the message."""

    def __init__(self, key: str, **values: str) -> None:
        super().__init__(key)
        self.key, self.values = key, values


def body_of(action: Action) -> dict[str, Any]:
    """Return the body of `POST /v1/campaigns`.

    Raises:
        Objection: a value is missing or not a number.
    """
    name, models = action.text("name"), action.checked_values("models")
    if not name:
        raise Objection("no_name")
    if len(models) not in MODELS:
        raise Objection("few_chosen")
    limit = {"limit": _number(action, "limit", int)} if action.text("limit") else {}
    sampling = {
        "temperature": _number(action, "temperature", float),
        "max_tokens": _number(action, "max_tokens", int),
    }
    return {
        "name": name,
        "models": models,
        **_prompts(action),
        **limit,
        "raters_per_item": _number(action, "raters_per_item", int),
        "sampling": sampling,
        "dimensions": bool(action.checked_values("dimensions")),
    }


def _prompts(action: Action) -> dict[str, Any]:
    match action.text("source"):
        case "upload":
            if "file" in action.refused:
                raise _upload_objection(action.refused["file"])
            if "file" not in action.files:
                raise Objection("no_file")
            return {"prompts_file": action.files["file"]}
        case "stored":
            if not action.text("stored"):
                raise Objection("no_file")
            return {"prompts_file": action.text("stored")}
    prompts = [line.strip() for line in action.text("prompts").splitlines() if line.strip()]
    if not prompts:
        raise Objection("no_prompts")
    return {"prompts": prompts}


def _upload_objection(reason: str) -> Objection:
    """Return the message for a failed upload; for a lost connection the browser knows no details."""
    return Objection("upload_broken") if reason in ("", "network") else Objection("upload_failed", reason=reason)


def _number(action: Action, name: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(action.text(name))
    except ValueError as error:
        raise Objection("no_number") from error


def new_campaign(models: Sequence[str], files: Sequence[Mapping[str, Any]], language: Language, number: int) -> Markup:
    """Return the form; `number` is the number of campaigns created in this tab: the form is empty for the next."""
    return render(
        "pages/campaigns/templates/new_campaign.html",
        language,
        models=models,
        fewest=MODELS.start,
        files=files,
        number=number,
        defaults=DEFAULTS,
    )
