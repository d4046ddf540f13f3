"""Packs several short examples into one row, each attending only to itself. Imports no torch."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

Row = dict[str, list[int]]


def pack(rows: Sequence[Row], max_length: int) -> list[Row]:
    """Pack `rows` whole into few rows of at most `max_length` tokens; each gets `position_ids`.

    Positions restart at 0 with each example; from that transformers makes a mask that separates examples
    (`find_packed_sequence_indices` in its masking_utils). A first token isn't trained on: its context belongs to
    another example. Longest first into the fullest row with room (https://arxiv.org/abs/2404.10830).
    """
    packed: list[list[Row]] = []
    free: list[tuple[int, int]] = []
    """(free tokens, index in `packed`), sorted."""
    for row in sorted(rows, key=lambda row: -len(row["input_ids"])):
        length = len(row["input_ids"])
        fitting = bisect_left(free, (length, 0))
        if fitting == len(free):
            space, place = max_length, len(packed)
            packed.append([])
        else:
            space, place = free.pop(fitting)
        packed[place].append(row)
        insort(free, (space - length, place))
    return [_join(members) for members in packed]


def _join(members: Sequence[Row]) -> Row:
    joined: Row = {"input_ids": [], "labels": [], "position_ids": []}
    for row in members:
        joined["input_ids"] += row["input_ids"]
        joined["labels"] += [-100, *row["labels"][1:]]
        joined["position_ids"] += range(len(row["input_ids"]))
    return joined
