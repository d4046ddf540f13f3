"""The terminal: where messages go, and how a long start shows its progress. Owns no decisions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from serving import OnProgress

PIPED_WIDTH = 200
"""Columns of a table that goes into a file or a pipe, where no terminal says how wide it is."""

out = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_WIDTH)
"""Results: what somebody may pipe on. Without emoji, or the `:a:` in a model's name would become one."""
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
"""Progress and errors."""


def make_table(*headers: str) -> Table:
    """Return a table whose cells are folded where they don't fit, never cut: ids and model names are there to be
    copied."""
    table = Table()
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


@contextmanager
def start_progress(title: str) -> Iterator[OnProgress]:
    """A bar that an engine's start moves: a live one on a terminal, a line a stage elsewhere."""
    if not err.is_terminal:
        yield _line_per_stage(title)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[time]}"))
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(title, total=1.0, time="")

        def show(stage: str, elapsed_s: float, expected_s: float) -> None:
            # An estimate that is outrun stays just short of full: a full bar that goes on would lie.
            share = min(elapsed_s / expected_s, 0.98) if expected_s > 0 else None
            time = f"{elapsed_s:.0f} s of about {expected_s:.0f} s"
            progress.update(task, description=f"{title}: {stage}", completed=share or 0, time=time)

        yield show


def _line_per_stage(title: str) -> OnProgress:
    said: set[str] = set()

    def show(stage: str, elapsed_s: float, expected_s: float) -> None:
        if stage not in said:
            said.add(stage)
            err.print(f"{title}: {stage} ({elapsed_s:.0f} s of about {expected_s:.0f} s)")

    return show
