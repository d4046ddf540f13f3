"""The data report as text for people. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from training.inspection.figures.data_figures import MOST_COMPARED, Figures, Lengths, Tokens
from training.rendering.pieces import not_rendered_note

if TYPE_CHECKING:
    from training.inspection.forecast.forecast import Forecast

_BAR = 40
"""Characters of the longest bar."""
_FIRST = 600
"""Characters of the first example that are shown."""
_LISTED = 5
"""Items that are listed; the rest is counted."""


def report_text(path: Path, method: str, found: Figures, run: Forecast | None) -> str:
    """Return the whole report, several lines, without a final newline."""
    parts = [_contents_text(path, method, found), _lengths_text(found.lengths)]
    parts += (
        [_tokens_text(found.tokens, found.examples), _issues_text(found)] if found.tokens else [_issues_text(found)]
    )
    if found.tokens and found.tokens.first:
        parts.append("first example, with trained tokens in ⟦…⟧:\n" + _indent(found.tokens.first))
    if run:
        parts.append(_run_text(run))
    else:
        parts.append("For lengths in tokens, memory and time, name a base model, or a --config with a `base_model`.")
    return "\n\n".join(parts)


def format_duration(seconds: float) -> str:
    """Format a duration to about two digits: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _contents_text(path: Path, method: str, found: Figures) -> str:
    lines = [
        f"{path}: {found.examples} examples, for `method: {method}`",
        f"kinds: {_format_counts(found.kinds)}",
    ]
    if found.answers_per_example:
        turns = ", ".join(f"{count} with {number}" for number, count in found.answers_per_example.items())
        lines.append(f"answers per chat: {turns}")
    if found.with_tools:
        lines.append(f"with tools: {found.with_tools}{_not_rendered_text(found)}")
    return "\n".join(lines)


def _not_rendered_text(found: Figures) -> str:
    """Say how many of the examples with tools are rendered without them."""
    count = found.tokens.not_rendered.get("tools", 0) if found.tokens else 0
    of_them = "" if count == found.with_tools else f"{count} of them "
    return f" ({of_them}not rendered by this base model's chat template)" if count else ""


def _lengths_text(lengths: Lengths) -> str:
    shown = (
        f"length in {lengths.unit}: shortest {lengths.shortest}, median {lengths.median}, 95th percentile "
        f"{lengths.p95}, longest {lengths.longest}, total {lengths.total:,}"
    )
    most = max(count for _, count in lengths.histogram)
    width = len(str(lengths.histogram[-1][0]))
    bars = [
        f"  up to {bound:>{width}} {'█' * -(-_BAR * count // most):<{_BAR}} {count}"
        for bound, count in lengths.histogram
    ]
    return "\n".join([shown, *bars])


def _tokens_text(tokens: Tokens, examples: int) -> str:
    lines = []
    if tokens.examples < examples:
        lines.append(f"token counts from {tokens.examples} of the {examples} examples, evenly sampled")
    lines.append(f"longer than max_length {tokens.max_length}: {tokens.too_long} of {tokens.rows} rows")
    lines.append(f"trained on: {tokens.learned_share:.0%} of tokens; the rest is context")
    if tokens.not_rendered:
        lines.append(f"{not_rendered_note(tokens.not_rendered)} (of {examples} examples)")
    return "\n".join(lines)


def _issues_text(found: Figures) -> str:
    lines = [f"exact duplicates: {len(found.duplicates)}{_format_places(found.duplicates)}"]
    if found.near_duplicates is None:
        lines.append(f"near-duplicates: not checked with more than {MOST_COMPARED} examples")
    else:
        lines.append(f"near-duplicates: {found.near_duplicates}")
    personal = _format_counts(found.personal_data) if found.personal_data else "none found"
    where = f" (first lines: {', '.join(map(str, found.personal_data_lines))})" if found.personal_data_lines else ""
    lines.append(f"personal data: {personal}{where}")
    return "\n".join(lines)


def _run_text(run: Forecast) -> str:
    plan = run.plan
    lines = [
        f"estimated run on {run.training_rows} rows: {plan.n_epochs} epochs, {plan.total_steps} steps of "
        f"{plan.batch_size * plan.gradient_accumulation_steps} rows, learning rate {plan.learning_rate:g}",
        *(f"  {reason}" for reason in plan.reasons),
        _time_text(run),
        f"memory, about: {run.memory.total / 1e9:.2f} GB"
        + ("" if run.free_bytes is None else f" of {run.free_bytes / 1e9:.2f} GB free"),
        _indent(run.memory.table()),
    ]
    lines += [f"would be rejected: {refusal}" for refusal in run.refusals]
    lines += [f"note: {finding}" for finding in run.findings]
    return "\n".join(lines)


def _time_text(run: Forecast) -> str:
    if run.seconds is None or run.tokens_per_second is None:
        return "time: no estimate for GPUs; the run reports one after its first steps"
    return (
        f"time, about: {format_duration(run.seconds)}, at about {_round_to_two(run.tokens_per_second)} tokens/s "
        "with the current CPU load; the actual time may be half or twice that"
    )


def _round_to_two(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}" if number >= 10 else f"{number:.2g}"


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _format_places(duplicates: Iterable[tuple[int, int]]) -> str:
    pairs = [f"{line} as {first}" for line, first in duplicates]
    if not pairs:
        return ""
    return f" ({', '.join(pairs[:_LISTED])}{', …' if len(pairs) > _LISTED else ''})"


def _indent(text: str) -> str:
    shown = text if len(text) <= _FIRST else f"{text[:_FIRST]} …"
    return "\n".join(_indent_lines(shown))


def _indent_lines(text: str) -> Iterator[str]:
    return (f"  {line}" for line in text.splitlines())
