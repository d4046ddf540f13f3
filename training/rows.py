"""Examples to rows of token ids, as each method wants them; faults of all of them are told together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.batches import as_rows
from training.config import TrainingConfig
from training.examples import Example
from training.formats import DataError, Fault
from training.packing import pack
from training.rendering import Rendered, RenderError, render

AnyRendered = Any


@dataclass(frozen=True)
class Rows:
    """What a trainer takes."""

    rows: Sequence[Any]
    """Dictionaries of token ids for `supervised` and `text`; `RenderedPreference` or `RenderedLabelled` else."""
    n_tokens: int
    """Tokens in all rows."""
    longest: int
    """Tokens of the longest row."""
    note: str
    """How many examples were cut, dropped or packed, for people; empty when none."""

    def joined_with(self, other: Rows) -> Rows:
        """Both together."""
        return Rows(
            [*self.rows, *other.rows],
            self.n_tokens + other.n_tokens,
            max(self.longest, other.longest),
            "; ".join(filter(None, [self.note, other.note])),
        )


def make_rows(
    examples: Sequence[Example], path: Path, tokenizer: Any, config: TrainingConfig, *, packing: bool
) -> Rows:
    """The rows for `examples`, which stood in the file at `path`.

    Raises:
        DataError: an example can't be turned into something to learn, or is too long where that's to be refused.
    """
    rendered, faults = _render_all(examples, tokenizer, config)
    too_long = [example for example, one in rendered if one.truncated]
    if config.on_too_long == "refuse":
        reason = f"it is longer than `max_length` {config.max_length}; shorten it, or set `on_too_long` to cut or drop"
        faults += [Fault(example.line, reason) for example in too_long]
    if faults:
        raise DataError(path, faults)
    kept = [one for _, one in rendered if not (one.truncated and config.on_too_long == "drop")]
    if not kept and examples:
        raise DataError(path, [Fault(None, f"every example is longer than `max_length` {config.max_length}")])
    lengths = [_length(one) for one in kept]
    rows: Sequence[Any] = kept
    if config.method in ("supervised", "text"):
        rows = as_rows([one for one in kept if isinstance(one, Rendered)])
        if packing:
            rows = pack(rows, config.max_length)
    longest = max((len(row["input_ids"]) for row in rows), default=0) if packing else max(lengths, default=0)
    return Rows(rows, sum(lengths), longest, _note(len(too_long), len(kept), len(rows), config, packing=packing))


def _render_all(
    examples: Sequence[Example], tokenizer: Any, config: TrainingConfig
) -> tuple[list[tuple[Example, AnyRendered]], list[Fault]]:
    if config.method == "text":
        from training.rendering import render_texts

        return [(examples[0], one) for one in render_texts(examples, tokenizer, config.max_length)], []
    rendered: list[tuple[Example, AnyRendered]] = []
    faults = []
    render_one = _renderer(tokenizer, config)
    for example in examples:
        try:
            rendered.append((example, render_one(example)))
        except RenderError as error:
            faults.append(Fault(error.line, error.reason))
    return rendered, faults


def _renderer(tokenizer: Any, config: TrainingConfig) -> Callable[[Example], AnyRendered]:
    if config.method == "dpo":
        from training.rendering import render_preference

        return lambda example: render_preference(example, tokenizer, config.max_length)
    if config.method == "kto":
        from training.rendering import render_labelled

        return lambda example: render_labelled(example, tokenizer, config.max_length)
    return lambda example: render(example, tokenizer, config.max_length)


def _length(one: AnyRendered) -> int:
    if isinstance(one, Rendered):
        return len(one.input_ids)
    if hasattr(one, "chosen_ids"):
        return 2 * len(one.prompt_ids) + len(one.chosen_ids) + len(one.rejected_ids)
    return len(one.prompt_ids) + len(one.completion_ids)


def _note(too_long: int, kept: int, rows: int, config: TrainingConfig, *, packing: bool) -> str:
    notes = []
    if too_long and config.method != "text":
        verb = "dropped, being longer than" if config.on_too_long == "drop" else "cut at"
        notes.append(f"{too_long} {verb} max_length {config.max_length}")
    if packing:
        notes.append(f"{kept} packed into {rows} rows")
    return "; ".join(notes)
