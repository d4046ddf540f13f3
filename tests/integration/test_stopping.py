"""However the server ends, nothing of it is left. Where it is killed or ends after its work: test_engine_faults."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import run_cli, running_server
from tests.processes import family, left_of, titles

pytestmark = pytest.mark.engine


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory."""
    path = tmp_path / "data"
    path.mkdir()
    return path


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
