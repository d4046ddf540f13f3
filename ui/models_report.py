"""The report card of one version: parity, losses, effort, rating and recipe, as tiles.

Every foreign word is escaped here. Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ui.calls.models import Row
from ui.i18n import Language, text
from ui.models_state import ModelsSession
from ui.models_tree import said


def tiles(session: ModelsSession, version: Row, report: Mapping[str, Any]) -> str:
    """What was measured; empty for a version that has no manifest here."""
    if not report:
        return ""
    language, metrics = session.language, report.get("metrics") or {}
    shown = [
        _parity(language, report.get("parity")),
        _losses(language, metrics),
        _accuracy(language, metrics),
        _effort(language, metrics),
        _rating(session, version),
    ]
    return f'<dl class="models-tiles">{"".join(shown)}</dl>'


def _tile(language: Language, key: str, value: str, note: str = "", tone: str = "") -> str:
    """value, note: plain text."""
    small = f'<dd class="models-note">{escape(note)}</dd>' if note else ""
    return f'<div><dt>{said(language, key)}</dt><dd class="models-value {tone}">{escape(value)}</dd>{small}</div>'


def _parity(language: Language, parity: Any) -> str:
    if not isinstance(parity, dict):
        return _tile(language, "models.parity", text(language, "models.parity.unchecked"))
    passed = parity.get("passed") is True
    mean = _number((parity.get("tuned") or {}).get("mean"))
    share = parity.get("share")
    note = text(language, "models.parity.note", mean=mean, bound=_number(parity.get("bound")))
    if isinstance(share, int | float):
        note += (" " if language == "en" else "") + text(language, "models.parity.share", share=f"{share:.0%}")
    word = text(language, "models.parity.passed" if passed else "models.parity.failed")
    return _tile(language, "models.parity", word, note, "models-good" if passed else "models-bad")


def _losses(language: Language, metrics: Mapping[str, Any]) -> str:
    after = metrics.get("valid_loss")
    if after is None:
        loss = metrics.get("train_loss")
        return _tile(language, "models.train_loss", _number(loss)) if loss is not None else ""
    before = metrics.get("valid_loss_before")
    value = _number(after) if before is None else f"{_number(before)} → {_number(after)}"
    perplexity = metrics.get("valid_perplexity")
    note = "" if perplexity is None else text(language, "models.perplexity", value=_number(perplexity))
    better = isinstance(before, int | float) and isinstance(after, int | float) and after < before
    return _tile(language, "models.valid_loss", value, note, "models-good" if better else "")


def _accuracy(language: Language, metrics: Mapping[str, Any]) -> str:
    """How many pairs of the validation file are in the right order: for models that learned from votes."""
    after, before = metrics.get("valid_reward_accuracy"), metrics.get("valid_reward_accuracy_before")
    if not isinstance(after, int | float):
        return ""
    begun = f"{before:.0%} → " if isinstance(before, int | float) else ""
    return _tile(language, "models.right_order", f"{begun}{after:.0%}")


def _effort(language: Language, metrics: Mapping[str, Any]) -> str:
    tokens, seconds = metrics.get("trained_tokens"), metrics.get("seconds")
    if not isinstance(tokens, int | float):
        return ""
    note = text(
        language, "models.effort.note", examples=metrics.get("examples", "–"), steps=metrics.get("steps", "–"),
        seconds=_number(seconds),
    )  # fmt: skip
    return _tile(language, "models.effort", f"{int(tokens):,}", note)


def _rating(session: ModelsSession, version: Row) -> str:
    row, language = session.found.ratings.get(str(version["model"])), session.language
    if row is None:
        return _tile(language, "models.rating", text(language, "models.rating.none"))
    votes = text(language, "models.rating.votes", votes=row["votes"])
    if row.get("rating") is None:
        return _tile(language, "models.rating", text(language, "models.rating.apart"), votes)
    interval = f"[{row['lower']:.0f}, {row['upper']:.0f}]" if row.get("lower") is not None else "–"
    note = text(language, "models.rating.note", interval=interval, rank=row.get("rank") or "–", votes=row["votes"])
    return _tile(language, "models.rating", f"{row['rating']:.0f}", note)


def recipe_of(language: Language, report: Mapping[str, Any]) -> str:
    """The settings that it was trained with, folded."""
    recipe = report.get("recipe") or {}
    if not recipe:
        return ""
    items = "".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>" for name, value in recipe.items()
    )
    return (
        f'<details class="models-recipe"><summary>{said(language, "models.recipe")}</summary>'
        f'<dl class="models-facts">{items}</dl></details>'
    )


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"
