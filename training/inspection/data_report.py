"""`python -m training.inspection.data_report FILE`: the contents of a file of examples, and the cost of a run on it.

Loads a tokenizer, never the weights. 0: the report was printed. 2: the file has faults, which are all listed, or the
base model or the configuration can't be used. Examples that can be read but not trained on, such as those cut before
their answer, are listed after the report: it has the lengths for choosing `max_length`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.config.config import ConfigError, Method, TrainingConfig, read_yaml
from training.data.examples import Example
from training.data.formats.read import DataError, Fault, find_method_fault, read_examples
from training.inspection.data_report_text import report_text
from training.inspection.figures.data_figures import Figures, compute_figures
from training.inspection.tokenizer import load_tokenizer
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.process.environment import prepare_environment

if TYPE_CHECKING:
    from training.inspection.forecast.forecast import Forecast

_DESCRIPTION = "Report what a training file contains, and estimate the time and memory of a run on it."
_EPILOG = """\
examples:
  python -m training.inspection.data_report examples.jsonl
  python -m training.inspection.data_report examples.jsonl --base-model models/tuneloop-demo
  python -m training.inspection.data_report examples.jsonl --config run.yaml --json"""
_METHODS: dict[str, Method] = {"text": "text", "preference": "dpo", "labelled": "kto"}
"""Kind of the examples → method for it; else supervised."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
        prepare_environment(offline=Path(str(settings.get("base_model", "."))).is_dir())
        config, examples = _read(options, settings)
        return _report(options, config, examples, with_base="base_model" in settings)
    except DataError as error:
        listing = "".join(f"\n  {fault}" for fault in error.faults)
        print(f"error: {error.path} has {len(error.faults)} error(s):{listing}", file=sys.stderr)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.inspection.data_report",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="training file in any supported format")
    parser.add_argument("--format", metavar="F", help="file format; default: detected for each record")
    parser.add_argument("--base-model", metavar="DIR", help="base model: a folder or a hub id")
    parser.add_argument("--config", metavar="RUN.yaml", type=Path, help="YAML config of the run to estimate")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the command line and the configuration file, by TrainingConfig's names."""
    settings = read_yaml(options.config) if options.config else {}
    given = {"base_model": options.base_model, "file_format": options.format, "training_file": str(options.file)}
    return settings | {name: value for name, value in given.items() if value is not None}


def _read(options: argparse.Namespace, settings: dict[str, Any]) -> tuple[TrainingConfig, list[Example]]:
    """Return the run's configuration and examples; without a `method` it is the one for most of the examples."""
    # Not used here: where the result goes and, without a base, what it is trained on.
    settings = {"output_dir": "unused", "base_model": "unknown", **settings}
    config = TrainingConfig.from_dict(settings)
    if "method" in settings:
        return config, read_examples(options.file, config.file_format, config.method)
    examples = read_examples(options.file, config.file_format)
    (kind, _), *_ = Counter(example.kind for example in examples).most_common()
    config = dataclasses.replace(config, method=_METHODS.get(kind, "supervised"))
    unfit = [
        Fault(example.line, reason) for example in examples if (reason := find_method_fault(example, config.method))
    ]
    if unfit:
        raise DataError(options.file, unfit)
    return config, examples


def _report(options: argparse.Namespace, config: TrainingConfig, examples: list[Example], *, with_base: bool) -> int:
    folder = _base_folder(config.base_model) if with_base else None
    tokenizer = None if folder is None else load_tokenizer(str(folder))
    found = compute_figures(examples, config, tokenizer)
    run = None
    if folder is not None:
        from training.inspection.forecast.forecast import (
            forecast,
        )  # brings torch, which a report without a base does without

        try:
            run = forecast(found, config, ModelShape.from_folder(folder))
        except ModelShapeError as error:
            raise ConfigError([str(error)], param="base_model") from error
    if options.json:
        print(json.dumps(_as_json(options.file, config, found, run), ensure_ascii=False, indent=2))
    else:
        print(report_text(options.file, config.method, found, run))
    faults = found.tokens.faults if found.tokens else ()
    if faults:
        listing = "".join(f"\n  {fault}" for fault in faults)
        print(f"error: {options.file} has {len(faults)} example(s) that can't be trained on:{listing}", file=sys.stderr)
    return 2 if faults else 0


def _base_folder(base_model: str) -> Path:
    """Return the folder with tokenizer and config.json of `base_model`; a hub id's small files are downloaded."""
    if Path(base_model).is_dir():
        return Path(base_model)
    from transformers.utils import cached_file

    try:
        return Path(cached_file(base_model, "config.json")).parent
    except (OSError, ValueError) as error:
        raise ConfigError(
            [
                f"{base_model!r} is neither a local folder nor available on the hub: {error}. Check the name and "
                "the network."
            ],
            param="base_model",
        ) from error


def _as_json(path: Path, config: TrainingConfig, found: Figures, run: Forecast | None) -> dict[str, Any]:
    return {
        "file": str(path),
        "method": config.method,
        "figures": dataclasses.asdict(found),
        "run": None if run is None else dataclasses.asdict(run) | {"memory_total_bytes": run.memory.total},
    }


if __name__ == "__main__":
    sys.exit(main())
