"""The journal of a run: writes events as they come, diagnoses them, feeds trackers, and completes the record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.config.auto import Plan
from training.config.config import TrainingConfig
from training.record.health.diagnose import Finding, HealthMonitor
from training.record.progress import EventWriter, ProgressEvent, read_events
from training.record.record import finish_record, write_record
from training.record.run_summary import read_json_object

Sink = Callable[[ProgressEvent], None]


class Journal:
    """Receives a run's reports. Each event is written, passed to the sinks, and used to diagnose the run's health."""

    def __init__(self, run_dir: Path, events: EventWriter) -> None:
        self._run_dir, self._events = run_dir, events
        self._earlier, _ = read_events(run_dir)
        """Events from before a stop; their findings aren't reported again."""
        self._config: TrainingConfig | None = None
        self.training_file_sha256: str | None = None
        """The hash of the training file when the run started; None before that."""
        self._monitor = HealthMonitor()
        self._sinks: list[Sink] = []

    def start(self, config: TrainingConfig) -> None:
        """Write the record at the start, so that the run shows as running."""
        self._config = config
        record = read_json_object(write_record(self._run_dir, config))
        self.training_file_sha256 = record["data"]["training_file"]["sha256"]

    def record_plan(self, plan: Plan, *, validation_examples: int, base_model_sha256: str, gpu: str | None) -> None:
        """Record how `auto` was resolved and what is trained, once known; from now on the curves are diagnosed."""
        if self._config is None:
            raise RuntimeError("`begin` comes before `planned`.")
        write_record(self._run_dir, self._config, plan, base_model_sha256=base_model_sha256, gpu=gpu)
        self._monitor = HealthMonitor(
            self._config, learning_rate=plan.learning_rate, validation_examples=validation_examples
        )
        for event in self._earlier:
            self._monitor(event)

    def add_sink(self, sink: Sink) -> None:
        """Pass every event to `sink`, too, from now on."""
        self._sinks.append(sink)

    def report(self, event: ProgressEvent) -> None:
        """Report `event` and the findings from it; findings at the end come before the last event."""
        found = [_make_event(finding) for finding in self._monitor(event)]
        is_end = event.type in ("finished", "failed")
        for item in (*found, event) if is_end else (event, *found):
            self._events.write(item)
            for sink in self._sinks:
                sink(item)

    def message(self, text: str) -> None:
        """Report one line of text."""
        self.report(ProgressEvent("message", text))

    def close(self) -> None:
        """Complete the record and draw the curves; does nothing for a run without a configuration."""
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


def _make_event(finding: Finding) -> ProgressEvent:
    text = f"{finding.message} {finding.remedy}".strip()
    return ProgressEvent("health", text, code=finding.code, step=finding.step, details=finding.to_dict())
