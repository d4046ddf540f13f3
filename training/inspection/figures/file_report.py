"""The data report as plain JSON values, with the faults beside the figures of what can be read. Prints nothing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.config.config import FileFormat, Method, TrainingConfig
from training.data.examples import Example
from training.data.formats.read import Fault, iter_examples, method_fault
from training.inspection.figures.data_figures import Figures, figures
from training.inspection.tokenizer import load_tokenizer
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.preflight.preflight import within_positions

METHODS: Mapping[str, Method] = {"text": "text", "preference": "dpo", "labelled": "kto"}
"""Kind of the examples → the method that it is for; else supervised."""


def file_report(question: Mapping[str, Any]) -> dict[str, Any]:
    """What `file` holds, and its first faults, with how many there are.

    question: `file`, a path; `base_model`, a folder or None; `config`, settings under TrainingConfig's names; `limit`,
    the most faults that are listed.

    Raises:
        ConfigError: a setting or the base can't be used.
    """
    path, base_model = Path(question["file"]), question.get("base_model")
    config = config_for(question, path, base_model)
    faults = FirstFaults(question["limit"])
    examples = list(_read(path, config.file_format, faults))
    method = config.method if "method" in question["config"] else likeliest_method(examples)
    config = dataclasses.replace(config, method=method)
    examples = fit(examples, method, faults.add)
    tokenizer = load_tokenizer(base_model) if base_model else None
    counted = figures(examples, config, tokenizer) if examples else None
    for fault in counted.tokens.faults if counted and counted.tokens else ():
        faults.add(fault)
    return {
        "method": method,
        "max_length": config.max_length,
        "figures": None if counted is None else _told(counted, question["limit"]),
        "faults_found": faults.found,
        "faults": [{"line": fault.line, "message": fault.reason} for fault in faults.first()],
    }


class FirstFaults:
    """The faults that stand first in a file, and how many there are: a file may have millions."""

    def __init__(self, most: int) -> None:
        """most: how many are kept."""
        self.found = 0
        self._most, self._kept = most, list[Fault]()

    def add(self, fault: Fault) -> None:
        """Counts it, and keeps it while it is among the first."""
        self.found += 1
        self._kept.append(fault)
        if len(self._kept) >= 2 * self._most:
            self._kept = self.first()

    def first(self) -> list[Fault]:
        """In the order of their lines; what is the file's as a whole comes before."""
        return sorted(self._kept, key=lambda fault: fault.line or 0)[: self._most]


def _read(path: Path, file_format: FileFormat, faults: FirstFaults) -> Iterator[Example]:
    for one in iter_examples(path, file_format):
        if isinstance(one, Fault):
            faults.add(one)
        else:
            yield one


def _told(counted: Figures, most: int) -> dict[str, Any]:
    """The figures without the faults, which are told beside them. most: duplicates that are listed."""
    told = dataclasses.asdict(counted)
    tokens = told["tokens"]
    return told | {
        "tokens": None if tokens is None else {key: tokens[key] for key in tokens if key != "faults"},
        "duplicates_found": len(told["duplicates"]),
        "duplicates": told["duplicates"][:most],
    }


def config_for(question: Mapping[str, Any], path: Path, base_model: str | None) -> TrainingConfig:
    """The run that is meant, as far as it is told; `max_length` suits the base where nothing else is said.

    Raises:
        ConfigError: a setting is wrong.
    """
    # Neither is used: where the result goes and, without a base, what it is trained on.
    told = {"output_dir": "unused", "base_model": base_model or "unknown", "training_file": str(path)}
    config = TrainingConfig.from_dict({**told, **question["config"]})
    if base_model is None:
        return config
    try:
        return within_positions(config, ModelShape.from_folder(Path(base_model)))
    except ModelShapeError:
        return config


def likeliest_method(examples: Sequence[Example]) -> Method:
    """What most of the examples are for."""
    kinds = Counter(example.kind for example in examples).most_common(1)
    return METHODS.get(kinds[0][0], "supervised") if kinds else "supervised"


def fit(examples: Sequence[Example], method: Method, tell: Callable[[Fault], None]) -> list[Example]:
    """The examples that `method` can learn from; why it can't from the others, `tell` is told."""
    fitting: list[Example] = []
    for example in examples:
        reason = method_fault(example, method)
        if reason:
            tell(Fault(example.line, reason))
        else:
            fitting.append(example)
    return fitting
