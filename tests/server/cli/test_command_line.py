"""Every subcommand explains itself, and every mistake ends in one paragraph that says what to do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import run_cli

COMMANDS = [
    (),
    ("up",),
    ("demo",),
    ("train",),
    ("evaluate",),
    ("demo-model",),
    ("doctor",),
    ("settings",),
    ("data", "check"),
    ("data", "show"),
    ("data", "prepare"),
    ("runs", "list"),
    ("runs", "show"),
    ("runs", "compare"),
    ("export", "merge"),
    ("adapters", "list"),
    ("adapters", "add"),
    ("adapters", "remove"),
    ("adapters", "promote"),
    ("adapters", "rollback"),
    ("adapters", "aliases"),
    ("keys", "create"),
    ("keys", "list"),
    ("keys", "revoke"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches_with_an_example(command: tuple[str, ...]) -> None:
    done = run_cli(*command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert not command or f"tuneloop {' '.join(command)}" in done.stdout.split("Usage", 1)[1].split("\n", 1)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "--model", "{tmp}/absent"), ("absent",)),
        (("up", "--model", "{tmp}"), ("config.json",)),
        (("up", "--port", "http"), ("port = 'http'", "flag")),
        (("up", "--data-dir", "/proc/nothing", "--port", "0"), ("/proc/nothing", "--data-dir")),
        (("up", "--port", "{busy}"), ("{busy}", "--port")),
        (("up", "--config", "{tmp}/absent.yaml"), ("absent.yaml",)),
        (("demo", "--model", "x"), ("model is 'x'", "tuneloop up")),
        (("train", "{tmp}/absent.yaml"), ("absent.yaml",)),
        (("train", "{tmp}/empty.yaml"), ("empty.yaml", "training_file")),
        (("data", "check", "{tmp}/absent.jsonl"), ("absent.jsonl",)),
        (("data", "check", "{tmp}/line7.jsonl"), ("line 7", "JSON")),
        (("adapters", "remove", "adapter-0"), ("adapter-0", "adapters list")),
        (("adapters", "promote", "support", "adapter-0"), ("adapter-0", "adapters list")),
        (("adapters", "promote", "ft:mine", "tuneloop-demo"), ("ft:mine", "Choose another name")),
        (("adapters", "promote", "tuneloop-demo", "tuneloop-demo"), ("tuneloop-demo", "belongs to a model")),
        (("adapters", "rollback", "support"), ("support", "/v1/aliases")),
        (("evaluate", "{tmp}/absent.jsonl", "--model", "m"), ("absent.jsonl",)),
        (("evaluate", "{tmp}/one.jsonl", "--model", "m", "--server", "http://127.0.0.1:9/v1"), ("127.0.0.1:9",)),
        (("keys", "list", "--database-url", "nonsense"), ("nonsense", "sqlite:///")),
        (("demo-model", "{tmp}/one.jsonl"), ("one.jsonl",)),
    ],
)
def test_mistake_ends_in_one_paragraph(
    tmp_path: Path, demo_model: Path, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    line = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "one.jsonl").write_text(line)
    (tmp_path / "line7.jsonl").write_text(line * 6 + '{"messages": \n' + line)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        known = {"tmp": str(tmp_path), "busy": str(busy.getsockname()[1])}
        filled = [argument.format(**known) for argument in arguments]
        where = () if "--data-dir" in filled else ("TUNELOOP_DATA_DIR",)
        done = run_cli(*filled, **dict.fromkeys(where, str(tmp_path / "data")))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for words in said:
        assert words.format(**known) in done.stderr.replace("\n", " ")


def test_doctor_says_what_is_here(tmp_path: Path) -> None:
    done = run_cli("doctor", "--data-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout
    for what in ("Python", "memory", "torch", "engine", "GPU"):
        assert what in done.stdout


def test_empty_states_say_what_to_do_next(tmp_path: Path) -> None:
    assert "tuneloop train" in run_cli("adapters", "list", "--data-dir", str(tmp_path)).stdout
    assert "adapters promote" in run_cli("adapters", "aliases", "--data-dir", str(tmp_path)).stdout
    assert "tuneloop keys create" in run_cli("keys", "list", "--data-dir", str(tmp_path)).stdout
