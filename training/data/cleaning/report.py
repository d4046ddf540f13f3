"""The report of a cleaning: counts and samples, as text for people and as JSON. Imports no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from training.data.cleaning.personal_data import mask_personal_data
from training.data.cleaning.rules import Dropped, Kept
from training.data.duplicates.example_texts import all_texts

SAMPLES = 3
"""Rows shown for each reason."""
_EXCERPT_CHARS = 72


@dataclass
class CleaningReport:
    """Counts of rows, in constant memory."""

    read: int = 0
    """Rows read, including faulty ones."""
    kept: int = 0
    """Rows kept."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows dropped, by reason."""
    changed: Counter[str] = field(default_factory=Counter)
    """Rows kept with changes, by change."""
    personal_data: Counter[str] = field(default_factory=Counter)
    """Rows kept that contain, or contained before masking, personal data, by kind."""
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The first rows of each reason, change and kind: `line`, `detail`, `excerpt` (personal data masked)."""
    parts: dict[str, int] = field(default_factory=dict)
    """Rows by part, if the kept ones were split."""

    def count(self, outcome: Kept | Dropped) -> None:
        """Count one row."""
        self.read += 1
        if isinstance(outcome, Dropped):
            self.dropped[outcome.reason] += 1
            self._add_sample(outcome.reason, outcome)
            return
        self.kept += 1
        for change in outcome.changes:
            self.changed[change] += 1
            self._add_sample(change, outcome)
        for kind in outcome.personal_data:
            self.personal_data[kind] += 1
            self._add_sample(kind, outcome)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values by the fields' names."""
        counts = {name: dict(getattr(self, name)) for name in ("dropped", "changed", "personal_data")}
        return {"read": self.read, "kept": self.kept, **counts, "parts": self.parts, "samples": self.samples}

    def to_text(self) -> str:
        """Return the report for people, at most some 20 lines per heading."""
        dropped = self.read - self.kept
        lines = [
            f"{self.read:,} rows read, {self.kept:,} kept, {dropped:,} dropped ({dropped / max(1, self.read):.1%})."
        ]
        for title, counts in (
            ("Dropped", self.dropped),
            ("Changed", self.changed),
            ("With personal data", self.personal_data),
        ):
            if counts:
                lines += ["", f"{title}:", *(self._format_row(name, count) for name, count in counts.most_common())]
        if self.parts:
            lines += ["", "Split: " + ", ".join(f"{count:,} {name}" for name, count in self.parts.items()) + "."]
        return "\n".join(lines)

    def _format_row(self, name: str, count: int) -> str:
        shown = "; ".join(_format_sample(sample) for sample in self.samples[name])
        return f"  {name.replace('_', ' '):<16} {count:>9,}   {shown}"

    def _add_sample(self, name: str, outcome: Kept | Dropped) -> None:
        there = self.samples.setdefault(name, [])
        if len(there) < SAMPLES:
            there.append(_make_sample(outcome))


def _make_sample(outcome: Kept | Dropped) -> dict[str, Any]:
    example = outcome.example
    line = outcome.line if isinstance(outcome, Dropped) else outcome.example.line
    detail = outcome.detail if isinstance(outcome, Dropped) else ""
    text = next((text for text in all_texts(example) if text.strip()), "") if example else ""
    excerpt = " ".join(mask_personal_data(text[:1000])[0].split())[:_EXCERPT_CHARS]
    return {"line": line, "detail": detail, "excerpt": excerpt}


def _format_sample(sample: dict[str, Any]) -> str:
    where = f"line {sample['line']}"
    return f"{where}: {sample['detail']}" if sample["detail"] else where
