"""Keeps account of a run: events as they come, what is wrong with the curves, trackers, and the record at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.config.auto import Plan
from training.config.config import TrainingConfig
from training.record.health.diagnose import Finding, Watch
from training.record.progress import EventWriter, ProgressEvent, read_events
from training.record.record import finish_record, write_record
from training.record.run_summary import json_object

Sink = Callable[[ProgressEvent], None]


class Journal:
    """Where a run reports to. Each event is written, handed on, and looked at for what it says of the run's health."""

    def __init__(self, run_dir: Path, events: EventWriter) -> None:
        self._run_dir, self._events = run_dir, events
        self._earlier, _ = read_events(run_dir)
        """What was told before a stop; its findings aren't told again."""
        self._config: TrainingConfig | None = None
        self.training_file_sha256: str | None = None
        """The hash of the training file as it was when the run began; None before that."""
        self._watch = Watch()
        self._sinks: list[Sink] = []

    def begin(self, config: TrainingConfig) -> None:
        """Notes what is going to be done, so that the run shows as running."""
        self._config = config
        record = json_object(write_record(self._run_dir, config))
        self.training_file_sha256 = record["data"]["training_file"]["sha256"]

    def planned(self, plan: Plan, *, validation_examples: int, base_model_sha256: str, gpu: str | None) -> None:
        """Notes what `auto` came to and what is trained, once that is known; from now on the curves are watched."""
        if self._config is None:
            raise RuntimeError("`begin` comes before `planned`.")
        write_record(self._run_dir, self._config, plan, base_model_sha256=base_model_sha256, gpu=gpu)
        self._watch = Watch(self._config, learning_rate=plan.learning_rate, validation_examples=validation_examples)
        for event in self._earlier:
            self._watch(event)

    def hand_on_to(self, sink: Sink) -> None:
        """From now on `sink` gets every event, too."""
        self._sinks.append(sink)

    def report(self, event: ProgressEvent) -> None:
        """Tells `event`, and what it brings to light; what comes to light at the end is told before the end."""
        found = [_as_event(finding) for finding in self._watch(event)]
        is_end = event.type in ("finished", "failed")
        for one in (*found, event) if is_end else (event, *found):
            self._events.write(one)
            for sink in self._sinks:
                sink(one)

    def message(self, text: str) -> None:
        """Tells one line."""
        self.report(ProgressEvent("message", text))

    def close(self) -> None:
        """Brings the record up to date and draws the curves; nothing of that for a run that had no configuration."""
        if self._config is None:
            return
        record = finish_record(self._run_dir)
        events, _ = read_events(self._run_dir)
        if any(event.type == "step" for event in events):
            from training.record.curves import (
                CURVES_FILE,
                draw_curves,
            )  # matplotlib takes a second, and not every run trains

            findings = [Finding(**finding) for finding in record["findings"]]
            draw_curves(events, self._run_dir / CURVES_FILE, findings=findings, title=self._run_dir.name)


def _as_event(finding: Finding) -> ProgressEvent:
    text = f"{finding.message} {finding.remedy}".strip()
    return ProgressEvent("health", text, code=finding.code, step=finding.step, details=finding.to_dict())
