"""The models page around its tree and card: heading, engines, aliases, what isn't served, and the import of an adapter.

Every foreign word is escaped here. Knows nothing of HTTP or Gradio; what its buttons mean stands in `page`.
"""

from __future__ import annotations

from html import escape

from ui.html import elements
from ui.pages.models.calls import Row
from ui.pages.models.card import card, date
from ui.pages.models.state import ModelsSession
from ui.pages.models.tree import said, tree
from ui.words.i18n import Language

STATE_TONES = {"ready": "good", "starting": "warn", "draining": "warn", "sleeping": "warn", "dead": "bad"}


def heading(session: ModelsSession) -> str:
    """Title and what the page is for."""
    title, intro = said(session.language, "models.title"), said(session.language, "models.intro")
    return f'<h1 class="tl-title">{title}</h1><p class="tl-muted">{intro}</p>'


def notice(session: ModelsSession) -> str:
    """What was done or refused last; it takes the focus once."""
    if session.trouble is not None:
        said_so = elements.problem_box(session.trouble, session.language)
    elif session.done is not None:
        key, values = session.done
        said_so = f'<div class="models-done" role="status">✓ {said(session.language, key, **values)}</div>'
    else:
        return ""
    return f'<div tabindex="-1" data-focus="{session.turn}">{said_so}</div>' if not session.out_of_sight else said_so


def engines(session: ModelsSession) -> str:
    """The engines' state and load, one line each."""
    language, listed = session.language, session.found.engines
    if listed is None:
        return f'<p class="tl-muted">{said(language, "models.engines.admin")}</p>'
    if not listed:
        return ""
    rows = "".join(_engine(language, one) for one in listed)
    return f'<ul class="models-engines" aria-label="{said(language, "models.engines")}">{rows}</ul>'


def _engine(language: Language, engine: Row) -> str:
    state = str(engine["state"])
    known = state if state in STATE_TONES else "stopped"
    serves = engine.get("base_model") or ", ".join(engine.get("models", [])) or engine["id"]
    room = (engine.get("limits") or {}).get("max_cpu_loras")
    count = len(engine.get("adapters_loaded", []))
    load = said(language, "models.engine.load", running=engine.get("in_flight", 0), loaded=count, room=room or "–")
    trouble = engine.get("last_trouble") if known in ("dead", "stopped", "starting") else None
    why = f'<p class="tl-detail">{escape(str(trouble))}</p>' if trouble else ""
    return (
        f'<li><span class="models-dot models-{STATE_TONES.get(state, "bad")}" aria-hidden="true"></span>'
        f'<b class="live-name">{escape(str(serves))}</b> <span>{said(language, f"models.engine.{known}")}</span> '
        f'<span class="tl-muted">{escape(str(engine["id"]))} · {load}</span>{why}</li>'
    )


def family(session: ModelsSession) -> str:
    """The tree, and beside it the chosen model's card."""
    if not session.asked:
        return ""
    empty = "" if _has_tuned(session) else _first_steps(session.language)
    return f'{empty}<div class="models-family">{tree(session)}{card(session)}</div>'


def _has_tuned(session: ModelsSession) -> bool:
    return any(version["kind"] != "base" for version in session.found.versions.values())


def _first_steps(language: Language) -> str:
    link = f'<a class="live-button live-primary" href="train">{said(language, "models.empty.train")}</a>'
    words = said(language, "models.empty")
    return (
        f'<div class="tl-empty-state"><h2>{said(language, "models.empty.title")}</h2><p>{words}</p><p>{link}</p></div>'
    )


def aliases(session: ModelsSession) -> str:
    """Every alias with its way back, and the form that makes one or points one elsewhere."""
    if not session.asked:
        return ""
    language = session.language
    rows = "".join(_alias(session, alias, place) for place, alias in enumerate(session.found.aliases))
    heads = "".join(
        f"<th scope=col>{said(language, f'models.alias.{name}')}</th>" for name in ("name", "model", "before")
    )
    table = (
        f'<div class="live-scroll" tabindex="0" role="region" aria-label="{said(language, "models.aliases")}"><table '
        f'class="live-table models-aliases"><thead><tr>{heads}<th scope=col><span class="live-hidden">'
        f"{said(language, 'models.alias.actions')}</span></th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
    shown = table if rows else f'<p class="tl-muted">{said(language, "models.alias.none")}</p>'
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "models.aliases")}</h2>'
        f'<p class="tl-muted">{said(language, "models.alias.intro")}</p>{shown}{_promotion(session)}</section>'
    )


def _alias(session: ModelsSession, alias: Row, place: int) -> str:
    language, name, before = session.language, str(alias["name"]), alias.get("previous_model")
    open_ = session.history_of == name
    buttons = (
        _button(language, "roll_back", name, place, sure=True, shut=before is None)
        + _button(language, "history", name, place, expanded=open_)
        + _button(language, "unalias", name, place, sure=True, danger=True)
    )
    models = "".join(
        f'<td class="live-name" data-label="{said(language, key)}">{escape(str(model or "–"))}</td>'
        for key, model in (("models.alias.model", alias["model"]), ("models.alias.before", before))
    )
    row = (
        f'<tr><th scope=row class="live-name" dir="auto">{escape(name)}</th>{models}'
        f'<td><div class="live-row live-end">{buttons}</div></td></tr>'
    )
    return row + (f'<tr><td colspan="4">{_history(session)}</td></tr>' if open_ else "")


def _button(
    language: Language, action: str, alias: str, place: int, *, sure: bool = False, shut: bool = False,
    danger: bool = False, expanded: bool | None = None,
) -> str:  # fmt: skip
    question = f' data-confirm="{said(language, f"models.{action}.sure", alias=alias)}"' if sure else ""
    opened = "" if expanded is None else f' aria-expanded="{str(expanded).lower()}"'
    return (
        f'<button type="button" class="live-button live-small{" live-danger" if danger else ""}" '
        f'id="models-{action}-{place}" data-do="{action}" data-alias="{escape(alias)}"{question}{opened}'
        f"{' disabled' if shut else ''}>{said(language, f'models.{action}')}</button>"
    )


def _history(session: ModelsSession) -> str:
    language = session.language
    items = "".join(
        f"<li>{date(change['created_at'])} · {said(language, 'models.change.' + change['action'])}: "
        f'<span class="live-name">{escape(str(change["from"] or "–"))} → {escape(str(change["to"] or "–"))}</span>'
        f"{' · ' + escape(change['created_by']) if change.get('created_by') else ''}</li>"
        for change in session.history
    )
    return f'<ol class="models-history">{items}</ol>'


def _promotion(session: ModelsSession) -> str:
    language = session.language
    version = session.version
    chosen = version["model"] if version else None
    options = "".join(
        f'<option value="{escape(name)}"{" selected" if name == chosen else ""}>{escape(name)}</option>'
        for name in session.found.served
    )
    known = "".join(f'<option value="{escape(str(alias["name"]))}">' for alias in session.found.aliases)
    return (
        f'<form class="models-promote" data-do="promote"><div><label class="live-label" for="models-alias">'
        f'{said(language, "models.alias.name")}</label><input class="live-field" id="models-alias" name="alias" '
        f'list="models-known" maxlength="200" autocomplete="off" '
        f'placeholder="{said(language, "models.alias.example")}" required><datalist id="models-known">{known}'
        f'</datalist></div><div><label class="live-label" for="models-target">'
        f'{said(language, "models.alias.target")}</label><select class="live-select" id="models-target" name="model">'
        f'{options}</select></div><button class="live-button" id="models-promote">{said(language, "models.promote")}'
        f"</button></form>"
    )


def broken(session: ModelsSession) -> str:
    """Folders that are no adapters, with the reason; only admins are told of them."""
    if not session.found.broken:
        return ""
    language = session.language
    rows = "".join(
        f'<li><span class="live-name">{escape(folder)}</span><p class="tl-detail">{escape(why)}</p></li>'
        for folder, why in session.found.broken.items()
    )
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "models.broken")}</h2>'
        f'<ul class="models-broken">{rows}</ul></section>'
    )


def importing(session: ModelsSession) -> str:
    """The form that takes in an adapter made elsewhere; `models.js` sends it, for Gradio's own upload is shut."""
    language = session.language
    words = "".join(
        f' data-{word}="{said(language, f"models.import.{word}")}"' for word in ("sending", "checking", "missing")
    )
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "models.import")}</h2>'
        f'<p class="tl-muted">{said(language, "models.import.intro")}</p><div class="models-import"><div>'
        f'<label class="live-label" for="models-file">{said(language, "models.import.file")}</label>'
        f'<input class="live-field" id="models-file" type="file" accept=".gz,.tgz,.zip,.tar.gz"></div><div>'
        f'<label class="live-label" for="models-new-name">{said(language, "models.import.name")}</label>'
        f'<input class="live-field" id="models-new-name" maxlength="200" autocomplete="off" '
        f'placeholder="{said(language, "models.import.example")}">'
        f'</div><button type="button" class="live-button" id="models-import" data-import{words}>'
        f'{said(language, "models.import.go")}</button></div><label class="live-hint"><input type="checkbox" '
        f'id="models-same-base"> {said(language, "models.import.same_base")}</label>'
        f'<p class="live-hint" id="models-import-status" role="status"></p>{_refusal(session)}</section>'
    )


def _refusal(session: ModelsSession) -> str:
    if session.import_refusal is None:
        return ""
    box = elements.problem_box(session.import_refusal, session.language)
    return f'<div tabindex="-1" data-focus="import-{session.turn}">{box}</div>'
