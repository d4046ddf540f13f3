"""`python -m training.inspection.data_report`: what it tells of a file, with a base and without; what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from tests.family_models import FAMILIES, build_family_model
from training.demo.examples import EXAMPLES
from training.inspection.data_report import main
from training.inspection.data_report_text import format_duration
from training.inspection.figures.data_figures import measure_lengths
from training.inspection.tokenizer import load_tokenizer


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report(capsys, *arguments, "--json"))
    return found


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Six chats: one twice, one much like another, one with an address, one of three turns."""
    long = " ".join(f"The harbour master counts boat {number} and writes its name down." for number in range(20))
    three_turns = chat("What is 1 and 1?", "Two.")
    three_turns["messages"] += chat("And 2 and 2?", "Four.")["messages"]
    records = [
        chat("What is the capital of France?", "Paris."),
        chat("What is the capital of France?", "Paris."),
        chat("What does he do?", long + " Every evening."),
        chat("What does he do?", long + " Each evening."),
        chat("Who is the keeper?", "Write to jo@example.org."),
        three_turns,
    ]
    return write(tmp_path / "examples.jsonl", records)


def test_without_a_base_lengths_are_characters_and_the_way_to_tokens_is_told(
    examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = report(capsys, examples)
    assert "6 examples, for `method: supervised`" in text
    assert "length in characters: shortest 36, median" in text
    assert "name a base model" in text
    assert "memory, about" not in text


def test_doubtful_examples_are_counted_and_placed(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = report(capsys, examples)
    assert "exact duplicates: 1 (2 as 1)" in text
    assert "near-duplicates: 1" in text
    assert "personal data: 1 email (first lines: 5)" in text
    assert "answers per chat: 5 with 1, 1 with 2" in text


def test_with_a_base_tokens_cuts_memory_and_time_are_told(
    examples: Path, demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text(yaml.safe_dump({"base_model": str(demo_model), "max_length": 60, "n_epochs": 7}))
    text = report(capsys, examples, "--config", settings)
    found = as_json(capsys, examples, "--config", settings)
    assert "length in tokens: shortest" in text
    assert f"longer than max_length 60: {found['figures']['tokens']['too_long']} of 6 rows" in text
    assert found["figures"]["tokens"]["too_long"] == 2
    assert "⟦Paris.<|end|>⟧" in text
    assert 0.2 < found["figures"]["tokens"]["learned_share"] < 0.99
    assert found["run"]["plan"]["n_epochs"] == 7
    assert found["run"]["training_rows"] == 5
    assert found["run"]["memory_total_bytes"] == sum(found["run"]["memory"].values())
    assert found["run"]["seconds"] > 0
    assert "time, about: " in text
    assert "memory, about: " in text


def test_the_demo_file_is_told_in_the_demo_models_tokens(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, EXAMPLES, "--base-model", demo_model)
    lengths = found["figures"]["lengths"]
    assert lengths["unit"] == "tokens"
    assert lengths["count"] == found["figures"]["examples"] == sum(count for _, count in lengths["histogram"])
    assert lengths["shortest"] <= lengths["median"] <= lengths["p95"] <= lengths["longest"]
    assert found["figures"]["tokens"]["faults"] == []
    assert [reason for reason in found["run"]["plan"]["reasons"] if "2.9M" in reason] != []
    assert "`gradient_checkpointing` false: without it" in found["run"]["plan"]["reasons"][-1]


@pytest.mark.parametrize(
    ("record", "method"),
    [
        ({"prompt": "Hello there.", "chosen": "Good day.", "rejected": "Go away."}, "dpo"),
        ({"prompt": "Hello there.", "completion": "Good day.", "label": True}, "kto"),
        ({"text": "A long text of the sea and the light above it."}, "text"),
        ({"prompt": "Hello there.", "completion": "Good day."}, "supervised"),
    ],
)
def test_the_method_is_the_one_that_the_examples_are_for(
    record: dict[str, Any], method: str, demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "examples.jsonl", [record] * 4)
    found = as_json(capsys, file, "--base-model", demo_model)
    assert found["method"] == method
    assert found["run"]["training_rows"] >= 1
    assert found["figures"]["tokens"]["learned_share"] > 0


def test_faults_are_all_told_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text("not JSON\n" * 30 + json.dumps(chat("a", "b")) + "\n" + '{"x": 1}\n')
    errors = refusal(capsys, file)
    assert all(f"line {line}: " in errors for line in (*range(1, 31), 32))
    assert "31 error(s)" in errors


def test_examples_that_a_configured_method_can_not_use_are_faults(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text("method: dpo\n")
    assert "line 1: it is a chat" in refusal(capsys, examples, "--config", settings)


def test_mixed_kinds_are_faults_of_the_fewer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [chat("a", "b"), chat("c", "d"), {"prompt": "Hello.", "chosen": "Good day.", "rejected": "Go."}]
    errors = refusal(capsys, write(tmp_path / "examples.jsonl", records))
    assert "1 error(s)" in errors
    assert "line 3: " in errors


@pytest.fixture
def one_too_long(tmp_path: Path) -> Path:
    """Two chats, the second with a question that fills 20 tokens."""
    return write(tmp_path / "examples.jsonl", [chat("hello", "Good day."), chat("hello " * 60, "Good day.")])


@pytest.mark.parametrize(
    ("on_too_long", "words"),
    [("cut", "cut at `max_length` 20, before any trained token"), ("refuse", "more than `max_length` 20")],
)
def test_examples_that_can_not_be_learned_are_told_after_the_report(
    on_too_long: str,
    words: str,
    one_too_long: Path,
    demo_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text(f"max_length: 20\non_too_long: {on_too_long}\n")
    assert main([str(one_too_long), "--config", str(settings), "--base-model", str(demo_model)]) == 2
    printed = capsys.readouterr()
    assert "longer than max_length 20: 1 of 2 rows" in printed.out
    assert "line 2: its " in printed.err
    assert words in printed.err


def test_examples_that_are_dropped_are_no_faults_and_not_trained_on(
    one_too_long: Path, demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text("max_length: 20\non_too_long: drop\nvalidation_fraction: 0\n")
    found = as_json(capsys, one_too_long, "--config", settings, "--base-model", demo_model)
    assert found["run"]["training_rows"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base-model", "./nowhere"], "there is no such folder"),
        (["--config", "nowhere.yaml"], "can't be read as YAML"),
        (["--format", "xml"], "`file_format` is 'xml'"),
    ],
)
def test_wrong_arguments_are_refused_in_words(
    examples: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, examples, *arguments)


def test_a_folder_without_a_model_is_refused(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert str(tmp_path) in refusal(capsys, examples, "--base-model", tmp_path)


def test_what_preflight_would_refuse_is_told_in_the_report(
    examples: Path, demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text("use_dora: true\n")
    text = report(capsys, examples, "--config", settings, "--base-model", demo_model)
    assert "would be rejected: `use_dora`" in text


def test_a_report_loads_no_torch_without_a_base(examples: Path) -> None:
    program = (
        "import sys, training.inspection.data_report as report\n"
        f"assert report.main([{str(examples)!r}]) == 0\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_demo_bases_tokenizer_loads_no_torch(demo_model: Path) -> None:
    program = (
        "import sys; from training.inspection.tokenizer import load_tokenizer\n"
        f"load_tokenizer({str(demo_model)!r})\n"
        "print('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_look_has_the_tokenizer_that_training_has(name: str, tmp_path: Path) -> None:
    folder = build_family_model(FAMILIES[name], tmp_path)
    ours, training = load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(folder)
    assert type(ours) is type(training)
    chat = [{"role": "user", "content": "Bonjour, où est 东京?  \n\tx"}]
    assert ours.apply_chat_template(chat)["input_ids"] == training.apply_chat_template(chat)["input_ids"]


def test_length_figures_are_those_of_the_sorted_lengths() -> None:
    found = measure_lengths([*range(1, 101)], "tokens")
    assert (found.shortest, found.median, found.p95, found.longest, found.total) == (1, 50, 95, 100, 5050)
    assert found.histogram == ((1, 1), (2, 1), (4, 2), (8, 4), (16, 8), (32, 16), (64, 32), (128, 36))
    assert measure_lengths([5], "tokens").histogram == ((8, 1),)


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_durations_are_told_in_the_fitting_unit(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words
