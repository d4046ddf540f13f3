"""Ratings as files: preference pairs in OpenAI's DPO format, JSON lines, CSV. Reads ratings, never changes them.

What may become a training pair, and why (docs/ratings.md tells it to users):

    decided      a tie and "both bad" prefer nothing
    blind        a rater who saw the names may have judged the names
    finished     a cut-off answer is not what the model would have said
    different    equal answers teach nothing
    agreed       raters who contradict each other on the same pair cancel out unless a majority decides
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from server.ratings import SIDES

CSV_COLUMNS = (
    "id",
    "created_at",
    "comparison_id",
    "rater",
    "verdict",
    "preferred_model",
    "blind",
    "left_model",
    "right_model",
    "messages",
    "left_content",
    "right_content",
    "comment",
    "unsafe",
)

Pair = tuple[str, str, str]
"""messages as JSON, chosen answer, rejected answer"""


def to_jsonl(ratings: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Each rating with its whole context, a line each."""
    for rating in ratings:
        yield json.dumps(rating, ensure_ascii=False) + "\n"


def to_csv(ratings: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A header and a row a rating, for a spreadsheet. `messages` is JSON."""
    yield _csv_row(CSV_COLUMNS)
    for rating in ratings:
        flat = rating | {"messages": json.dumps(rating["messages"], ensure_ascii=False)}
        for side in SIDES:
            flat |= {f"{side}_{key}": rating[side][key] for key in ("model", "content")}
        yield _csv_row([_cell(flat[column]) for column in CSV_COLUMNS])


def to_openai_dpo(ratings: Iterable[dict[str, Any]], *, blind_only: bool) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Training lines for `method: dpo`, and how many ratings each rule left out."""
    left_out: Counter[str] = Counter()
    votes: Counter[Pair] = Counter()
    for rating in ratings:
        reason = _why_not(rating, blind_only=blind_only)
        if reason:
            left_out[reason] += 1
        else:
            votes[_pair(rating)] += 1
    return [_dpo_line(pair) for pair in _agreed(votes, left_out)], left_out


def _why_not(rating: dict[str, Any], *, blind_only: bool) -> str | None:
    if rating["verdict"] not in SIDES:
        return "undecided"
    if blind_only and not rating["blind"]:
        return "not_blind"
    if any(rating[side]["finish_reason"] != "stop" for side in SIDES):
        return "unfinished"
    if rating["left"]["content"] == rating["right"]["content"]:
        return "same_answers"
    return None


def _pair(rating: dict[str, Any]) -> Pair:
    chosen = rating["verdict"]
    rejected = "right" if chosen == "left" else "left"
    messages = json.dumps(rating["messages"], ensure_ascii=False, sort_keys=True)
    return messages, rating[chosen]["content"], rating[rejected]["content"]


def _agreed(votes: Counter[Pair], left_out: Counter[str]) -> Iterator[Pair]:
    by_answers: dict[tuple[str, frozenset[str]], list[Pair]] = defaultdict(list)
    for pair in votes:
        by_answers[pair[0], frozenset(pair[1:])].append(pair)
    for pairs in by_answers.values():
        ranked = sorted(pairs, key=lambda pair: -votes[pair])
        if len(ranked) > 1 and votes[ranked[0]] == votes[ranked[1]]:
            left_out["contradicted"] += sum(votes[pair] for pair in ranked)
            continue
        left_out["contradicted"] += sum(votes[pair] for pair in ranked[1:])
        left_out["duplicate"] += votes[ranked[0]] - 1
        yield ranked[0]


def _dpo_line(pair: Pair) -> dict[str, Any]:
    messages, chosen, rejected = pair
    return {
        "input": {"messages": json.loads(messages)},
        "preferred_output": [{"role": "assistant", "content": chosen}],
        "non_preferred_output": [{"role": "assistant", "content": rejected}],
    }


def _cell(value: Any) -> Any:
    # A spreadsheet runs a cell that starts like a formula, and these texts come from models and strangers.
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _csv_row(cells: Iterable[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()
