"""However the server ends, nothing of it is left, and the next start works. Starts engines of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import run_cli, running_server

pytestmark = pytest.mark.engine

Process = tuple[int, str]
"""A pid and when it started, which together name one process for good."""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory."""
    path = tmp_path / "data"
    path.mkdir()
    return path


def living() -> dict[Process, int]:
    """Every process that is no zombie → its parent's pid."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name may hold anything but ends at the last bracket; then come state, parent, …, start time.
            state, parent, *rest = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if state != "Z":
            found[int(stat.parent.name), rest[17]] = int(parent)
    return found


def family(pid: int) -> set[Process]:
    """The process and all that descend from it. Taken before it is killed: afterwards its children have other parents.

    Not by a mark in the environment: vLLM's process titles are written over it.
    """
    everyone = living()
    pids = {pid}
    while grown := {child for (child, _), parent in everyone.items() if parent in pids} - pids:
        pids |= grown
    return {process for process in everyone if process[0] in pids}


def titles(processes: set[Process]) -> str:
    found = []
    for pid, _ in processes:
        with contextlib.suppress(OSError):  # it has ended
            found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
    return "\n".join(found)


def left_of(processes: set[Process], limit_s: float = 15) -> set[Process]:
    """Those that are still alive when the time is up; returns as soon as none is."""
    deadline = time.monotonic() + limit_s
    while (left := processes & living().keys()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_kill_and_ctrl_c_leave_no_process_and_the_next_start_works(demo_model: Path, data_dir: Path) -> None:
    with running_server(data_dir, demo_model, pages=True) as (url, process, _):
        before = family(process.pid)
        assert "VLLM::EngineCore" in titles(before)
        second = run_cli("up", "--model", str(demo_model), "--data-dir", str(data_dir), "--port", "0")
        assert second.returncode == 2
        assert "in use by a running tuneloop" in second.stderr
        assert httpx.get(f"{url}/readyz").status_code == 200
        process.kill()
        process.wait()
        assert left_of(before) == set()
    with running_server(data_dir, demo_model) as (url, process, _):
        before = family(process.pid)
        assert "VLLM::EngineCore" in titles(before)
        body = {"model": demo_model.name, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
        assert httpx.post(f"{url}/v1/chat/completions", json=body | {"temperature": 0}, timeout=60).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert left_of(before) == set()


def test_ctrl_c_while_the_engine_starts_leaves_no_process(demo_model: Path, data_dir: Path) -> None:
    with running_server(data_dir, demo_model, wait=False) as (url, process, log):
        deadline = time.monotonic() + 60
        before = family(process.pid)
        while "Starting the engine" not in log.read_text() or "vllm" not in titles(before):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
            before = family(process.pid)
        assert httpx.get(f"{url}/readyz").status_code == 503
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not stop:\n{log.read_text()}")
        assert left_of(before) == set()
        assert "Traceback" not in log.read_text()


def test_no_memory_for_the_engine_is_said_before_it_starts(demo_model: Path, tmp_path: Path) -> None:
    flags = ("--model", str(demo_model), "--data-dir", str(tmp_path), "--port", "0", "--kv-cache-gib", "5000")
    done = run_cli("up", *flags)
    assert done.returncode == 1
    assert "5000" in done.stderr
    assert "kv_cache_gib" in done.stderr
    assert "Traceback" not in done.stderr
