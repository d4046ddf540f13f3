"""The models page without its tree and card: heading, engines, aliases, broken adapters, import.

Knows nothing of HTTP or Gradio; `page` defines what its buttons do.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from ui.html import elements
from ui.html.templates import render
from ui.pages.models.calls import Row
from ui.pages.models.card import card, date
from ui.pages.models.state import ModelsSession
from ui.pages.models.tree import tree
from ui.server_client import Problem
from ui.words.i18n import Language, text

STATE_TONES = {"ready": "good", "starting": "warn", "draining": "warn", "sleeping": "warn", "dead": "bad"}


def heading(session: ModelsSession) -> str:
    """Return title and introduction."""
    return render("pages/models/templates/heading.html", session.language)


def notice(session: ModelsSession) -> str:
    """Return the message about the last action; it takes the focus once."""
    if session.trouble is None and session.done is None:
        return ""
    return render(
        "pages/models/templates/notice.html",
        session.language,
        problem=_problem(session.language, session.trouble),
        done=text(session.language, session.done[0], **session.done[1]) if session.done else None,
        is_out_of_sight=session.out_of_sight,
        turn=session.turn,
    )


def _problem(language: Language, problem: Problem | None) -> Markup | None:
    return Markup(elements.problem_box(problem, language)) if problem else None  # noqa: S704 (escaped there)


def engines(session: ModelsSession) -> str:
    """Return state and load of the engines, one line each."""
    listed = session.found.engines
    if listed is not None and not listed:
        return ""
    shown = None if listed is None else [_engine(one) for one in listed]
    return render("pages/models/templates/engines.html", session.language, engines=shown)


def _engine(engine: Row) -> dict[str, Any]:
    state = str(engine["state"])
    known = state if state in STATE_TONES else "stopped"
    return {
        "id": engine["id"],
        "state": known,
        "tone": STATE_TONES.get(state, "bad"),
        "serves": engine.get("base_model") or ", ".join(engine.get("models", [])) or engine["id"],
        "load": {
            "running": engine.get("in_flight", 0),
            "loaded": len(engine.get("adapters_loaded", [])),
            "room": (engine.get("limits") or {}).get("max_cpu_loras") or "–",
        },
        "trouble": engine.get("last_trouble") if known in ("dead", "stopped", "starting") else None,
    }


def family(session: ModelsSession) -> str:
    """Return the tree, and next to it the selected model's card."""
    if not session.asked:
        return ""
    return render(
        "pages/models/templates/family.html",
        session.language,
        has_tuned=any(version["kind"] != "base" for version in session.found.versions.values()),
        tree=tree(session),
        card=card(session, session.version) if session.version else None,
    )


def aliases(session: ModelsSession) -> str:
    """Return every alias with its rollback, and the form to set one."""
    if not session.asked:
        return ""
    return render(
        "pages/models/templates/aliases.html",
        session.language,
        aliases=session.found.aliases,
        history_of=session.history_of,
        history=session.history,
        targets=[(name, name) for name in session.found.served],
        chosen=session.version["model"] if session.version else None,
        date=date,
    )


def broken(session: ModelsSession) -> str:
    """Return directories that aren't valid adapters, with the reason; only admins see them."""
    if not session.found.broken:
        return ""
    return render("pages/models/templates/broken.html", session.language, broken=session.found.broken)


def importing(session: ModelsSession) -> str:
    """Return the form to import an adapter."""
    refusal = _problem(session.language, session.import_refusal)
    return render("pages/models/templates/importing.html", session.language, refusal=refusal, turn=session.turn)
