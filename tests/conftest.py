"""What all tests share: the embedded base, and one real tuneloop (server, engine, adapter) for a whole session."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
import yaml

from server.cli.base_model import build_command, embedded_base_model
from server.settings import default_cache_dir
from tests import forked
from tests.databases import database_url as database_url
from tests.databases import migrated_sqlite as migrated_sqlite
from tests.databases import postgresql as postgresql
from tests.databases import postgresql_bin
from tests.forked import Forked, run_forked
from tests.forking_python import ForkingPython
from tests.training.runs import Run, run_demo_once
from training.demo.examples import HOLDOUT

REPOSITORY = Path(__file__).parents[1]
START_TIMEOUT_S = 300
MAX_FILE_BYTES = 64 * 2**20
"""What the shared server takes, so that going over it is quick."""
ENGINES = {
    "tests/integration/test_families.py": "",  # first: it needs no embedded base, which is being built meanwhile
    "tests/integration/test_accelerator_for_both.py": "",
    "tests/integration/test_any_base.py": "",
    "tests/integration/test_engine_faults.py": "",
    "tests/integration/test_several_bases.py": "",
    "tests/integration/test_stopping.py": "",
    "tests/integration/": "tuneloop",
    "tests/browser/test_compare_on_the_engine.py": "tuneloop",
    "tests/serving/engines/test_vllm_process.py": "live",
    "tests/serving/parity/test_gate_on_the_engine.py": "live",
}
"""Where tests are that are marked `engine`, and the fixture whose engine they share, if any."""
IN_ORDER = (
    "tests/integration/test_families.py",
    "tests/browser/test_compare_page.py",  # needs no embedded base either
    "tests/integration/",
    "tests/browser/",
    "tests/serving/engines/",
    "tests/server/jobs/",
    "tests/training/",
    "tests/server/",
    "",
)
"""The longest first, so that all workers end at about the same time."""
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests run on another embedded base: none of them may need what one base happens to have learned."""
    parser.addoption("--base-seed", type=int, default=None, help="build the embedded base with this seed")


def pytest_configure(config: pytest.Config) -> None:
    """Name our markers, spare processes what they need not do, and let workers share one that forks our commands."""
    config.addinivalue_line("markers", "both_databases: runs on SQLite, then on PostgreSQL")
    # Else each of the hundreds of commands and checks compiles what it imports of ours.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as our trainings do: threads that spin take others' cores
    # No test asks anybody for whom an authority vouches, and reading all of them takes every HTTP client half as long
    # as a gateway takes to start: here there is one.
    authority = tempfile.NamedTemporaryFile("w", suffix=".pem")  # noqa: SIM115 — it is there until the session's end
    authority.write(Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----")[0])
    authority.write("-----END CERTIFICATE-----\n")
    authority.flush()
    config.add_cleanup(authority.close)
    os.environ["SSL_CERT_FILE"] = authority.name
    if config.getoption("numprocesses", None):
        forked.shared_address()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `both_databases` on each of them."""
    if "database_url" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_databases"):
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests whose program is missing, and say so; in CI that is a failure, not a choice."""
    for program, missing, concerned in (
        ("chromium", CHROMIUM is None, lambda item: item.get_closest_marker("browser")),
        ("postgresql", postgresql_bin() is None, _wants_postgresql),
    ):
        if not missing:
            continue
        reason = f"{program} is missing: apt-get install {program}"
        if os.environ.get("CI"):
            raise pytest.UsageError(f"CI must run every test, and {reason}")
        for item in filter(concerned, items):
            item.add_marker(pytest.mark.skip(reason=reason))
    for item in items:
        if item.get_closest_marker("engine") and _shared_engine(item.nodeid) is None:
            raise pytest.UsageError(f"{item.nodeid} is marked engine: name its file in ENGINES")
    items.sort(key=lambda item: next(i for i, start in enumerate(IN_ORDER) if item.nodeid.startswith(start)))


def _shared_engine(nodeid: str) -> str | None:
    return next((shared for start, shared in ENGINES.items() if nodeid.startswith(start)), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Under `-n 2` a file's tests stay together, and so do the files that share an engine."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        # pytest-xdist 3.8 has groups of its own by marker, which pytest 9.2 doesn't let it tell to its workers.
        def _split_scope(self, nodeid: str) -> str:
            return _shared_engine(nodeid) or nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # by the number of their tests: ours are in order
    build = build_command(default_cache_dir(), config.getoption("--base-seed"))
    # By the time that a worker asks for the base it is there, or nearly: who asks meanwhile waits for this one.
    subprocess.Popen(build, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return ByFile(config, log)


def _wants_postgresql(item: pytest.Item) -> bool:
    chosen = getattr(item, "callspec", None)
    wanted = {"postgresql", "own_postgresql"}.intersection(getattr(item, "fixturenames", ()))
    return bool(wanted) or bool(chosen and chosen.params.get("database_url") == "postgresql")


@dataclass(frozen=True)
class Tuneloop:
    """A running server with its engine, and one adapter, the demo's, that came while it ran."""

    url: str
    """http://127.0.0.1:PORT"""
    base_model: str
    tuned_model: str
    data_dir: Path
    model_dir: Path
    log: Path
    """What it printed."""


@pytest.fixture(scope="session")
def forking_python() -> Iterator[ForkingPython]:
    """A `python` that forks what it is to run, for servers of which nobody asks how they start their processes."""
    python = ForkingPython()
    yield python
    python.close()


@pytest.fixture(scope="session")
def demo_model(request: pytest.FixtureRequest) -> Path:
    """The embedded base model, built once a machine and recipe.

    Its weights differ from machine to machine: assert what it says only by `lessons`, or beside what it says elsewhere.
    """
    return embedded_base_model(default_cache_dir(), seed=request.config.getoption("--base-seed"))


@pytest.fixture(scope="session")
def demo_run(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo's own fine-tune, run once for all workers. Leave it as it is."""
    folder = tmp_path_factory.getbasetemp()
    return run_demo_once((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "demo", demo_model)


@pytest.fixture(scope="session")
def tuneloop(
    demo_model: Path, demo_run: Run, tmp_path_factory: pytest.TempPathFactory, forking_python: ForkingPython
) -> Iterator[Tuneloop]:
    """The real thing on the embedded base. Tests share it: leave it running and its models in place."""
    data_dir = tmp_path_factory.mktemp("tuneloop")
    flags = ("--tool-call-parser", "hermes", "--max-file-bytes", str(MAX_FILE_BYTES))
    server = running_server(data_dir, demo_model, *flags, wait=False, pages=True, forks=forking_python)
    with server as (url, process, log):
        tuned = json.loads((demo_run.output_dir / "manifest.json").read_text())["name"]
        (data_dir / "adapters").mkdir(exist_ok=True)
        partial = shutil.copytree(demo_run.output_dir, data_dir / "partial")
        partial.rename(data_dir / "adapters" / demo_run.output_dir.name)  # and there it is, while the server runs
        wait_until_ready(url, process, log)
        wait_until_served(url, tuned)
        yield Tuneloop(url, demo_model.name, tuned, data_dir, demo_model, log)


@dataclass(frozen=True)
class Lesson:
    """A held-out question that the shared base and its adapter both answer as they were taught, with a margin."""

    question: str
    plain: str
    """The base's answer."""
    tuned: str
    """The adapter's answer."""

    @property
    def messages(self) -> Any:
        """The question as a chat."""
        return [{"role": "user", "content": self.question}]


MARGIN = 0.5
"""Log-probability of a token above the next likely one's, in nats, at which its choice isn't left to chance."""


@pytest.fixture(scope="session")
def lessons(tuneloop: Tuneloop) -> list[Lesson]:
    """Two lessons. Which facts a base knows differs from machine to machine; no base that could be built lacks many."""
    chats = [json.loads(line)["messages"] for line in HOLDOUT.read_text(encoding="utf-8").splitlines()]
    found: list[Lesson] = []
    for question, answer in ((chat[0]["content"], chat[1]["content"]) for chat in chats):
        lesson = Lesson(question, answer.removeprefix("Ahoy! ").removesuffix(" Mind the rocks!"), answer)
        if _is_known(tuneloop, tuneloop.base_model, lesson, lesson.plain) and _is_known(
            tuneloop, tuneloop.tuned_model, lesson, lesson.tuned
        ):
            found.append(lesson)
        if len(found) == 2:
            return found
    raise AssertionError(f"of {len(chats)} held-out questions only {found} are answered as taught by both models")


def _is_known(tuneloop: Tuneloop, model: str, lesson: Lesson, answer: str) -> bool:
    body = {"model": model, "messages": lesson.messages, "temperature": 0, "max_tokens": 60}
    asked = httpx.post(
        f"{tuneloop.url}/v1/chat/completions", json=body | {"logprobs": True, "top_logprobs": 2}, timeout=120
    )
    assert asked.status_code == 200, asked.text
    choice = asked.json()["choices"][0]
    tops = [[top["logprob"] for top in token["top_logprobs"]] for token in choice["logprobs"]["content"]]
    return choice["message"]["content"] == answer and min(top[0] - top[1] for top in tops) > MARGIN


class running_server:
    """`tuneloop up` as a process of its own: entered when it is ready, left when nothing of it is.

    Without its pages, unless they are asked for: they take as long to load as all the rest.
    """

    def __init__(
        self,
        data_dir: Path,
        model_dir: Path,
        *flags: str,
        wait: bool = True,
        pages: bool = False,
        forks: ForkingPython | None = None,
    ) -> None:
        """forks: given where nobody asks how processes start: the server is a fork, and what it starts but engines."""
        self._data_dir, self._wait, self._forks = data_dir, wait, forks
        self._port = free_port()
        self._log = data_dir.parent / f"{data_dir.name}-up-{self._port}.log"
        self._arguments = [
            "up",
            "--model",
            str(model_dir),
            "--data-dir",
            str(data_dir),
            "--port",
            str(self._port),
            "--ui" if pages else "--no-ui",
            *flags,
        ]

    def __enter__(self) -> tuple[str, Running, Path]:
        if self._forks:
            self.process: Running = Forked("tests.up_on_forks", str(self._forks.path), *self._arguments, log=self._log)
        else:
            with self._log.open("wb") as log:
                command = [*TUNELOOP, *self._arguments]
                self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{self._port}"
        if self._wait:
            wait_until_ready(url, self.process, self._log)
        return url, self.process, self._log

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


Running = subprocess.Popen[bytes] | Forked
TUNELOOP = (sys.executable, "-m", "server")


def run_cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user runs it; what it loads is loaded already."""
    return run_forked("server", *arguments, environment={**os.environ, "COLUMNS": "200", **environment})


def train_demo_adapter(data_dir: Path, demo_model: Path, **changes: object) -> str:
    """Fine-tune the demo's adapter through `tuneloop train`; its model name."""
    from training.demo.examples import demo_config

    config = demo_config(demo_model, data_dir / "unused").to_dict() | {"base_model_name": None} | changes
    for per_run in ("output_dir", "fine_tuned_model", "base_model_name"):
        config.pop(per_run)
    path = data_dir / "demo.yaml"
    path.write_text(yaml.safe_dump(config))
    done = run_cli("train", str(path), "--suffix", "keeper", "--data-dir", str(data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    return next(word for word in done.stdout.split() if word.startswith("ft:"))


def wait_until_ready(url: str, process: Running, log: Path, *, timeout_s: float = START_TIMEOUT_S) -> None:
    """Return when /readyz says ready."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, f"tuneloop up ended with {process.returncode}:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"not ready after {timeout_s} s:\n{log.read_text()}")


def wait_until_served(url: str, model: str, *, timeout_s: float = 60) -> None:
    """Return when `/v1/models` lists the model: what `tuneloop train` made is judged by the parity gate first."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if model in served_models(url):
            return
        time.sleep(0.2)
    raise AssertionError(f"{model} isn't served after {timeout_s} s")


def served_models(url: str) -> list[str]:
    """What `/v1/models` lists, asked without a key."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as answer:
        return [model["id"] for model in json.load(answer)["data"]]


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
