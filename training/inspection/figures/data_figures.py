"""Statistics of a file of examples: how many of which kind, how long, how many duplicates. Imports no torch.

Lengths are in tokens of a base model if its tokenizer is given, else in characters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.config.config import TrainingConfig
from training.data.cleaning.personal_data import find_personal_data
from training.data.duplicates.exact import ExactDuplicates
from training.data.duplicates.example_texts import all_texts, identity, whole_text
from training.data.duplicates.near import NearDuplicates, compute_signature
from training.data.examples import Example
from training.data.formats.read import Fault
from training.rendering.pieces import Part
from training.rendering.render import (
    IGNORED,
    Rendered,
    RenderError,
    find_omitted,
    render_all,
    render_labelled,
    render_preference,
    render_texts,
)

MOST_RENDERED = 5000
"""Examples that are tokenised; of a larger file an evenly spread sample of this size represents all."""
MOST_COMPARED = 50_000
"""Examples that are searched for near duplicates; with more, it would take minutes."""
_UNCUT = 10_000_000
"""A `max_length` that cuts nothing."""


@dataclass(frozen=True)
class Lengths:
    """Statistics of the examples' lengths."""

    unit: str
    """`tokens` or `characters`."""
    count: int
    """Examples, or rows of text, that were measured."""
    total: int
    shortest: int
    median: int
    p95: int
    """95th percentile."""
    longest: int
    histogram: tuple[tuple[int, int], ...]
    """(upper bound, number above the bound before and up to this one)"""


@dataclass(frozen=True)
class Tokens:
    """Token statistics with one base model's tokenizer."""

    examples: int
    """Tokenised examples: all, or of a large file `MOST_RENDERED`."""
    rows: int
    """Resulting training rows; a preference makes two."""
    learned_share: float
    """Share of the tokens that are trained on."""
    too_long: int
    """Examples, or rows, longer than `max_length`."""
    max_length: int
    faults: tuple[Fault, ...]
    """Examples that can't be trained on."""
    first: str
    """The first example as the model sees it, with ⟦…⟧ around what is trained on."""
    not_rendered: Mapping[Part, int] = field(default_factory=dict)
    """Parts that the base's chat template omits → number of examples with it, including those with a fault for it."""


@dataclass(frozen=True)
class Figures:
    """All statistics."""

    examples: int
    kinds: Mapping[str, int]
    answers_per_example: Mapping[int, int]
    """Number of assistant turns → number of examples with so many; chats only."""
    with_tools: int
    """Examples with tools."""
    lengths: Lengths
    tokens: Tokens | None
    """None without a tokenizer."""
    duplicates: tuple[tuple[int, int], ...]
    """(line, line of the first occurrence)"""
    near_duplicates: int | None
    """Examples similar to an earlier one, without those in `duplicates`; None if the file is too large for that."""
    personal_data: Mapping[str, int]
    """Kind → findings."""
    personal_data_lines: tuple[int, ...] = field(default=())
    """The first few lines with findings."""


def compute_figures(examples: Sequence[Example], config: TrainingConfig, tokenizer: Any | None) -> Figures:
    """Compute the statistics of `examples`, read for a run with `config`.

    Args:
        tokenizer: of the base model, a `PreTrainedTokenizerBase`; None: lengths are in characters.
    """
    answers = Counter(_count_answers(example) for example in examples if example.messages)
    duplicates = _find_duplicates(examples)
    kinds, lines = _find_personal_data(examples)
    if tokenizer is None:
        characters = [sum(map(len, all_texts(example))) for example in examples]
        lengths, tokens = measure_lengths(characters, "characters"), None
    else:
        lengths, tokens = compute_token_figures(examples, config, tokenizer)
    return Figures(
        examples=len(examples),
        kinds=dict(Counter(example.kind for example in examples).most_common()),
        answers_per_example=dict(sorted(answers.items())),
        with_tools=sum(bool(example.tools) for example in examples),
        lengths=lengths,
        tokens=tokens,
        duplicates=duplicates,
        near_duplicates=_count_near_duplicates(examples, {line for line, _ in duplicates}),
        personal_data=kinds,
        personal_data_lines=lines,
    )


def measure_lengths(lengths: Sequence[int], unit: str) -> Lengths:
    """Return the statistics of `lengths`, at least one."""
    ordered = sorted(lengths)
    count = len(ordered)
    return Lengths(
        unit=unit,
        count=count,
        total=sum(ordered),
        shortest=ordered[0],
        median=ordered[(count - 1) // 2],
        p95=ordered[math.ceil(0.95 * count) - 1],
        longest=ordered[-1],
        histogram=_histogram(ordered),
    )


def _histogram(ordered: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return bins whose upper bounds are powers of two, from the shortest's to the longest's."""
    bins = Counter(1 << max(0, length - 1).bit_length() for length in ordered)
    bound, bounds = min(bins), []
    while bound <= max(bins):
        bounds.append(bound)
        bound *= 2
    return tuple((bound, bins[bound]) for bound in bounds)


def _count_answers(example: Example) -> int:
    return sum(message.role == "assistant" for message in (*example.messages, *example.chosen))


def _find_duplicates(examples: Sequence[Example]) -> tuple[tuple[int, int], ...]:
    seen = ExactDuplicates()
    found = ((example.line, seen.find_or_add(identity(example), example.line)) for example in examples)
    return tuple((line, first) for line, first in found if first is not None)


def _count_near_duplicates(examples: Sequence[Example], exact: set[int]) -> int | None:
    if len(examples) > MOST_COMPARED:
        return None
    seen, count = NearDuplicates(), 0
    for example in examples:
        sketch = None if example.line in exact else compute_signature(whole_text(example))
        if sketch is not None and seen.find_or_add(sketch, example.line) is not None:
            count += 1
    return count


def _find_personal_data(examples: Sequence[Example]) -> tuple[dict[str, int], tuple[int, ...]]:
    kinds: Counter[str] = Counter()
    lines: list[int] = []
    for example in examples:
        found = [finding.kind for text in all_texts(example) for finding in find_personal_data(text)]
        kinds.update(found)
        if found and len(lines) < 5:
            lines.append(example.line)
    return dict(kinds.most_common()), tuple(lines)


def compute_token_figures(
    examples: Sequence[Example], config: TrainingConfig, tokenizer: Any
) -> tuple[Lengths, Tokens]:
    """Return the lengths of `examples`, at least one, in tokens, and the token statistics with `tokenizer`."""
    every = math.ceil(len(examples) / MOST_RENDERED)
    looked_at = examples[::every]
    found = _render_sample(examples, every, config, tokenizer)
    rows = found.rows
    too_long = sum(len(row.input_ids) > config.max_length for row in rows)
    lengths = [len(row.input_ids) for row in rows]
    learned = sum(label != IGNORED for row in rows for label in row.labels)
    if config.method == "text":
        # The rows are cut from all texts together; the lengths are those of the texts.
        lengths = [len(tokenizer(example.text)["input_ids"]) for example in looked_at if example.text is not None]
    tokens = Tokens(
        examples=len(looked_at),
        rows=len(rows),
        learned_share=learned / max(1, sum(len(row.input_ids) for row in rows)),
        too_long=too_long,
        max_length=config.max_length,
        faults=tuple(found.faults),
        first=_mark_trained(rows[0], tokenizer) if rows else "",
        not_rendered=dict(found.not_rendered.most_common()),
    )
    return measure_lengths(lengths or [0], "tokens"), tokens


@dataclass
class _Rendered:
    """Rendered examples."""

    rows: list[Rendered] = field(default_factory=list)
    """Uncut, except texts."""
    faults: list[Fault] = field(default_factory=list)
    """Examples that can't be rendered or have nothing to train on within `max_length`."""
    not_rendered: Counter[Part] = field(default_factory=Counter)


def _render_sample(examples: Sequence[Example], every: int, config: TrainingConfig, tokenizer: Any) -> _Rendered:
    """Tokenise every `every`-th example; the others are only checked for parts that the template omits."""
    found = _Rendered()
    if config.method == "text":
        try:
            found.rows = render_texts(examples[::every], tokenizer, config.max_length)
        except RenderError as error:
            found.faults.append(Fault(error.line, error.reason))
        return found
    for place, example in enumerate(examples):
        try:
            if place % every:
                parts = find_omitted(example, tokenizer, config.train_on)
            else:
                made = _render_within(_UNCUT, example, config, tokenizer)
                parts = made[0].omitted
                found.rows += made
                if reason := _explain_unusable(made, example, config, tokenizer):
                    found.faults.append(Fault(example.line, reason))
        except RenderError as error:
            parts = error.omitted
            found.faults.append(Fault(error.line, error.reason))
        found.not_rendered.update(parts)
    return found


def _explain_unusable(rows: Sequence[Rendered], example: Example, config: TrainingConfig, tokenizer: Any) -> str | None:
    """Return why an example can't be trained on with `max_length`; None if it can, or is dropped."""
    longest = max(len(row.input_ids) for row in rows)
    if longest <= config.max_length or config.on_too_long == "drop":
        return None
    if config.on_too_long == "refuse":
        return f"its {longest} tokens are more than `max_length` {config.max_length}, and `on_too_long` is refuse"
    try:
        _render_within(config.max_length, example, config, tokenizer)
    except RenderError as error:
        return f"{error.reason}, or set `on_too_long` to drop"
    return None


def _render_within(max_length: int, example: Example, config: TrainingConfig, tokenizer: Any) -> list[Rendered]:
    """Return the rows of `example`; of a preference, one for each answer. Raises: RenderError."""
    if example.kind == "preference":
        pair = render_preference(example, tokenizer, max_length)
        return [_make_row(pair.prompt_ids, answer, pair.omitted) for answer in (pair.chosen_ids, pair.rejected_ids)]
    if example.kind == "labelled":
        labelled = render_labelled(example, tokenizer, max_length)
        return [_make_row(labelled.prompt_ids, labelled.completion_ids, labelled.omitted)]
    return render_all(example, tokenizer, max_length, config.train_on)


def _make_row(prompt_ids: list[int], answer_ids: list[int], parts: frozenset[Part]) -> Rendered:
    labels = [IGNORED] * len(prompt_ids) + answer_ids
    return Rendered(prompt_ids + answer_ids, labels, truncated=False, omitted=parts)


def _mark_trained(row: Rendered, tokenizer: Any) -> str:
    """Return the text of `row` with ⟦…⟧ around what is trained on."""
    pieces: list[str] = []
    start = 0
    for end in range(1, len(row.input_ids) + 1):
        if end == len(row.input_ids) or (row.labels[end] == IGNORED) != (row.labels[start] == IGNORED):
            text = tokenizer.decode(row.input_ids[start:end])
            pieces.append(text if row.labels[start] == IGNORED else f"⟦{text}⟧")
            start = end
    return "".join(pieces)
