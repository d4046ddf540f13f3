"""Splits examples into training, validation and holdout, and finds leakage between them. Imports no torch.

Rows that are nearly the same, or have the same prompt, stay on one side: otherwise a measurement would reward
memorising. For a chat its prompt and its whole text count, for a preference the prompt. System messages don't count.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.duplicates.exact import ExactDuplicates
from training.data.duplicates.example_texts import prompt_text, whole_text
from training.data.duplicates.near import Clusters, NearDuplicates, Signature, compute_signature
from training.data.examples import Example
from training.data.formats.read import DataError, Fault

NEAR_LIMIT = 200_000
"""Maximum rows for near duplicates by default: with more, it takes minutes."""
TRAINING, VALIDATION, HOLDOUT = range(3)
_LISTED_LINES = 3
"""Lines of the training file listed in a fault."""


@dataclass(frozen=True)
class Split:
    """Three parts of a file, each in the file's order."""

    training: list[Example]
    validation: list[Example]
    holdout: list[Example]


def split_examples(
    examples: Sequence[Example],
    *,
    validation_fraction: float,
    holdout_fraction: float = 0.0,
    seed: int,
    near_duplicates: bool | None = None,
) -> Split:
    """Split `examples` into three parts, chosen by `seed`; clusters of similar rows are never split.

    Each requested part gets its fraction as closely as the clusters allow, and at least one row if there are enough
    clusters; the training part is never empty. The result is the same on every machine, whatever Python's hash seed.

    Args:
        near_duplicates: whether near duplicates form a cluster, too, at some 200 µs and 1 kB per row. Default: up to
            `NEAR_LIMIT` rows; beyond, only rows with the same text or prompt do.
    """
    near = len(examples) <= NEAR_LIMIT if near_duplicates is None else near_duplicates
    splitter = Splitter(near_duplicates=near)
    for example in examples:
        splitter.add(example)
    sides = splitter.assign_sides(validation_fraction, holdout_fraction, seed)
    parts: tuple[list[Example], ...] = ([], [], [])
    for example, side in zip(examples, sides, strict=True):
        parts[side].append(example)
    return Split(*parts)


class Splitter:
    """Takes examples one by one and finally assigns a side to each; keeps no example in memory."""

    def __init__(self, *, near_duplicates: bool = True, threshold: float = 0.8) -> None:
        self._clusters = Clusters()
        self._exact = ExactDuplicates()
        self._near = {name: NearDuplicates(threshold) for name in ("prompt", "whole")} if near_duplicates else {}

    def add(self, example: Example) -> None:
        """Add the next row: joined with earlier ones that have the same prompt or are similar."""
        row = self._clusters.add()
        for name, text in _texts_to_compare(example):
            before = self._exact.find_or_add(_exact_key(name, text), row)
            if before is not None:
                self._clusters.join(before, row)
            elif self._near and (found := compute_signature(text)) is not None:
                self._join_similar(self._near[name], found, row)

    def assign_sides(self, validation_fraction: float, holdout_fraction: float, seed: int) -> bytes:
        """Return one byte per row, in order: TRAINING, VALIDATION or HOLDOUT."""
        roots = [self._clusters.root(row) for row in range(len(self._clusters))]
        sizes: dict[int, int] = {}
        for root in roots:
            sizes[root] = sizes.get(root, 0) + 1
        chosen = _choose(sizes, validation_fraction, holdout_fraction, seed)
        return bytes(chosen.get(root, TRAINING) for root in roots)

    def _join_similar(self, index: NearDuplicates, found: Signature, row: int) -> None:
        clusters = self._clusters
        for other in index.find_all(found, skip=lambda line: clusters.root(line) == clusters.root(row)):
            clusters.join(other, row)
        index.add(found, row)


def refuse_leakage(
    training: Iterable[Example],
    validation: Sequence[Example],
    *,
    training_file: Path,
    validation_file: Path,
    threshold: float = 0.8,
) -> None:
    """Check for rows that two files share, by the rules by which a split keeps rows together.

    Raises:
        DataError: for `validation_file`, with a fault for each of its rows that is in `training_file`, too.
    """
    leaks = _find_leaks(training, validation, threshold, training_file.name)
    if leaks:
        faults = [Fault(validation[row].line, _describe_leak(leaks[row])) for row in sorted(leaks)]
        raise DataError(validation_file, faults)


def remove_leakage(training: Iterable[Example], validation: Sequence[Example], threshold: float = 0.8) -> list[Example]:
    """Return the rows of `validation` that aren't in `training`, by the rules of `refuse_leakage`."""
    leaks = _find_leaks(training, validation, threshold, "")
    return [example for row, example in enumerate(validation) if row not in leaks]


def _find_leaks(
    training: Iterable[Example], validation: Sequence[Example], threshold: float, training_name: str
) -> dict[int, list[str]]:
    """Return for each row of `validation` that is also in `training` its matches there."""
    leaks: dict[int, list[str]] = {}
    index = _ValidationIndex(validation, threshold)
    for example in training:
        for row, how in index.matches(example).items():
            leaks.setdefault(row, []).append(f"{how} line {example.line} of {training_name}")
    return leaks


class _ValidationIndex:
    """The rows of the smaller file, indexed by text."""

    def __init__(self, validation: Sequence[Example], threshold: float) -> None:
        self._rows: dict[str, list[int]] = {}
        self._near = {name: NearDuplicates(threshold) for name in ("prompt", "whole")}
        for row, example in enumerate(validation):
            for name, text in _texts_to_compare(example):
                same = self._rows.setdefault(_exact_key(name, text), [])
                same.append(row)
                if len(same) == 1 and (found := compute_signature(text)) is not None:
                    self._near[name].add(found, row)

    def matches(self, example: Example) -> dict[int, str]:
        """Return for each row of the validation file that matches `example` how it matches."""
        found: dict[int, str] = {}
        for name, text in reversed(list(_texts_to_compare(example))):
            what = "it is" if name == "whole" else "its prompt is"
            for row in self._rows.get(_exact_key(name, text), ()):
                found.setdefault(row, f"{what} the same as")
            sketch = compute_signature(text)
            if sketch is not None:
                for first in self._near[name].find_all(sketch, skip=found.__contains__):
                    found.setdefault(first, f"{what} nearly the same as")
        return found


def _describe_leak(matches: list[str]) -> str:
    more = f" and {len(matches) - _LISTED_LINES} more" if len(matches) > _LISTED_LINES else ""
    return f"{', '.join(matches[:_LISTED_LINES])}{more}; each row may be in only one of the two files"


def _texts_to_compare(example: Example) -> Iterator[tuple[str, str]]:
    """Yield ("prompt", text) and ("whole", text), if `example` has them; of a preference only the prompt."""
    prompt = prompt_text(example)
    if prompt.strip():
        yield "prompt", prompt
    if not (example.chosen and prompt.strip()):
        yield "whole", whole_text(example)


def _exact_key(name: str, text: str) -> str:
    return f"{name} {' '.join(text.casefold().split())}"


def _choose(sizes: dict[int, int], validation_fraction: float, holdout_fraction: float, seed: int) -> dict[int, int]:
    """Return the side of every cluster that isn't trained on, given {first row: rows} of all clusters."""
    clusters = sorted(sizes)
    random.Random(seed).shuffle(clusters)
    total = sum(sizes.values())
    chosen: dict[int, int] = {}
    for side, fraction in ((VALIDATION, validation_fraction), (HOLDOUT, holdout_fraction)):
        wanted = max(1, round(fraction * total)) if fraction > 0 else 0
        free = [cluster for cluster in clusters if cluster not in chosen]
        for cluster in _fill(free, sizes, wanted):
            chosen[cluster] = side
    return chosen


def _fill(free: list[int], sizes: dict[int, int], wanted: int) -> list[int]:
    """Return clusters of `free`, in order, with at most `wanted` rows in total; at least one, and never all of them."""
    taken: list[int] = []
    left = wanted
    for cluster in free:
        if sizes[cluster] <= left and len(taken) < len(free) - 1:
            taken.append(cluster)
            left -= sizes[cluster]
    if wanted and not taken and len(free) > 1:
        taken = [min(free, key=lambda cluster: sizes[cluster])]
    return taken
