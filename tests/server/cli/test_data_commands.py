"""`tuneloop data`: checks and cleans files from the command line, and hands on to the modules that need a tokenizer."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.cli import main
from training.data.cleaning.clean import CleaningConfig
from training.data.formats.read import read_examples


@dataclasses.dataclass(frozen=True)
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


RunCli = Callable[..., Done]


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCli:
    """The command line in this process: a start of its own would take seconds for each of these many calls."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["tuneloop", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as left:
            main.main()
        said = capfd.readouterr()
        return Done(int(left.value.code or 0), said.out, said.err)

    return run


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def alpaca(number: int, output: str | None = None) -> dict[str, str]:
    asked = " ".join(f"{letter}{number}" for letter in "abcdefgh")
    return {"instruction": asked, "output": output or f"answer {number}"}


def test_every_knob_of_cleaning_is_a_flag(run_cli: RunCli) -> None:
    shown = run_cli("data", "prepare", "--help").stdout
    for field in dataclasses.fields(CleaningConfig):
        assert f"--{field.name.replace('_', '-')}" in shown


@pytest.mark.parametrize("command", ["check", "prepare", "show"])
def test_help_has_an_example(run_cli: RunCli, command: str) -> None:
    assert (
        f"tuneloop data {command} " in run_cli("data", command, "--help").stdout.split("Usage", 1)[1].split("\n", 1)[1]
    )


def test_check_names_every_fault_and_ends_with_2(run_cli: RunCli, tmp_path: Path) -> None:
    faulty = write(
        tmp_path / "faulty.jsonl", alpaca(1), '{"instruction": ', alpaca(2), {"instruction": 3, "output": "x"}
    )
    done = run_cli("data", "check", str(faulty))
    assert done.returncode == 2
    assert "line 2" in done.stderr
    assert "line 4" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_holds_a_file_against_the_format_that_is_said(run_cli: RunCli, tmp_path: Path) -> None:
    file = write(tmp_path / "alpaca.jsonl", alpaca(1))
    done = run_cli("data", "check", str(file), "--format", "chat")
    assert done.returncode == 2
    assert "line 1" in done.stderr
    unknown = run_cli("data", "check", str(file), "--format", "word")
    assert unknown.returncode == 2
    assert "'word'" in unknown.stderr
    assert "sharegpt" in unknown.stderr


def test_check_reports_what_a_file_without_faults_holds(run_cli: RunCli, tmp_path: Path) -> None:
    file = write(tmp_path / "fine.jsonl", *(alpaca(number) for number in range(7)))
    done = run_cli("data", "check", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert "7" in done.stdout
    json.loads(done.stdout)


def test_check_passes_the_exit_code_of_the_report_on(run_cli: RunCli, tmp_path: Path) -> None:
    file = write(tmp_path / "fine.jsonl", alpaca(1))
    done = run_cli("data", "check", str(file), "--config", str(tmp_path / "absent.yaml"))
    assert done.returncode == 2
    assert "absent.yaml" in done.stdout + done.stderr


def test_show_hands_the_line_on(run_cli: RunCli, tmp_path: Path) -> None:
    file = write(tmp_path / "fine.jsonl", *(alpaca(number) for number in range(7)))
    done = run_cli("data", "show", str(file), "--line", "5")
    assert done.returncode == 0, done.stderr
    assert "answer 4" in done.stdout
    assert "answer 3" not in done.stdout


def test_prepare_writes_kept_dropped_and_report(run_cli: RunCli, tmp_path: Path) -> None:
    raw = write(
        tmp_path / "raw.jsonl",
        alpaca(1, "mail jo@example.org  "),
        alpaca(2, "..."),
        alpaca(1, "mail jo@example.org"),
        "no JSON",
        alpaca(3, "光合作用是绿色植物利用阳光、水和二氧化碳制造糖类的过程。"),
    )
    out = tmp_path / "out"
    done = run_cli("data", "prepare", str(raw), "--output", str(out), "--personal-data", "mask", "--languages", "en")
    assert done.returncode == 0, done.stderr
    assert "5 rows read, 1 kept, 4 dropped (80.0%)." in done.stdout
    assert [example.messages[1].content for example in read_examples(out / "kept.jsonl")] == ["mail [EMAIL]"]
    gone = [json.loads(line) for line in (out / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["line"], row["reason"]) for row in gone] == [
        (2, "short_answer"),
        (3, "exact_duplicate"),
        (4, "fault"),
        (5, "language"),
    ]
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["kept"] == 1


def test_an_option_of_a_split_needs_the_split(run_cli: RunCli, tmp_path: Path) -> None:
    raw, out = write(tmp_path / "raw.jsonl", alpaca(1)), tmp_path / "clean"
    done = run_cli("data", "prepare", str(raw), "--output", str(out), "--holdout-fraction", "0.2", "--seed", "7")
    assert done.returncode == 2
    assert "`--holdout-fraction` needs `--split`" in done.stderr
    assert "`--seed` needs `--split`" in done.stderr
    assert not out.exists()


def test_prepare_splits_what_stays(run_cli: RunCli, tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.jsonl", *(alpaca(number) for number in range(20)))
    out = tmp_path / "out"
    done = run_cli("data", "prepare", str(raw), "--output", str(out), "--split", "--holdout-fraction", "0.2")
    assert done.returncode == 0, done.stderr
    assert "14 training, 2 validation, 4 holdout" in done.stdout
    counts = [len(read_examples(out / f"{name}.jsonl")) for name in ("train", "validation", "holdout")]
    assert counts == [14, 2, 4]


def test_prepare_overwrites_nothing(run_cli: RunCli, tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.jsonl", alpaca(1))
    there = write(tmp_path / "clean.jsonl", "mine")
    done = run_cli("data", "prepare", str(raw), "--output", str(there))
    assert done.returncode == 2
    assert "clean.jsonl already exists" in done.stderr.replace("\n", " ")
    assert there.read_text() == "mine\n"


def test_prepare_refuses_what_cannot_be(run_cli: RunCli, tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.jsonl", alpaca(1))
    flags = ("--near-duplicates", "7", "--languages", "xx", "--personal-data", "hide")
    done = run_cli("data", "prepare", str(raw), "--output", str(tmp_path / "out"), *flags)
    assert done.returncode == 2
    for said in ("near_duplicates", "xx", "'hide'"):
        assert said in done.stderr
    absent = run_cli("data", "prepare", str(tmp_path / "absent.jsonl"), "--output", str(tmp_path / "out"))
    assert absent.returncode == 2
    assert "absent.jsonl" in absent.stderr
