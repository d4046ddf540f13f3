"""Makes training pairs of votes: OpenAI's lines for preference fine-tuning. Reads ratings, opens no file. Blocks.

What may become a training pair, and why (docs/ratings.md tells it to users):

    counted      a discarded vote (unfinished, identity_leak, error) judged something other than the answers
    decided      a tie and "both bad" prefer nothing
    blind        a rater who saw the names may have judged the names
    shared       answers to conversations that went apart have no prompt in common
    safe         nobody wants a model that answers like one that was marked as unsafe
    different    equal answers, or an empty one, teach nothing
    usable       a conversation that training refuses (it ends with an answer, holds an image, …) would fail the job
    agreed       raters who contradict each other on the same pair cancel out unless a majority decides

https://platform.openai.com/docs/guides/direct-preference-optimization
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from server.arena.comparisons.holdout import Part, part_of
from server.arena.comparisons.store import SIDES
from server.arena.preferences.export import jsonl_line
from training.data.examples import ExampleError
from training.data.formats.json_records import Broken, decode
from training.data.formats.read import find_method_fault
from training.data.formats.record_formats import parse_record

Pair = tuple[str, str, str]
"""messages as JSON, chosen answer, rejected answer"""


@dataclass
class PreferenceVotes:
    """The votes that may train, counted by pair while they are read."""

    blind_only: bool
    votes: Counter[Pair] = field(default_factory=Counter)
    raters: set[str] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    """How many votes each rule left out."""
    seen: int = 0

    def add(self, ratings: Iterable[dict[str, Any]]) -> None:
        """Takes in votes that stand."""
        for rating in ratings:
            self.seen += 1
            reason = _why_not(rating, blind_only=self.blind_only)
            if reason is None and not self._take(_pair(rating)):
                reason = "unusable_prompt"
            if reason:
                self.left_out[reason] += 1
            else:
                self.raters.add(rating["rater"])

    def lines(self, part: Part | None, holdout_fraction: float) -> tuple[list[str], Counter[str]]:
        """The lines of one part, or of both, and how many votes the rules left out, of all."""
        left_out = self.left_out.copy()
        records = map(_dpo_line, _agreed(self.votes, left_out))
        lines = [
            jsonl_line(record)
            for record in records
            if part is None or part_of(record["input"]["messages"], holdout_fraction) == part
        ]
        return lines, left_out

    def _take(self, pair: Pair) -> bool:
        """Whether a job can learn from this pair; one more vote for it then."""
        if pair not in self.votes and not _is_usable(_dpo_line(pair)):
            return False
        self.votes[pair] += 1
        return True


def _why_not(rating: dict[str, Any], *, blind_only: bool) -> str | None:
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
        if len(ranked) > 1:
            left_out["contradicted"] += votes[ranked[1]]
        if votes[ranked[0]] > 1:
            left_out["duplicate"] += votes[ranked[0]] - 1
        yield ranked[0]


def _is_usable(record: dict[str, Any]) -> bool:
    """Whether the check that every job begins with takes this line."""
    decoded = decode(jsonl_line(record).encode(errors="surrogatepass"))
    try:
        return not isinstance(decoded, Broken) and find_method_fault(parse_record(decoded, 1), "dpo") is None
    except ExampleError:
        return False


def _dpo_line(pair: Pair) -> dict[str, Any]:
    messages, chosen, rejected = pair
    return {
        "input": {"messages": json.loads(messages)},
        "preferred_output": [{"role": "assistant", "content": chosen}],
        "non_preferred_output": [{"role": "assistant", "content": rejected}],
    }
