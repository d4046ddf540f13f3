"""A data directory that can't be used is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.app.data_dir import StartError, lock_data_dir


def test_a_lock_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "server.lock").mkdir()
    with pytest.raises(StartError, match=r"Can't lock the data directory .*: Is a directory"), lock_data_dir(tmp_path):
        pass


def test_an_error_of_what_runs_under_the_lock_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), lock_data_dir(tmp_path):
        (tmp_path / "absent").read_text()
