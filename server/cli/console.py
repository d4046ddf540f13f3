"""Terminal output: results, messages, and progress while an engine starts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from serving import OnProgress

PIPED_WIDTH = 200
"""Width of tables when the output isn't a terminal."""

out = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_WIDTH)
"""Results, which may be piped. Without emoji, or the `:a:` in a model's name would become one."""
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
"""Progress and errors."""


def make_table(*headers: str) -> Table:
    """Return a table whose cells wrap where they don't fit and are never truncated: ids and model names get copied."""
    table = Table()
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


@contextmanager
def start_progress(title: str) -> Iterator[OnProgress]:
    """Show the progress of an engine's start: a live bar on a terminal, one line per stage elsewhere."""
    if not err.is_terminal:
        yield _line_per_stage(title)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[time]}"))
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(title, total=1.0, time="")

        def show(stage: str, elapsed_s: float, expected_s: float) -> None:
            # Beyond the estimate the bar stays just short of full: a full bar would look finished.
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
