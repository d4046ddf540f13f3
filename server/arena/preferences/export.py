"""Export of ratings: JSON lines and CSV."""

from __future__ import annotations

import json
from typing import Any

from server.arena.comparisons.store import SIDES
from server.wire.csv_lines import csv_line

CSV_COLUMNS = (
    "id",
    "created_at",
    "comparison_id",
    "campaign",
    "rater",
    "verdict",
    "preferred_model",
    "blind",
    "names_seen",
    "supersedes",
    "superseded_by",
    "discarded",
    "left_model",
    "right_model",
    "messages",
    "left_content",
    "right_content",
    "dimensions",
    "comment",
    "unsafe",
)
AS_JSON = ("messages", "dimensions")
"""Columns that hold JSON."""
OTHER_LINE_ENDS = "\x85\u2028\u2029"
"""Python's `splitlines`, among others, splits a text at these; JSON allows them in a string."""


def jsonl_line(record: dict[str, Any]) -> str:
    """Return the record as one line, whatever characters its reader takes for line ends."""
    text = json.dumps(record, ensure_ascii=False)
    for end in OTHER_LINE_ENDS:
        text = text.replace(end, f"\\u{ord(end):04x}")
    return text + "\n"


def csv_header() -> str:
    """Return the first line of a CSV file of ratings."""
    return csv_line(CSV_COLUMNS)


def rating_csv_line(rating: dict[str, Any]) -> str:
    """Return the rating as a line of CSV."""
    flat = rating | {name: json.dumps(rating[name], ensure_ascii=False) for name in AS_JSON}
    for side in SIDES:
        flat |= {f"{side}_{key}": rating[side][key] for key in ("model", "content")}
    return csv_line(flat[column] for column in CSV_COLUMNS)
