"""Turns examples into rows of token ids for each method; the faults of all are reported together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config.config import TrainingConfig
from training.data.examples import Example
from training.data.formats.read import DataError, Fault
from training.learning.batches import to_rows
from training.learning.packing import pack
from training.rendering.pieces import Part, not_rendered_note
from training.rendering.render import (
    Rendered,
    RenderedLabelled,
    RenderedPreference,
    RenderError,
    render_all,
    render_labelled,
    render_preference,
    render_texts,
)

AnyRendered = Rendered | RenderedPreference | RenderedLabelled


@dataclass(frozen=True)
class Rows:
    """The input of a trainer."""

    rows: Sequence[Any]
    """Dictionaries of token ids for `supervised` and `text`; else `RenderedPreference` or `RenderedLabelled`."""
    n_examples: int
    """Examples in the rows; dropped ones don't count."""
    n_tokens: int
    """Tokens in all rows."""
    longest: int
    """Tokens of the longest row."""
    note: str
    """For people: how many examples were cut, dropped or packed, or have parts that aren't rendered; empty if none."""

    def join(self, other: Rows) -> Rows:
        """Return both together."""
        return Rows(
            [*self.rows, *other.rows],
            self.n_examples + other.n_examples,
            self.n_tokens + other.n_tokens,
            max(self.longest, other.longest),
            "; ".join(filter(None, [self.note, other.note])),
        )


def make_rows(
    examples: Sequence[Example], path: Path, tokenizer: Any, config: TrainingConfig, *, packing: bool
) -> Rows:
    """Make the rows for `examples` of the file at `path`.

    Raises:
        DataError: an example can't be trained on, or is too long and `on_too_long` is `refuse`.
    """
    if not examples:
        return Rows([], 0, 0, 0, "")
    rendered, dropped, not_rendered = _render(examples, path, tokenizer, config)
    lengths = [_row_length(row) for row in rendered]
    rows: Sequence[Any] = rendered
    if config.method in ("supervised", "text"):
        rows = to_rows([row for row in rendered if isinstance(row, Rendered)])
        if packing:
            rows = pack(rows, config.max_length)
    longest = max(len(row["input_ids"]) for row in rows) if packing else max(lengths)
    cut = sum(row.truncated for row in rendered)
    n_examples = len(examples) - dropped
    note = _describe_changes(cut, dropped, len(rendered), len(rows), config, packing=packing)
    note = "; ".join(filter(None, [note, not_rendered_note(not_rendered)]))
    return Rows(rows, n_examples, sum(lengths), longest, note)


def _render(
    examples: Sequence[Example], path: Path, tokenizer: Any, config: TrainingConfig
) -> tuple[list[AnyRendered], int, Counter[Part]]:
    """Return the rendered examples, the number dropped for length, and the counts of parts that aren't rendered."""
    not_rendered: Counter[Part] = Counter()
    rendered: list[AnyRendered] = []
    faults: list[Fault] = []
    dropped = 0
    if config.method == "text":
        return _render_texts(examples, path, tokenizer, config), 0, not_rendered
    render_one = _choose_renderer(tokenizer, config)
    for example in examples:
        try:
            found = render_one(example)
        except RenderError as error:
            if error.is_too_long and config.on_too_long == "drop":
                dropped += 1
            else:
                faults.append(Fault(error.line, error.reason))
            continue
        if config.on_too_long != "cut" and any(row.truncated for row in found):
            dropped += 1
            if config.on_too_long == "refuse":
                limit = f"`max_length` {config.max_length}"
                faults.append(
                    Fault(example.line, f"it is longer than {limit}; shorten it, or set `on_too_long` to cut")
                )
            continue
        rendered += found
        not_rendered.update(found[0].omitted)
    if not rendered and not faults:
        faults.append(Fault(None, f"every example is longer than `max_length` {config.max_length}; raise it"))
    if faults:
        raise DataError(path, faults)
    return rendered, dropped, not_rendered


def _render_texts(examples: Sequence[Example], path: Path, tokenizer: Any, config: TrainingConfig) -> list[AnyRendered]:
    try:
        return list(render_texts(examples, tokenizer, config.max_length))
    except RenderError as error:
        raise DataError(path, [Fault(error.line, error.reason)]) from error


def _choose_renderer(tokenizer: Any, config: TrainingConfig) -> Callable[[Example], Sequence[AnyRendered]]:
    if config.method == "dpo":
        return lambda example: [render_preference(example, tokenizer, config.max_length)]
    if config.method == "kto":
        return lambda example: [render_labelled(example, tokenizer, config.max_length)]
    return lambda example: render_all(example, tokenizer, config.max_length, config.train_on)


def _row_length(row: AnyRendered) -> int:
    """Return the tokens of the row; of a preference, of its prompt with the longer answer."""
    if isinstance(row, Rendered):
        return len(row.input_ids)
    if isinstance(row, RenderedPreference):
        return len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids))
    return len(row.prompt_ids) + len(row.completion_ids)


def _describe_changes(cut: int, dropped: int, kept: int, rows: int, config: TrainingConfig, *, packing: bool) -> str:
    notes = []
    if dropped:
        notes.append(f"{dropped} dropped because they are longer than max_length {config.max_length}")
    if cut:
        notes.append(f"{cut} cut at max_length {config.max_length}")
    if packing:
        notes.append(f"{kept} packed into {rows} rows")
    return "; ".join(notes)
