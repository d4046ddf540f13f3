"""Nothing outlives its owner: real process trees, killed from every side. With the real vLLM: test_vllm_process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving import EngineStartError
from serving.machine.leftovers import end_leftovers, hold_engine_lock, record_engine, session_members

KEEPER = Path(__file__).parents[3] / "serving" / "machine" / "keeper.py"
# Like an engine: a child, and a grandchild that ignores SIGTERM and whose parent is gone.
TREE = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
if os.fork() == 0:
    time.sleep(600)
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""


class Kept:
    """A keeper with a tree of processes under it, and this process as the owner."""

    def __init__(self, kind: str = "plain", grace_s: float = 1.0) -> None:
        self.keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(KEEPER), str(grace_s), sys.executable, "-c", TREE, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.keeper.stdout
        self.session = int(self.keeper.stdout.readline())
        wait_until(lambda: len(session_members(self.session)) == 3)

    def is_gone(self) -> bool:
        return session_members(self.session) == []


def wait_until(holds: Callable[[], bool], timeout_s: float = 5.0) -> float:
    """Seconds until it held."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < timeout_s, f"not so after {timeout_s} s"
        time.sleep(0.01)
    return time.monotonic() - started


def test_when_the_owner_lets_go_nothing_is_left() -> None:
    kept = Kept()
    assert kept.keeper.stdin
    kept.keeper.stdin.close()
    assert kept.keeper.wait(5) == 128 + signal.SIGTERM
    assert kept.is_gone()


def test_what_ignores_sigterm_is_killed_after_the_grace() -> None:
    kept = Kept("stubborn", grace_s=0.3)
    kept.keeper.terminate()
    assert kept.keeper.wait(5) == 128 + signal.SIGKILL
    assert kept.is_gone()


def test_when_the_command_is_killed_its_descendants_go_too() -> None:
    kept = Kept()
    os.kill(kept.session, signal.SIGKILL)
    assert kept.keeper.wait(5) == 128 + signal.SIGKILL
    assert kept.is_gone()


def test_the_commands_own_exit_code_is_passed_on() -> None:
    command = [sys.executable, str(KEEPER), "1", sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.wait(5) == 7


def test_when_the_owner_is_killed_nothing_is_left(tmp_path: Path) -> None:
    report = tmp_path / "session"
    owner = subprocess.Popen(
        [sys.executable, "-c", f"{OWNER}\nrun({str(report)!r})"],
        cwd=Path(__file__).parents[3],
    )
    wait_until(lambda: report.exists() and report.read_text() != "", timeout_s=20)
    session = int(report.read_text())
    assert len(session_members(session)) == 3
    owner.kill()
    owner.wait()
    assert wait_until(lambda: session_members(session) == []) < 5


OWNER = """
import time
from pathlib import Path
from tests.serving.machine.test_keeper import Kept
def run(report):
    kept = Kept()
    Path(report).write_text(str(kept.session))
    time.sleep(600)
"""


def test_when_keeper_and_owner_are_gone_the_next_start_ends_what_is_left(tmp_path: Path) -> None:
    kept = Kept()
    runtime_dir = tmp_path / "run"
    runtime_dir.mkdir()
    record_engine(tmp_path / "engine.json", kept.session, sys.executable, runtime_dir)
    kept.keeper.kill()
    wait_until(lambda: kept.session not in session_members(kept.session))  # the kernel killed the command itself
    assert len(session_members(kept.session)) == 2
    assert end_leftovers(tmp_path / "engine.json") == 2
    assert kept.is_gone()
    assert not runtime_dir.exists()
    assert end_leftovers(tmp_path / "engine.json") == 0


def test_a_session_number_that_means_another_process_now_is_left_alone(tmp_path: Path) -> None:
    kept = Kept()
    state_file = tmp_path / "engine.json"
    record_engine(state_file, kept.session, sys.executable, tmp_path / "run")
    state_file.write_text(state_file.read_text().replace('"started_ticks": ', '"started_ticks": 1'))
    assert end_leftovers(state_file) == 0
    assert len(session_members(kept.session)) == 3
    kept.keeper.terminate()
    kept.keeper.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"session": 1}'])
def test_a_damaged_state_file_is_passed_over(tmp_path: Path, content: str) -> None:
    state_file = tmp_path / "engine.json"
    state_file.write_text(content)
    assert end_leftovers(state_file) == 0


def test_one_directory_takes_one_server(tmp_path: Path) -> None:
    with hold_engine_lock(tmp_path), pytest.raises(EngineStartError, match="a directory can only have one server"):
        hold_engine_lock(tmp_path).__enter__()
    with hold_engine_lock(tmp_path):
        pass
