"""However the server ends, nothing of it is left, and the next start works. Starts engines of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import run_cli, running_server

pytestmark = pytest.mark.engine
MARK = "TUNELOOP_TEST_MARK"


def marked_processes(mark: str) -> list[int]:
    """Pids of every live process that inherited the mark."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
        except OSError:
            continue
    return found


def wait_until_gone(mark: str, limit_s: float = 15) -> list[int]:
    deadline = time.monotonic() + limit_s
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_kill_and_ctrl_c_leave_no_process_and_the_next_start_works(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"stopping-{os.getpid()}"
    monkeypatch.setenv(MARK, mark)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with running_server(data_dir, demo_model) as (url, process, _):
        assert len([pid for pid in marked_processes(mark) if pid != os.getpid()]) >= 3
        second = run_cli("up", "--model", str(demo_model), "--data-dir", str(data_dir), "--port", "0")
        assert second.returncode == 2
        assert "in use by a running tuneloop" in second.stderr
        assert httpx.get(f"{url}/readyz").status_code == 200
        process.kill()
        process.wait()
        assert wait_until_gone(mark) == []
    with running_server(data_dir, demo_model) as (url, process, _):
        body = {"model": demo_model.name, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
        assert httpx.post(f"{url}/v1/chat/completions", json=body | {"temperature": 0}, timeout=60).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert wait_until_gone(mark) == []


def test_ctrl_c_while_the_engine_starts_leaves_no_process(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"starting-{os.getpid()}"
    monkeypatch.setenv(MARK, mark)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with running_server(data_dir, demo_model, wait=False) as (url, process, log):
        deadline = time.monotonic() + 60
        while "Starting the engine" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(3)
        assert httpx.get(f"{url}/readyz").status_code == 503
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not stop:\n{log.read_text()}")
        assert wait_until_gone(mark) == []
        assert "Traceback" not in log.read_text()


def test_no_memory_for_the_engine_is_said_before_it_starts(demo_model: Path, tmp_path: Path) -> None:
    flags = ("--model", str(demo_model), "--data-dir", str(tmp_path), "--port", "0", "--kv-cache-gib", "5000")
    done = run_cli("up", *flags)
    assert done.returncode == 1
    assert "5000" in done.stderr
    assert "kv_cache_gib" in done.stderr
    assert "Traceback" not in done.stderr
