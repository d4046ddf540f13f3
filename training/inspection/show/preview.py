"""Some examples of a file as plain JSON values, split into what is learned and what is context. Prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from training.config.config import ConfigError
from training.data.examples import Example
from training.data.formats.read import Fault, iter_examples
from training.inspection.figures.file_report import config_for
from training.inspection.show.show_rows import shown_rows
from training.inspection.show.show_text import Part, Shown, said_parts, spelled_parts
from training.inspection.tokenizer import load_tokenizer
from training.rendering.render import RenderError

MOST_CHARS = 20_000
"""Characters of one segment that are shown; a book in one row would fill any page."""


def preview(question: Mapping[str, Any]) -> dict[str, Any]:
    """The examples from the `offset`-th on, at most `limit`.

    question: `file`, a path; `base_model`, a folder or None; `config`, settings under TrainingConfig's names.

    Raises:
        ConfigError: a setting or the base can't be used.
    """
    path, base_model = Path(question["file"]), question.get("base_model")
    offset, limit = question["offset"], question["limit"]
    config = config_for(question, path, base_model)
    tokenizer = load_tokenizer(base_model) if base_model else None
    found = list(islice(iter_examples(path, config.file_format), offset, offset + limit + 1))
    shown = [_shown(one, tokenizer, config.max_length, config.train_on) for one in found[:limit]]
    return {"data": shown, "has_more": len(found) > limit, "max_length": config.max_length if tokenizer else None}


def _shown(one: Example | Fault, tokenizer: Any, max_length: int, train_on: Any) -> dict[str, Any]:
    if isinstance(one, Fault):
        return {"line": one.line, "kind": None, "error": one.reason, "rows": [], "not_rendered": []}
    rows: list[dict[str, Any]] = []
    error, passed_over = None, frozenset[str]()
    if tokenizer is None:
        rows = [_row(None, [(said, part, who) for who, said, part in said_parts(one)])]
    else:
        try:
            for row in shown_rows(one, tokenizer, cut_at=max_length, train_on=train_on):
                passed_over = row.passed_over
                rows.append(_row(row, [(said, part, None) for said, part in spelled_parts(row, tokenizer)]))
            shown_rows(one, tokenizer, cut_at=max_length, max_length=max_length, train_on=train_on)
        except (RenderError, ConfigError) as fault:
            error = getattr(fault, "reason", str(fault))
            passed_over = getattr(fault, "passed_over", passed_over)
    return {
        "line": one.line,
        "kind": one.kind,
        "error": error,
        "rows": rows,
        "not_rendered": sorted(passed_over),
    }


def _row(shown: Shown | None, parts: list[tuple[str, Part, str | None]]) -> dict[str, Any]:
    counts: dict[str, int | None] = {"tokens": None, "trained_tokens": None, "cut_tokens": None}
    if shown is not None:
        learned = shown.count("trained") + shown.count("rejected")
        counts = {"tokens": len(shown.ids), "trained_tokens": learned, "cut_tokens": shown.count("cut")}
    return {**counts, "segments": [_segment(said, part, who) for said, part, who in parts]}


def _segment(said: str, part: Part, who: str | None) -> dict[str, Any]:
    return {
        "text": said[:MOST_CHARS],
        "left_out_chars": max(0, len(said) - MOST_CHARS),
        "part": part,
        "trained": part in ("trained", "rejected"),
        "role": who,
    }
