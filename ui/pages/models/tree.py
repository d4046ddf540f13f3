"""The lineage of all models as a tree of HTML lists. Knows nothing of HTTP or Gradio."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ui.html.templates import render
from ui.pages.models.calls import Row
from ui.pages.models.state import ModelsSession
from ui.words.i18n import Language, text

TONES: Mapping[str, str] = {
    "served": "good", "waiting": "warn", "training": "warn", "refused": "bad", "failed": "bad", "gone": "soft",
}  # fmt: skip
"""The color of a state; its label is next to it."""


def tree(session: ModelsSession) -> Markup:
    """Return every model under its parent; each is a button that shows its card."""
    versions = session.found.versions
    children: defaultdict[str | None, list[Row]] = defaultdict(list)
    for version in versions.values():
        if version["state"] != "hidden":
            children[version["parent"] if version["parent"] in versions else None].append(version)
    numbers, shown = {name: number for number, name in enumerate(versions)}, session.version

    def nodes(parent: str | None) -> list[dict[str, Any]]:
        return [
            {
                "model": one["model"],
                "number": numbers[one["model"]],
                "name": short_name(session.language, one),
                "is_current": one is shown,
                "aliases": one.get("aliases", []),
                "state": one["state"],
                "tone": TONES.get(one["state"], "soft"),
                "is_from_votes": bool(one.get("ratings")),
                "children": nodes(one["model"]),
            }
            for one in children[parent]
        ]

    return render("pages/models/templates/tree.html", session.language, nodes=nodes(None))


def short_name(language: Language, version: Row) -> tuple[str, str]:
    """Return the part of a name that differs between neighbors, and the rest that makes it unique."""
    name = str(version["model"])
    parts = name.split(":")
    if not name.startswith("ft:") or len(parts) < 5:
        return name, ""
    if version.get("kind") == "checkpoint":
        step = parts[-1].removeprefix("ckpt-step-")
        return text(language, "models.step", step=step), f"{parts[-3]} {parts[-2]}"
    return parts[-2] or text(language, "models.no_suffix"), parts[-1]
