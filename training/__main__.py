"""`python -m training RUN_DIR`: one run, one process, one exit code.

0: the adapter is in place. 2: the configuration, the examples or the base model can't be used. 130, 143: it was stopped
by Ctrl-C or SIGTERM, and resumes from its last checkpoint when started again. 1: anything else.
Whatever happens is also in RUN_DIR/events.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapter_format.disk import hold_lock
from training.config.config import ConfigError, TrainingConfig
from training.data.formats.read import FAULTS_SHOWN, DataError
from training.data.inputs import read_inputs, write_holdout
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.preflight.preflight import fit_max_length, preflight, refuse_contradictions
from training.process.environment import prepare_environment
from training.process.stopping import Stopped, StopRequest
from training.record.journal import Journal
from training.record.progress import CHECKPOINTS, EVENTS_FILE, RUN_LOCK, EventWriter, ProgressEvent
from training.record.record import find_changed_data
from training.record.run_summary import read_json_object
from training.record.terminal import Display

_EPILOG = """\
RUN_DIR/config.json has the settings of docs/training.md; three of them are required:
  {"base_model": "models/tuneloop-demo", "training_file": "examples.jsonl",
   "output_dir": "adapters/adapter-0123456789abcdef"}
To resume a stopped run from its last checkpoint, start it again with the same RUN_DIR."""


def main(arguments: list[str] | None = None) -> int:
    """Run what RUN_DIR/config.json describes; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Fine-tune a base model with the settings in RUN_DIR/config.json.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_dir", metavar="RUN_DIR", type=Path, help=f"folder with config.json; {EVENTS_FILE} is written there"
    )
    run_dir = parser.parse_args(arguments).run_dir
    stop = StopRequest()
    stop.listen()
    display = Display(sys.stdout)
    try:
        with _lock_run_dir(run_dir), EventWriter(run_dir, also=display) as events:
            journal = Journal(run_dir, events)
            try:
                return _run(run_dir, journal, stop)
            finally:
                _close_journal(journal)
    except _InUseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: can't use {run_dir} as a run directory: {error.strerror}. Choose another folder.", file=sys.stderr
        )
        return 2
    except Stopped as stopped:
        return 128 + stopped.signum
    finally:
        display.close()


class _InUseError(Exception):
    """Another process uses the run directory."""


@contextmanager
def _lock_run_dir(run_dir: Path) -> Iterator[None]:
    """Lock the run directory: two processes on one would write into each other's checkpoints.

    The lock is released with the process, however it ends. Raises: OSError; _InUseError.
    """

    def in_use(pid: str) -> _InUseError:
        return _InUseError(
            f"{run_dir} is in use by process {pid}, and a run can only have one process. Wait until it has finished, "
            "or stop it."
        )

    with hold_lock(run_dir / RUN_LOCK, in_use):
        yield


def _close_journal(journal: Journal) -> None:
    """Close the journal; the result is in place by now, or isn't: a failed plot doesn't change the exit code."""
    try:
        journal.close()
    except Exception:  # noqa: BLE001 — reported, no more
        print(f"warning: the record of the run is incomplete:\n{traceback.format_exc()}", file=sys.stderr)


def _run(run_dir: Path, journal: Journal, stop: StopRequest) -> int:
    """Run, and turn any failure into a `failed` event, a line for people, and an exit code: the outermost catcher."""
    try:
        _train(run_dir, journal, stop)
    except Stopped as stopped:
        message = f"{stopped}; start again with {run_dir} to resume from the last checkpoint"
        return _fail(journal, message, "interrupted", 128 + stopped.signum)
    except ConfigError as error:
        code = "output_exists" if error.param == "output_dir" else "invalid_config"
        return _fail(journal, str(error), code, 2, param=error.param)
    except DataError as error:
        faults = [{"line": fault.line, "reason": fault.reason} for fault in error.faults[:FAULTS_SHOWN]]
        return _fail(journal, str(error), "invalid_data", 2, param=_find_setting(run_dir, error.path), faults=faults)
    except Exception as error:  # noqa: BLE001 — the outermost catcher
        return _fail_with(journal, run_dir, error)
    return 0


def _train(run_dir: Path, journal: Journal, stop: StopRequest) -> None:
    # 1. Quick checks come before torch is loaded.
    config = _read_config(run_dir / "config.json")
    config = _check_config(config)
    _refuse_changed_data(run_dir, config)
    journal.start(config)
    inputs = read_inputs(config)
    write_holdout(inputs, run_dir)
    journal.report(ProgressEvent("started", f"fine-tuning {config.served_base_name} on {config.training_file}"))
    for note in inputs.notes:
        journal.message(note)
    # 2. Then the run itself.
    prepare_environment(offline=config.base_is_folder)
    from training.record.tracking import Tracking
    from training.run.run import run

    with Tracking(run_dir, config, tell=journal.message) as tracking:
        journal.add_sink(tracking)
        run(inputs, run_dir, journal, stop)


def _check_config(config: TrainingConfig) -> TrainingConfig:
    """Return `config`, if nothing in it contradicts itself, the base or what can be served; `max_length` fits the base.

    Nothing is known about a base on the hub before its download, and little about unusual ones; the run checks again.
    """
    try:
        shape = ModelShape.from_folder(Path(config.base_model)) if config.base_is_folder else None
    except ModelShapeError:
        shape = None
    if shape is None:
        refuse_contradictions(config)
        return config
    fitted = fit_max_length(config, shape)
    preflight(fitted, shape, free_bytes=None, engine_limits=None)
    return fitted


def _refuse_changed_data(run_dir: Path, config: TrainingConfig) -> None:
    """Raise ConfigError if a run with checkpoints would go on with examples that have changed since it began."""
    changed = find_changed_data(run_dir, config) if any((run_dir / CHECKPOINTS).glob("checkpoint-*")) else []
    if changed:
        raise ConfigError(
            [
                f"`{name}` {getattr(config, name)} has changed since this run started, so resuming would train on "
                "mixed data. Restore the old file, or start a new run."
                for name in changed
            ],
            param=changed[0],
        )


def _read_config(path: Path) -> TrainingConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path} can't be read as JSON: {error}. Write the configuration there."]) from error
    if not isinstance(values, dict):
        raise ConfigError([f"{path} must have a JSON object with the settings of docs/training.md."])
    config = TrainingConfig.from_dict(values)
    if Path(config.output_dir).exists():
        raise ConfigError(
            [f"`output_dir` {config.output_dir} already exists, and adapters are never overwritten. Choose a new one."],
            param="output_dir",
        )
    return config


def _find_setting(run_dir: Path, path: Path) -> str:
    """Return the setting that names this file of examples."""
    config = read_json_object(run_dir / "config.json")
    named = (name for name in ("validation_file", "mix_file") if config.get(name) and Path(config[name]) == path)
    return next(named, "training_file")


def _fail_with(journal: Journal, run_dir: Path, error: Exception) -> int:
    """Report an error; those of modules that import torch are matched by name, so that torch isn't needed here."""
    kind = type(error).__name__
    if kind == "BaseModelError":
        return _fail(journal, str(error), "invalid_base_model", 2, param=getattr(error, "param", "base_model"))
    if kind == "DivergedError":
        return _fail(journal, str(error), "diverged", 1, param="learning_rate")
    if kind == "OutOfMemoryError":
        return _fail(journal, str(error), "out_of_memory", 1, param="batch_size")
    if kind in ("AdapterWriteError", "ExportError", "ParityError"):
        return _fail(journal, str(error), "unusable_adapter", 1)
    trace = run_dir / "error.txt"
    trace.write_text(traceback.format_exc(), encoding="utf-8")
    return _fail(journal, f"The run failed: {kind}: {error}. See {trace} for details.", "internal_error", 1)


def _fail(
    journal: Journal, message: str, code: str, exit_code: int, *, param: str | None = None, **details: object
) -> int:
    journal.report(ProgressEvent("failed", message, code=code, param=param, details=details))
    print(f"error: {message}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
