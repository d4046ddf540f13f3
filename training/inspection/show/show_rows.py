"""An example as the rows that a run would train on, each token with its part."""

from __future__ import annotations

import sys
from typing import Any

from training.data.examples import Example
from training.inspection.show.show_text import MarkedRow, Part
from training.rendering.render import IGNORED, TrainOn, render_all, render_labelled, render_preference, render_texts

UNLIMITED = sys.maxsize


def mark_rows(
    example: Example, tokenizer: Any, *, cut_at: int, max_length: int = UNLIMITED, train_on: TrainOn = "assistant"
) -> list[MarkedRow]:
    """Render the rows of `example` within `max_length`; tokens beyond `cut_at` are marked as cut.

    Raises:
        RenderError: it can't be trained on within `max_length`.
    """
    if example.kind == "preference":
        pair = render_preference(example, tokenizer, max_length)
        return [
            _mark_row(pair.prompt_ids, pair.chosen_ids, "trained", cut_at, pair.omitted),
            _mark_row(pair.prompt_ids, pair.rejected_ids, "rejected", cut_at, pair.omitted),
        ]
    if example.kind == "labelled":
        labelled = render_labelled(example, tokenizer, max_length)
        part: Part = "trained" if labelled.label else "rejected"
        return [_mark_row(labelled.prompt_ids, labelled.completion_ids, part, cut_at, labelled.omitted)]
    if example.kind == "text":
        # Long texts are cut into rows, and nothing of them is lost.
        return [
            _mark_row([], row.input_ids, "trained", UNLIMITED) for row in render_texts([example], tokenizer, cut_at)
        ]
    rows = render_all(example, tokenizer, max_length, train_on)
    return [
        MarkedRow(
            row.input_ids,
            [
                "cut" if place >= cut_at else "context" if label == IGNORED else "trained"
                for place, label in enumerate(row.labels)
            ],
            row.omitted,
        )
        for row in rows
    ]


def _mark_row(
    prompt: list[int], answer: list[int], part: Part, cut_at: int, omitted: frozenset[str] = frozenset()
) -> MarkedRow:
    parts: list[Part] = [*["context"] * len(prompt), *[part] * len(answer)]  # type: ignore[list-item]
    return MarkedRow(prompt + answer, ["cut" if place >= cut_at else part for place, part in enumerate(parts)], omitted)
