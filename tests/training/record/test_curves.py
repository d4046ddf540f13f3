"""The picture of a run's curves: that there is one, whatever was reported, and that it shows what it should."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.record.curves import draw_curves
from training.record.health.diagnose import Finding
from training.record.progress import ProgressEvent


def run(steps: int, **values: Any) -> list[ProgressEvent]:
    events = [
        ProgressEvent("step", step=step, train_loss=1 + math.exp(-step / 20), **values) for step in range(1, steps + 1)
    ]
    return [*events, ProgressEvent("validation", step=steps, valid_loss=1.3)] if steps else events


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(2**24) or []}  # type: ignore[misc]


@pytest.mark.parametrize("steps", [0, 1, 300])
def test_there_is_a_picture_however_little_was_reported(tmp_path: Path, steps: int) -> None:
    path = draw_curves(run(steps), tmp_path / "curves.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width == 1500
    assert [entry.name for entry in tmp_path.iterdir()] == ["curves.png"]


def test_each_further_figure_gets_a_panel(tmp_path: Path) -> None:
    plain = Image.open(draw_curves(run(50), tmp_path / "a.png"))
    values = {"learning_rate": 1e-4, "grad_norm": 1.0, "reward_margin": 0.1, "reward_accuracy": 0.6}
    more = Image.open(draw_curves(run(50, **values), tmp_path / "b.png"))
    assert more.height > plain.height


def test_findings_are_marked_in_red_and_mere_notes_are_not(tmp_path: Path) -> None:
    red = (178, 24, 43)
    warning = Finding("overfitting", "warning", 30, "It rises.", "Stop sooner.")
    note = Finding("plateau", "info", 30, "It stands.", "")
    assert red in colours(draw_curves(run(50), tmp_path / "curves.png", findings=[warning]))
    assert red not in colours(draw_curves(run(50), tmp_path / "curves.png", findings=[note]))


def test_one_wild_batch_does_not_flatten_the_curve(tmp_path: Path) -> None:
    wild = [ProgressEvent("step", step=301, train_loss=1e6)]
    calm = Image.open(draw_curves(run(300), tmp_path / "a.png")).convert("RGB")
    jolted = Image.open(draw_curves([*run(300), *wild], tmp_path / "b.png")).convert("RGB")
    blue = (0, 114, 178)

    def rows(picture: Image.Image) -> int:
        pixels = picture.load()
        assert pixels is not None
        return sum(any(pixels[x, y] == blue for x in range(0, picture.width, 2)) for y in range(picture.height // 2))

    assert rows(jolted) > rows(calm) / 2
