"""An example as the rows that a run would train on, each token with its part. Prints nothing."""

from __future__ import annotations

import sys
from typing import Any

from training.data.examples import Example
from training.inspection.show.show_text import Part, Shown
from training.rendering.render import IGNORED, TrainOn, render_all, render_labelled, render_preference, render_texts

UNLIMITED = sys.maxsize


def shown_rows(
    example: Example, tokenizer: Any, *, cut_at: int, max_length: int = UNLIMITED, train_on: TrainOn = "assistant"
) -> list[Shown]:
    """The rows of `example` as they are rendered within `max_length`, what is beyond `cut_at` tokens marked as cut.

    Raises:
        RenderError: it can't be trained within `max_length`.
    """
    if example.kind == "preference":
        pair = render_preference(example, tokenizer, max_length)
        return [
            _shown(pair.prompt_ids, pair.chosen_ids, "trained", cut_at, pair.passed_over),
            _shown(pair.prompt_ids, pair.rejected_ids, "rejected", cut_at, pair.passed_over),
        ]
    if example.kind == "labelled":
        labelled = render_labelled(example, tokenizer, max_length)
        part: Part = "trained" if labelled.label else "rejected"
        return [_shown(labelled.prompt_ids, labelled.completion_ids, part, cut_at, labelled.passed_over)]
    if example.kind == "text":
        # Long texts are cut into rows, of which nothing is lost.
        return [_shown([], row.input_ids, "trained", UNLIMITED) for row in render_texts([example], tokenizer, cut_at)]
    rows = render_all(example, tokenizer, max_length, train_on)
    return [
        Shown(
            row.input_ids,
            [
                "cut" if place >= cut_at else "context" if label == IGNORED else "trained"
                for place, label in enumerate(row.labels)
            ],
            row.passed_over,
        )
        for row in rows
    ]


def _shown(
    prompt: list[int], answer: list[int], part: Part, cut_at: int, passed_over: frozenset[str] = frozenset()
) -> Shown:
    parts: list[Part] = [*["context"] * len(prompt), *[part] * len(answer)]  # type: ignore[list-item]
    return Shown(prompt + answer, ["cut" if place >= cut_at else one for place, one in enumerate(parts)], passed_over)
