"""Turns ratings into training pairs: OpenAI's lines for preference fine-tuning. Blocks.

Which ratings become a training pair, and why (for users: docs/ratings.md):

    counted      a discarded rating (unfinished, identity_leak, error) is about something other than the answers
    decided      a tie and "both bad" prefer nothing
    blind        a rater who saw the names may have rated the names
    shared       answers to diverged conversations have no common prompt
    safe         a model shouldn't learn an answer that was marked as unsafe
    different    equal answers, or an empty one, teach nothing
    usable       a conversation that training refuses (ends with an answer, has an image, …) would fail the job
    agreed       raters who contradict each other on the same pair cancel out unless a majority decides

https://platform.openai.com/docs/guides/direct-preference-optimization
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from server.arena.comparisons.holdout import Part, assign_part
from server.arena.comparisons.store import SIDES
from server.arena.preferences.export import jsonl_line
from training.data.examples import ExampleError
from training.data.formats.json_records import Broken, decode
from training.data.formats.read import find_method_fault
from training.data.formats.record_formats import parse_record

Pair = tuple[str, str, str]
"""Messages as JSON, chosen answer, rejected answer."""


@dataclass
class PreferencePairs:
    """The usable ratings, counted by pair while they are read."""

    blind_only: bool
    votes: Counter[Pair] = field(default_factory=Counter)
    raters: set[str] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    """How many ratings each rule left out."""
    seen: int = 0

    def add(self, ratings: Iterable[dict[str, Any]]) -> None:
        """Add current ratings."""
        for rating in ratings:
            self.seen += 1
            reason = _find_exclusion_reason(rating, blind_only=self.blind_only)
            if reason is None and not self._count_pair(_build_pair(rating)):
                reason = "unusable_prompt"
            if reason:
                self.left_out[reason] += 1
            else:
                self.raters.add(rating["rater"])

    def lines(self, part: Part | None, holdout_fraction: float) -> tuple[list[str], Counter[str]]:
        """Return the lines of one part, or of both, and how many ratings each rule left out in all."""
        left_out = self.left_out.copy()
        records = map(_build_dpo_record, _resolve_contradictions(self.votes, left_out))
        lines = [
            jsonl_line(record)
            for record in records
            if part is None or assign_part(record["input"]["messages"], holdout_fraction) == part
        ]
        return lines, left_out

    def _count_pair(self, pair: Pair) -> bool:
        """Count one rating for this pair if a job can be trained on it; return whether it can."""
        if pair not in self.votes and not _is_usable(_build_dpo_record(pair)):
            return False
        self.votes[pair] += 1
        return True


def _find_exclusion_reason(rating: dict[str, Any], *, blind_only: bool) -> str | None:
    if rating["discarded"]:
        return str(rating["discarded"])
    if rating["verdict"] not in SIDES:
        return "undecided"
    if blind_only and (not rating["blind"] or rating["names_seen"]):
        return "not_blind"
    if not rating["messages"]:
        return "went_apart"
    if rating["unsafe"] in (rating["verdict"], "both"):
        return "unsafe_preferred"
    left, right = (rating[side]["content"] for side in SIDES)
    if left == right:
        return "same_answers"
    return None if left.strip() and right.strip() else "empty_answer"


def _build_pair(rating: dict[str, Any]) -> Pair:
    chosen = rating["verdict"]
    rejected = "right" if chosen == "left" else "left"
    messages = json.dumps(rating["messages"], ensure_ascii=False, sort_keys=True)
    return messages, rating[chosen]["content"], rating[rejected]["content"]


def _resolve_contradictions(votes: Counter[Pair], left_out: Counter[str]) -> Iterator[Pair]:
    by_answers: dict[tuple[str, frozenset[str]], list[Pair]] = defaultdict(list)
    for pair in votes:
        by_answers[pair[0], frozenset(pair[1:])].append(pair)
    for pairs in by_answers.values():
        ranked = sorted(pairs, key=lambda pair: -votes[pair])
        if len(ranked) > 1 and votes[ranked[0]] == votes[ranked[1]]:
            left_out["contradicted"] += sum(votes[pair] for pair in ranked)
            continue
        if len(ranked) > 1:
            left_out["contradicted"] += votes[ranked[1]]
        if votes[ranked[0]] > 1:
            left_out["duplicate"] += votes[ranked[0]] - 1
        yield ranked[0]


def _is_usable(record: dict[str, Any]) -> bool:
    """Return whether this line passes the check at the start of every job."""
    decoded = decode(jsonl_line(record).encode(errors="surrogatepass"))
    try:
        return not isinstance(decoded, Broken) and find_method_fault(parse_record(decoded, 1), "dpo") is None
    except ExampleError:
        return False


def _build_dpo_record(pair: Pair) -> dict[str, Any]:
    messages, chosen, rejected = pair
    return {
        "input": {"messages": json.loads(messages)},
        "preferred_output": [{"role": "assistant", "content": chosen}],
        "non_preferred_output": [{"role": "assistant", "content": rejected}],
    }
