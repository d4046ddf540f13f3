"""Files that others read while they are written, and locks that end with their holder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adapter_format.disk import hold_lock, is_locked, write_aside


@pytest.mark.parametrize("durable", [False, True])
def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "record.json"
    file.write_text("old")
    with write_aside(file, durable=durable) as aside:
        aside.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text("old")

    def fail_halfway() -> None:
        with write_aside(file) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "server.lock"
    program = "import sys; from pathlib import Path; from adapter_format.disk import hold_lock\n"
    program += "with hold_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    assert not is_locked(lock)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert is_locked(lock)
        with pytest.raises(RuntimeError, match=f"^{holder.pid}$"), hold_lock(lock, RuntimeError):
            pass
        holder.kill()
    assert not is_locked(lock)
    with hold_lock(lock, RuntimeError):
        assert is_locked(lock)


def test_a_lock_holds_though_its_holder_can_no_longer_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "server.lock"
    monkeypatch.setattr("os.write", _fail)  # as on a full disk
    with hold_lock(lock):
        assert is_locked(lock)
        with pytest.raises(RuntimeError, match=r"^unknown$"), hold_lock(lock, RuntimeError):
            pass


def _fail(*_: object) -> int:
    raise OSError(28, "No space left on device")
