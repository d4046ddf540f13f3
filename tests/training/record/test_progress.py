"""The event file: what is written is read, and a killed writer spoils nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.record.progress import EventWriter, ProgressEvent, read_events


def test_events_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [
        ProgressEvent("started", "go"),
        ProgressEvent("step", step=1, total_steps=2, train_loss=0.0, remaining_s=1.5),
        ProgressEvent("finished", details={"metrics": {"train_loss": 0.5}}),
    ]
    seen: list[ProgressEvent] = []
    with EventWriter(tmp_path, also=seen.append) as events:
        for event in written:
            events.write(event)
    assert read_events(tmp_path)[0] == written == seen


def test_reading_goes_on_from_an_offset(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as events:
        events.write(ProgressEvent("started"))
        _, offset = read_events(tmp_path)
        assert read_events(tmp_path, offset) == ([], offset)
        events.write(ProgressEvent("message", "更多"))
        fresh, _ = read_events(tmp_path, offset)
    assert [event.message for event in fresh] == ["更多"]


def test_half_a_line_is_left_until_it_is_whole(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as events:
        events.write(ProgressEvent("started"))
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"type": "st')
    found, offset = read_events(tmp_path)
    assert [event.type for event in found] == ["started"]
    assert offset < (tmp_path / "events.jsonl").stat().st_size


def test_a_line_torn_by_a_kill_does_not_spoil_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"type": "started", "created_at": 1.0}\n{"type": "st')
    with EventWriter(tmp_path) as events:
        events.write(ProgressEvent("message", "again"))
    assert [event.message for event in read_events(tmp_path)[0]] == ["", "again"]


def test_a_loss_that_is_no_number_is_left_out() -> None:
    assert "train_loss" not in ProgressEvent("step", train_loss=float("nan")).to_json()


def test_keys_of_a_later_version_are_ignored_and_no_event_is_refused() -> None:
    assert ProgressEvent.from_json('{"type": "started", "created_at": 1.0, "novelty": 1}').created_at == 1.0
    with pytest.raises(ValueError, match="progress event"):
        ProgressEvent.from_json("[]")


def test_a_run_that_has_not_begun_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path) == ([], 0)
