"""`tuneloop runs`: lists, shows and compares training runs. Only reads run directories."""

from __future__ import annotations

import difflib
import json
import textwrap
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.text import Text

from server.cli.commands.run_comparison import best_of, figures_of, same_measure, settings_that_differ
from server.cli.console import make_table, out
from server.cli.options import with_settings
from server.settings import LoadedSettings
from training.config.config import ConfigError, TrainingConfig
from training.record.record import RunSummary, read_run, read_runs

app = typer.Typer(no_args_is_help=True, help="List, show and compare training runs.")
COLOURS = {"succeeded": "green", "failed": "red", "interrupted": "yellow", "running": "cyan", "waiting": "cyan"}
SEVERITY_COLOURS = {"info": "cyan", "warning": "yellow", "error": "red"}
BARS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 60
TEXT_WIDTH = 100
AS_JSON = typer.Option("--json", help="Print JSON.")


@app.command("list")
@with_settings("data_dir")
def list_(loaded: LoadedSettings, as_json: Annotated[bool, AS_JSON] = False) -> None:
    """List the training runs in the data directory, newest first.

    Example: tuneloop runs list
    """
    runs = read_runs(loaded.settings.runs_dir)
    if as_json:
        _print_json([_as_json(run) for run in runs])
    elif not runs:
        out.print("No runs yet. Start one with `tuneloop train CONFIG.yaml`; see docs/training.md for an example.")
    else:
        table = make_table("run", "status", "base model", "method", "steps", "loss", "time", "model", "started")
        for run in runs:
            figures = (_steps(run), _loss(run), _duration(run.seconds))
            row = (run.base_model, run.method, *figures, run.fine_tuned_model or "", _age(run.created_at))
            table.add_row(Text(run.id), _status(run), *map(Text, row))  # a plain text with `:a:` in it gets an emoji
        out.print(table)


@app.command()
@with_settings("data_dir")
def show(
    loaded: LoadedSettings,
    run: Annotated[
        str, typer.Argument(help="A run's id from `tuneloop runs list` or its beginning, `latest`, or a folder.")
    ],
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Show one run: its settings, data, metrics and findings.

    Example: tuneloop runs show run-20260101-120000-ab12
    """
    found = _find(loaded.settings.runs_dir, run)
    if as_json:
        _print_json(_as_json(found) | {"record": dict(found.record)})
        return
    out.print(Text.assemble((found.id, "bold"), "  ", _status(found)))
    if found.message:
        _print_wrapped(found.message, "  ")
    for title, rows in _sections(found):
        if rows:
            out.print(f"\n[bold]{title}[/bold]")
            width = max(len(name) for name, _ in rows)
            for name, value in rows:
                out.print(f"  {name:<{width}}  {value}", markup=False, emoji=False)
    _print_loss_curve(found)
    _print_findings(found)


@app.command()
@with_settings("data_dir")
def compare(
    loaded: LoadedSettings,
    runs: Annotated[list[str], typer.Argument(help="Two or more runs, as for `tuneloop runs show`.")],
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Compare runs: the settings that differ, and the metrics with the best values marked.

    Example: tuneloop runs compare run-20260101-120000-ab12 run-20260101-130000-cd34
    """
    found = [_find(loaded.settings.runs_dir, name) for name in runs]
    if len(found) < 2:
        raise ConfigError(["Only one run was given. Specify two or more: `tuneloop runs compare RUN RUN`."])
    settings, figures = settings_that_differ(found), figures_of(found)
    best = best_of(figures) if same_measure(found) else {}
    if as_json:
        _print_json({"runs": [run.id for run in found], "settings": settings, "metrics": figures, "best": best})
        return
    table = make_table("", *(run.id for run in found))
    table.add_row("status", *(_status(run) for run in found), end_section=True)
    for name, values in settings.items():
        table.add_row(name, *(Text(_text(value)) for value in values), end_section=name == next(reversed(settings)))
    for name, values in figures.items():
        table.add_row(name, *(_mark_best(value, at in best.get(name, [])) for at, value in enumerate(values)))
    out.print(table)
    out.print("Only the settings that differ are shown." if settings else "All settings are the same.")
    if best:
        out.print("* best value")
    elif not same_measure(found):
        out.print("These runs were evaluated on different examples, so their losses can't be compared.")


def _find(runs_dir: Path, name: str) -> RunSummary:
    """Return the run with the id `name`, the only one whose id starts with it, or the one in the folder `name`.

    name: `latest` is the newest run.

    Raises:
        ConfigError: none or several match; the message has the closest ids.
    """
    runs = read_runs(runs_dir)
    if name == "latest" and runs:
        return runs[0]
    exact = [run for run in runs if run.id == name]
    begun = exact or [run for run in runs if run.id.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise ConfigError(
            [f"{len(begun)} runs start with {name!r}: {', '.join(run.id for run in begun[:5])}. Type more of the id."]
        )
    if Path(name).is_dir() and (run := read_run(Path(name).resolve())):
        return run
    near = difflib.get_close_matches(name, [run.id for run in runs], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError([f"There is no run {name!r}.{hint} `tuneloop runs list` shows all runs."])


def _sections(run: RunSummary) -> list[tuple[str, list[tuple[str, str]]]]:
    times = [("started", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.created_at)))]
    times += [("took", _duration(run.seconds)), ("steps", _steps(run))]
    if run.status == "running" and (left := _remaining_s(run)) is not None:
        times.append(("remaining", f"about {_duration(left)}"))
    made = [("base model", run.base_model), ("model", run.fine_tuned_model or "")]
    plan = run.record.get("plan") or {}
    files = {"curves": run.path / "curves.png", "table": run.path / "metrics.csv"}
    files["result"] = Path(str(run.config.get("output_dir") or run.path / "-"))
    return [
        ("Run", [(name, value) for name, value in (*times, *made) if value]),
        ("Non-default settings", _changed(run)),
        ("Chosen automatically", [("", str(reason)) for reason in plan.get("reasons", ())]),
        ("Data", _data(run)),
        ("Metrics", [(name, _text(value)) for name, value in run.metrics.items()]),
        ("Files", [*((name, str(path)) for name, path in files.items() if path.exists()), ("folder", str(run.path))]),
    ]


def _changed(run: RunSummary) -> list[tuple[str, str]]:
    hidden = {
        "base_model",
        "base_model_name",
        "fine_tuned_model",
        "training_file",
        "validation_file",
        "mix_file",
        "output_dir",
    }
    defaults = TrainingConfig(base_model="-", training_file="-", output_dir="-").to_dict()
    return [
        (name, _text(value))
        for name, value in run.config.items()
        if name not in hidden and (name not in defaults or value != defaults[name])
    ]


def _data(run: RunSummary) -> list[tuple[str, str]]:
    hashes = run.record.get("data") or {}
    names = [name for name in ("training_file", "validation_file", "mix_file") if run.config.get(name)]
    return [(name, f"{run.config[name]}  {_hash_of(hashes.get(name))}".rstrip()) for name in names]


def _hash_of(file: Any) -> str:
    sha256 = file.get("sha256") if isinstance(file, dict) else None
    return f"(sha256 {sha256[:12]})" if isinstance(sha256, str) else ""


def _print_loss_curve(run: RunSummary) -> None:
    losses = [event.train_loss for event in run.events if event.type == "step" and event.train_loss is not None]
    if len(losses) > 1:
        out.print("\n[bold]Training loss[/bold]")
        out.print(f"  {losses[0]:.3f} {sparkline(losses)} {losses[-1]:.3f}")


def _print_findings(run: RunSummary) -> None:
    out.print("\n[bold]Findings[/bold]")
    for finding in run.findings:
        colour = SEVERITY_COLOURS[finding.severity]
        out.print(Text(f"  {finding.severity} {finding.code}, step {finding.step}", style=colour))
        _print_wrapped(finding.message, "    ")
        _print_wrapped(finding.remedy, "    → ")
    if not run.findings:
        out.print("  No problems found." if run.status == "succeeded" else "  No problems so far.")


def _print_wrapped(text: str, indent: str) -> None:
    for line in textwrap.wrap(text, TEXT_WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)):
        out.print(line, markup=False, emoji=False)


def sparkline(values: Sequence[float]) -> str:
    """Return `values` as up to sixty bars, each the median of its segment."""
    width = min(SPARKLINE_WIDTH, len(values))
    cuts = [at * len(values) // width for at in range(width + 1)]
    shares = [median(values[begin:end]) for begin, end in pairwise(cuts)]
    low, high = min(shares), max(shares)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((share - low) * scale)] for share in shares)


def _mark_best(value: Any, is_best: bool) -> Text:
    return Text(f"{_text(value)} *", style="bold green") if is_best else Text(_text(value))


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _status(run: RunSummary) -> Text:
    return Text(run.status, style=COLOURS[run.status])


def _steps(run: RunSummary) -> str:
    done, total = run.steps
    return f"{done}/{total}" if total else str(done) if done else ""


def _loss(run: RunSummary) -> str:
    name, before, after = run.loss
    if after is None:
        return ""
    change = f"{before:.3f} → {after:.3f}" if before is not None else f"{after:.3f}"
    return change if name == "valid_loss" else f"{change} (training)"


def _remaining_s(run: RunSummary) -> float | None:
    return next((event.remaining_s for event in reversed(run.events) if event.remaining_s is not None), None)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _age(created_at: float) -> str:
    seconds = max(0.0, time.time() - created_at)
    return f"{_duration(seconds)} ago" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days ago"


def _as_json(run: RunSummary) -> dict[str, Any]:
    done, total = run.steps
    return {
        "id": run.id,
        "path": str(run.path),
        "status": run.status,
        "message": run.message,
        "base_model": run.base_model,
        "method": run.method,
        "fine_tuned_model": run.fine_tuned_model,
        "steps": done,
        "total_steps": total,
        "seconds": round(run.seconds, 2),
        "created_at": run.created_at,
        "metrics": run.metrics,
        "findings": [finding.to_dict() for finding in run.findings],
        "config": dict(run.config),
    }


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
