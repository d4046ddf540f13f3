"""The report of one version as tiles: parity, losses, effort, score and settings.

Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ui.pages.models.calls import Row
from ui.pages.models.state import ModelsSession
from ui.words.i18n import Language, text


@dataclass(frozen=True)
class Tile:
    """One value of the report."""

    key: str
    """Text key of its name."""
    value: str
    note: str = ""
    tone: str = ""
    """CSS class: `models-good`, `models-bad`, or none."""


def tiles(session: ModelsSession, version: Row) -> list[Tile]:
    """Return the tiles; empty for a version without a manifest on this server."""
    report = version.get("report")
    if not report:
        return []
    language, metrics = session.language, report.get("metrics") or {}
    shown = [
        _parity(language, report.get("parity")),
        _losses(language, metrics),
        _accuracy(language, metrics),
        _effort(language, metrics),
        _rating(session, version),
    ]
    return [tile for tile in shown if tile]


def _parity(language: Language, parity: Any) -> Tile:
    if not isinstance(parity, dict):
        return Tile("models.parity", text(language, "models.parity.unchecked"))
    passed = parity.get("passed") is True
    mean = _number((parity.get("tuned") or {}).get("mean"))
    share = parity.get("share")
    note = text(language, "models.parity.note", mean=mean, bound=_number(parity.get("bound")))
    if isinstance(share, int | float):
        note += (" " if language == "en" else "") + text(language, "models.parity.share", share=f"{share:.0%}")
    word = text(language, "models.parity.passed" if passed else "models.parity.failed")
    return Tile("models.parity", word, note, "models-good" if passed else "models-bad")


def _losses(language: Language, metrics: Mapping[str, Any]) -> Tile | None:
    after = metrics.get("valid_loss")
    if after is None:
        loss = metrics.get("train_loss")
        return Tile("models.train_loss", _number(loss)) if loss is not None else None
    before = metrics.get("valid_loss_before")
    value = _number(after) if before is None else f"{_number(before)} → {_number(after)}"
    perplexity = metrics.get("valid_perplexity")
    note = "" if perplexity is None else text(language, "models.perplexity", value=_number(perplexity))
    better = isinstance(before, int | float) and isinstance(after, int | float) and after < before
    return Tile("models.valid_loss", value, note, "models-good" if better else "")


def _accuracy(language: Language, metrics: Mapping[str, Any]) -> Tile | None:
    """Return the share of validation pairs in the right order, for models trained on preferences."""
    after, before = metrics.get("valid_reward_accuracy"), metrics.get("valid_reward_accuracy_before")
    if not isinstance(after, int | float):
        return None
    begun = f"{before:.0%} → " if isinstance(before, int | float) else ""
    return Tile("models.right_order", f"{begun}{after:.0%}")


def _effort(language: Language, metrics: Mapping[str, Any]) -> Tile | None:
    tokens, seconds = metrics.get("trained_tokens"), metrics.get("seconds")
    if not isinstance(tokens, int | float):
        return None
    note = text(
        language, "models.effort.note", examples=metrics.get("examples", "–"), steps=metrics.get("steps", "–"),
        seconds=_number(seconds),
    )  # fmt: skip
    return Tile("models.effort", f"{int(tokens):,}", note)


def _rating(session: ModelsSession, version: Row) -> Tile:
    row, language = session.found.ratings.get(str(version["model"])), session.language
    if row is None:
        return Tile("models.rating", text(language, "models.rating.none"))
    votes = text(language, "models.rating.votes", votes=row["votes"])
    if row.get("rating") is None:
        return Tile("models.rating", text(language, "models.rating.apart"), votes)
    interval = f"[{row['lower']:.0f}, {row['upper']:.0f}]" if row.get("lower") is not None else "–"
    note = text(language, "models.rating.note", interval=interval, rank=row.get("rank") or "–", votes=row["votes"])
    return Tile("models.rating", f"{row['rating']:.0f}", note)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"
