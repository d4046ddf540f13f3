"""The form for a new campaign: its HTML, and the API's body from what was filled in.

Knows nothing of HTTP or Gradio. Every foreign word is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ui.frame.live import Action
from ui.words.i18n import Language, text

SOURCES = ("paste", "upload", "stored")
DEFAULT_TEMPERATURE, DEFAULT_MAX_TOKENS, DEFAULT_RATERS = 0.7, 512, 2
MODELS = range(2, 9)
"""How many models a campaign compares."""


class Objection(Exception):
    """What was filled in can't be sent; `key` names the sentence that says why, `values` what stands in it."""

    def __init__(self, key: str, **values: str) -> None:
        super().__init__(key)
        self.key, self.values = key, values


def body_of(action: Action) -> dict[str, Any]:
    """The body of `POST /v1/campaigns`.

    Raises:
        Objection: something is missing or no number.
    """
    name, models = action.text("name"), action.chosen("models")
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
        "dimensions": bool(action.chosen("dimensions")),
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
    """Of a connection that broke the browser knows no more than that."""
    return Objection("upload_broken") if reason in ("", "network") else Objection("upload_failed", reason=reason)


def _number(action: Action, name: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(action.text(name))
    except ValueError as error:
        raise Objection("no_number") from error


def new_campaign(models: Sequence[str], files: Sequence[Mapping[str, Any]], language: Language, number: int) -> str:
    """The form; `number` counts the campaigns made here, so that each new one begins empty."""
    title = f'<h2 class="live-h2">{_said(language, "new")}</h2>'
    if len(models) < MODELS.start:
        few = _said(language, "too_few_models", count=len(models))
        return f'<section class="live-card">{title}<p>{few}</p></section>'
    return (
        f'<section class="live-card">{title}'
        f'<form class="camp-form" data-do="create" data-keep="campaigns.new.{number}">'
        f"{_field(language, 'name', 'text', placeholder=True, maxlength=128)}{_models(models, language)}"
        f"{_sources(files, language)}<div class='camp-numbers'>"
        f"{_field(language, 'raters_per_item', 'number', hint='raters_info', min=1, max=50, value=DEFAULT_RATERS)}"
        f"{_field(language, 'limit', 'number', placeholder=True, min=1, max=1000)}</div>"
        f'<label class="live-check"><input type="checkbox" name="dimensions" value="yes" id="camp-dimensions" checked> '
        f"{_said(language, 'dimensions')}</label>{_sampling(language)}"
        f'<div class="live-row live-end"><button class="live-button live-primary" id="camp-create">'
        f"{_said(language, 'create')}</button></div></form></section>"
    )


def _models(models: Sequence[str], language: Language) -> str:
    boxes = "".join(
        f'<label class="live-check"><input type="checkbox" name="models" value="{escape(name)}" '
        f'id="camp-model-{number}"> <span class="live-name">{escape(name)}</span></label>'
        for number, name in enumerate(models)
    )
    return (
        f'<fieldset class="camp-set"><legend class="live-label">{_said(language, "models")}</legend>{boxes}'
        f'<p class="live-hint">{_said(language, "models_info")}</p></fieldset>'
    )


def _sources(files: Sequence[Mapping[str, Any]], language: Language) -> str:
    choice = "".join(
        f'<label class="live-check"><input type="radio" name="source" value="{source}" id="camp-source-{source}"'
        f"{' checked' if source == 'paste' else ''}> {_said(language, f'source.{source}')}</label>"
        for source in SOURCES
    )
    paste = (
        f'<label class="live-label" for="camp-prompts">{_said(language, "prompts")}</label>'
        f'<textarea class="live-area" id="camp-prompts" name="prompts" rows="5" '
        f'placeholder="{_said(language, "prompts_placeholder")}"></textarea>'
    )
    upload = (
        f'<label class="live-label" for="camp-file">{_said(language, "file")}</label><input type="file" id="camp-file" '
        f'name="file" accept=".jsonl,.json,.txt" data-purpose="user_data" class="live-field">'
        f'<p class="live-hint">{_said(language, "file_info")}</p>'
    )
    parts = {"paste": paste, "upload": upload, "stored": _stored(files, language)}
    shown = "".join(f'<div class="camp-source camp-{source}">{part}</div>' for source, part in parts.items())
    return (
        f'<fieldset class="camp-set"><legend class="live-label">{_said(language, "source")}</legend>'
        f'<div class="live-row">{choice}</div>{shown}</fieldset>'
    )


def _stored(files: Sequence[Mapping[str, Any]], language: Language) -> str:
    options = "".join(
        f'<option value="{escape(file["id"])}">{escape(str(file.get("filename")))} · {escape(file["id"])}</option>'
        for file in files
    )
    none = f'<option value="">{_said(language, "no_files")}</option>'
    return (
        f'<label class="live-label" for="camp-stored">{_said(language, "stored")}</label>'
        f'<select class="live-select" id="camp-stored" name="stored">{options or none}</select>'
        f'<p class="live-hint">{_said(language, "stored_info")}</p>'
    )


def _sampling(language: Language) -> str:
    temperature = _field(language, "temperature", "number", min=0, max=2, step=0.1, value=DEFAULT_TEMPERATURE)
    max_tokens = _field(language, "max_tokens", "number", min=1, max=8192, value=DEFAULT_MAX_TOKENS)
    return (
        f'<details class="camp-sampling"><summary>{_said(language, "sampling")}</summary>'
        f'<div class="camp-numbers">{temperature}{max_tokens}</div></details>'
    )


def _field(
    language: Language, name: str, kind: str, *, hint: str = "", placeholder: bool = False, **properties: object
) -> str:
    shown = "".join(f' {key}="{value}"' for key, value in properties.items())
    shown += f' placeholder="{_said(language, f"{name}_placeholder")}"' if placeholder else ""
    words = f'<p class="live-hint" id="camp-{name}-hint">{_said(language, hint)}</p>' if hint else ""
    described = f' aria-describedby="camp-{name}-hint"' if hint else ""
    return (
        f'<div><label class="live-label" for="camp-{name}">{_said(language, name)}</label>'
        f'<input class="live-field" type="{kind}" id="camp-{name}" name="{name}"{shown}{described}>{words}</div>'
    )


def _said(language: Language, key: str, **values: object) -> str:
    return escape(text(language, f"campaigns.{key}", **values))
