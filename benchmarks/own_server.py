"""A `tuneloop up` of our own for the benchmarks that need one: started on a free port, ready when entered."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

START_TIMEOUT_S = 600


@contextmanager
def running_server(data_dir: Path, model: str | None, flags: Sequence[str] = ()) -> Iterator[str]:
    """The URL of a server on `data_dir` that is ready; on leaving it is stopped.

    model: the base model; None is the embedded one.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "server", "up", "--data-dir", str(data_dir), "--port", str(port), "--no-ui"]
    command += [*flags, *(["--model", model] if model else [])]
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "benchmark-server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process, log)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def published(url: str, wanted: int) -> list[str]:
    """The names of the versions, once the parity gate has let them all through."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        adapters = httpx.get(f"{url}/v1/adapters", params={"limit": 100}).json()["data"]
        listed = [adapter["model"] for adapter in adapters if adapter["status"] == "published"]
        if len(listed) >= wanted:
            return listed
        time.sleep(0.5)
    raise SystemExit(f"Only {len(listed)} of {wanted} adapters were published in 600 s.")


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when the engine answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"The server didn't come up:\n{log.read_text()}")
