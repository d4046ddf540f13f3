"""The inputs of a run: files read, mixed and split, as far as possible without the base. Imports no torch."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.config.config import TrainingConfig
from training.data.examples import Example
from training.data.formats.read import DataError, Fault, read_examples
from training.data.splits import refuse_leakage, remove_leakage, split_examples

HOLDOUT = "holdout.jsonl"


@dataclass(frozen=True)
class RunInputs:
    """A configuration and its examples."""

    config: TrainingConfig
    training: Sequence[Example]
    validation: Sequence[Example]
    holdout: Sequence[Example] = ()
    """Examples that the run never sees."""
    mixed_in: Sequence[Example] = ()
    """General examples, trained on in addition to `training`."""
    notes: Sequence[str] = ()
    """Notes for the user, a sentence each."""


def read_inputs(config: TrainingConfig) -> RunInputs:
    """Read every file that `config` names, and split them.

    Raises:
        DataError: a file has faults, or files that should be disjoint share examples.
    """
    path = Path(config.training_file)
    examples = read_examples(path, config.file_format, config.method)
    if config.method == "kto" and len({example.label for example in examples}) < 2:
        raise DataError(path, [Fault(None, "kto needs both good and bad answers; add the missing kind")])
    mixed_in = _draw_mixed_in(config, len(examples))
    if not config.validation_file:
        parts = split_examples(
            examples,
            validation_fraction=config.validation_fraction,
            holdout_fraction=config.holdout_fraction,
            seed=config.seed,
        )
        return RunInputs(config, parts.training, parts.validation, parts.holdout, mixed_in)
    validation, notes = _read_validation(config, examples)
    parts = split_examples(examples, validation_fraction=0, holdout_fraction=config.holdout_fraction, seed=config.seed)
    return RunInputs(config, parts.training, validation, parts.holdout, mixed_in, notes)


def write_holdout(inputs: RunInputs, run_dir: Path) -> None:
    """Write the held-out examples, if any, to RUN_DIR/holdout.jsonl in OpenAI's form."""
    if inputs.holdout:
        lines = (json.dumps(example.to_record(), ensure_ascii=False) + "\n" for example in inputs.holdout)
        (run_dir / HOLDOUT).write_text("".join(lines), encoding="utf-8")


def _read_validation(config: TrainingConfig, training: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """Return the examples of `validation_file` that aren't in the training file, and notes on those left out."""
    path = Path(str(config.validation_file))
    validation = read_examples(path, "auto", config.method)
    if config.on_leakage == "refuse":
        refuse_leakage(training, validation, training_file=Path(config.training_file), validation_file=path)
        return validation, []
    kept = remove_leakage(training, validation)
    left_out = len(validation) - len(kept)
    if not left_out:
        return kept, []
    note = (
        f"{left_out} of the {len(validation)} validation examples are also in the training file and were left "
        "out of validation"
    )
    return kept, [note]


def _draw_mixed_in(config: TrainingConfig, n_examples: int) -> list[Example]:
    """Draw from `mix_file` with a seed: each example at most once more than any other."""
    if not config.mix_file:
        return []
    general = read_examples(Path(config.mix_file), "auto", config.method)
    wanted = max(1, round(config.mix_ratio * n_examples))
    draw = random.Random(config.seed)
    drawn: list[Example] = []
    while len(drawn) < wanted:
        drawn += draw.sample(general, min(len(general), wanted - len(drawn)))
    return drawn
