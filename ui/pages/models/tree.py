"""The family of models as a tree of HTML lists. Every foreign word is escaped here. Knows nothing of HTTP or Gradio."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape

from ui.pages.models.calls import Row
from ui.pages.models.state import ModelsSession
from ui.words.i18n import Language, text

TONES: Mapping[str, str] = {
    "served": "good", "waiting": "warn", "training": "warn", "refused": "bad", "failed": "bad", "gone": "soft",
}  # fmt: skip
"""How a state is coloured; its word stands beside it."""


def said(language: Language, key: str, **values: object) -> str:
    """A text, escaped."""
    return escape(text(language, key, **values))


def tree(session: ModelsSession) -> str:
    """Every model under the one that it was made from; each a button that shows its card."""
    versions = session.found.versions
    children: defaultdict[str | None, list[Row]] = defaultdict(list)
    for version in versions.values():
        if version["state"] != "hidden":
            children[version["parent"] if version["parent"] in versions else None].append(version)
    numbers = {name: number for number, name in enumerate(versions)}
    label = said(session.language, "models.tree")
    return f'<nav class="models-tree" aria-label="{label}">{_branch(session, children, None, numbers)}</nav>'


def _branch(
    session: ModelsSession, children: Mapping[str | None, Sequence[Row]], parent: str | None, numbers: Mapping[str, int]
) -> str:
    if not children.get(parent):
        return ""
    rows = "".join(
        f"<li>{_node(session, one, numbers[one['model']])}{_branch(session, children, one['model'], numbers)}</li>"
        for one in children[parent]
    )
    return f"<ul>{rows}</ul>"


def _node(session: ModelsSession, version: Row, number: int) -> str:
    language, name = session.language, str(version["model"])
    first, rest = short_name(language, version)
    shown = session.version
    current = ' aria-current="true"' if shown is not None and shown["model"] == name else ""
    told = f' <span class="models-id">{escape(rest)}</span>' if rest else ""
    return (
        f'<button type="button" class="models-node" id="models-node-{number}" data-do="choose" '
        f'data-model="{escape(name)}" title="{escape(name)}"{current}><span class="models-word" dir="auto">'
        f"{escape(first)}</span>{told}{_signs(session, version)}</button>"
    )


def _signs(session: ModelsSession, version: Row) -> str:
    language = session.language
    signs = [f'<span class="models-sign">↦ {escape(alias)}</span>' for alias in version.get("aliases", [])]
    if version["state"] != "served":
        signs.append(state_sign(language, version["state"]))
    elif version.get("ratings"):
        signs.append(f'<span class="models-sign models-good">{said(language, "models.from_votes")}</span>')
    return "".join(signs)


def state_sign(language: Language, state: str) -> str:
    """The state as a word in its colour."""
    return (
        f'<span class="models-sign models-{TONES.get(state, "soft")}">{said(language, f"models.state.{state}")}</span>'
    )


def short_name(language: Language, version: Row) -> tuple[str, str]:
    """What tells a model from its neighbours, and the rest of it that makes it unique."""
    name = str(version["model"])
    parts = name.split(":")
    if not name.startswith("ft:") or len(parts) < 5:
        return name, ""
    if version.get("kind") == "checkpoint":
        step = parts[-1].removeprefix("ckpt-step-")
        return text(language, "models.step", step=step), f"{parts[-3]} {parts[-2]}"
    return parts[-2] or text(language, "models.no_suffix"), parts[-1]
