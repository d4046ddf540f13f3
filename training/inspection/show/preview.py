"""Some examples of a file as plain JSON values, split into trained and context segments."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from training.config.config import ConfigError
from training.data.examples import Example
from training.data.formats.read import Fault, iter_examples
from training.inspection.figures.file_report import make_config
from training.inspection.show.show_rows import mark_rows
from training.inspection.show.show_text import MarkedRow, Part, split_example, split_row
from training.inspection.tokenizer import load_tokenizer
from training.rendering.render import RenderError

MOST_CHARS = 20_000
"""Characters of one segment that are shown; a book in one row would fill any page."""


def preview(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the examples from the `offset`-th on, at most `limit`.

    question: `file`, a path; `base_model`, a folder or None; `config`, settings under TrainingConfig's names.

    Raises:
        ConfigError: a setting or the base can't be used.
    """
    path, base_model = Path(question["file"]), question.get("base_model")
    offset, limit = question["offset"], question["limit"]
    config = make_config(question, path, base_model)
    tokenizer = load_tokenizer(base_model) if base_model else None
    found = list(islice(iter_examples(path, config.file_format), offset, offset + limit + 1))
    shown = [_show_example(item, tokenizer, config.max_length, config.train_on) for item in found[:limit]]
    return {"data": shown, "has_more": len(found) > limit, "max_length": config.max_length if tokenizer else None}


def _show_example(item: Example | Fault, tokenizer: Any, max_length: int, train_on: Any) -> dict[str, Any]:
    if isinstance(item, Fault):
        return {"line": item.line, "kind": None, "error": item.reason, "rows": [], "not_rendered": []}
    rows: list[dict[str, Any]] = []
    error, omitted = None, frozenset[str]()
    if tokenizer is None:
        rows = [_make_row(None, [(text, part, role) for role, text, part in split_example(item)])]
    else:
        try:
            for row in mark_rows(item, tokenizer, cut_at=max_length, train_on=train_on):
                omitted = row.omitted
                rows.append(_make_row(row, [(text, part, None) for text, part in split_row(row, tokenizer)]))
            mark_rows(item, tokenizer, cut_at=max_length, max_length=max_length, train_on=train_on)
        except (RenderError, ConfigError) as fault:
            error = getattr(fault, "reason", str(fault))
            omitted = getattr(fault, "omitted", omitted)
    return {
        "line": item.line,
        "kind": item.kind,
        "error": error,
        "rows": rows,
        "not_rendered": sorted(omitted),
    }


def _make_row(shown: MarkedRow | None, parts: list[tuple[str, Part, str | None]]) -> dict[str, Any]:
    counts: dict[str, int | None] = {"tokens": None, "trained_tokens": None, "cut_tokens": None}
    if shown is not None:
        learned = shown.count("trained") + shown.count("rejected")
        counts = {"tokens": len(shown.ids), "trained_tokens": learned, "cut_tokens": shown.count("cut")}
    return {**counts, "segments": [_make_segment(text, part, role) for text, part, role in parts]}


def _make_segment(text: str, part: Part, role: str | None) -> dict[str, Any]:
    return {
        "text": text[:MOST_CHARS],
        "left_out_chars": max(0, len(text) - MOST_CHARS),
        "part": part,
        "trained": part in ("trained", "rejected"),
        "role": role,
    }
