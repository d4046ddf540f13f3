"""The data report as plain JSON values, with the faults beside the statistics of readable examples."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.config.config import FileFormat, Method, TrainingConfig
from training.data.examples import Example
from training.data.formats.read import Fault, find_method_fault, iter_examples
from training.inspection.figures.data_figures import Figures, compute_figures
from training.inspection.tokenizer import load_tokenizer
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.preflight.preflight import fit_max_length

METHODS: Mapping[str, Method] = {"text": "text", "preference": "dpo", "labelled": "kto"}
"""Kind of the examples → method for it; else supervised."""


def file_report(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of `file` and its first faults, with their total number.

    question: `file`, a path; `base_model`, a folder or None; `config`, settings under TrainingConfig's names; `limit`,
    the maximum of listed faults.

    Raises:
        ConfigError: a setting or the base can't be used.
    """
    path, base_model = Path(question["file"]), question.get("base_model")
    config = make_config(question, path, base_model)
    faults = FaultList(question["limit"])
    examples = list(_read(path, config.file_format, faults))
    method = config.method if "method" in question["config"] else guess_method(examples)
    config = dataclasses.replace(config, method=method)
    examples = select_fitting(examples, method, faults.add)
    tokenizer = load_tokenizer(base_model) if base_model else None
    counted = compute_figures(examples, config, tokenizer) if examples else None
    for fault in counted.tokens.faults if counted and counted.tokens else ():
        faults.add(fault)
    return {
        "method": method,
        "max_length": config.max_length,
        "figures": None if counted is None else _to_json(counted, question["limit"]),
        "faults_found": faults.found,
        "faults": [{"line": fault.line, "message": fault.reason} for fault in faults.first()],
    }


class FaultList:
    """The first faults of a file, and their total number: a file may have millions."""

    def __init__(self, most: int) -> None:
        """most: number of faults to keep."""
        self.found = 0
        self._most, self._kept = most, list[Fault]()

    def add(self, fault: Fault) -> None:
        """Count the fault, and keep it while it is among the first."""
        self.found += 1
        self._kept.append(fault)
        if len(self._kept) >= 2 * self._most:
            self._kept = self.first()

    def first(self) -> list[Fault]:
        """Return them in order of their lines; those of the file as a whole come first."""
        return sorted(self._kept, key=lambda fault: fault.line or 0)[: self._most]


def _read(path: Path, file_format: FileFormat, faults: FaultList) -> Iterator[Example]:
    for item in iter_examples(path, file_format):
        if isinstance(item, Fault):
            faults.add(item)
        else:
            yield item


def _to_json(counted: Figures, most: int) -> dict[str, Any]:
    """Return the statistics without the faults, which are listed beside them. most: duplicates to list."""
    values = dataclasses.asdict(counted)
    tokens = values["tokens"]
    return values | {
        "tokens": None if tokens is None else {key: tokens[key] for key in tokens if key != "faults"},
        "duplicates_found": len(values["duplicates"]),
        "duplicates": values["duplicates"][:most],
    }


def make_config(question: Mapping[str, Any], path: Path, base_model: str | None) -> TrainingConfig:
    """Return the run's configuration as far as it is given; `max_length` fits the base unless it is set.

    Raises:
        ConfigError: a setting is wrong.
    """
    # Not used: where the result goes and, without a base, what it is trained on.
    required = {"output_dir": "unused", "base_model": base_model or "unknown", "training_file": str(path)}
    config = TrainingConfig.from_dict({**required, **question["config"]})
    if base_model is None:
        return config
    try:
        return fit_max_length(config, ModelShape.from_folder(Path(base_model)))
    except ModelShapeError:
        return config


def guess_method(examples: Sequence[Example]) -> Method:
    """Return the method for most of the examples."""
    kinds = Counter(example.kind for example in examples).most_common(1)
    return METHODS.get(kinds[0][0], "supervised") if kinds else "supervised"


def select_fitting(examples: Sequence[Example], method: Method, on_fault: Callable[[Fault], None]) -> list[Example]:
    """Return the examples that `method` can train on; call `on_fault` with the reason for each of the others."""
    fitting: list[Example] = []
    for example in examples:
        reason = find_method_fault(example, method)
        if reason:
            on_fault(Fault(example.line, reason))
        else:
            fitting.append(example)
    return fitting
