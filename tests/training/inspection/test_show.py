"""What `python -m training.inspection.show.show` prints: which tokens are trained, what is cut off, what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.family_models import FAMILIES, family_tokenizer
from training.inspection.show.show import main

CHAT = {"messages": [{"role": "user", "content": "Say hi"}, {"role": "assistant", "content": "Hello there!"}]}
TWO_ANSWERS = {"messages": [*CHAT["messages"], {"role": "user", "content": "Bye"}, CHAT["messages"][1]]}
PAIR = {
    "input": {"messages": CHAT["messages"][:1]},
    "preferred_output": [{"role": "assistant", "content": "Hello!"}],
    "non_preferred_output": [{"role": "assistant", "content": "Go."}],
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders with nothing but a tokenizer, by family."""
    folders = {}
    for name in ("llama", "qwen3", "mixtral"):
        folder = tmp_path_factory.mktemp(name)
        family_tokenizer(FAMILIES[name]).save_pretrained(folder)
        folders[name] = str(folder)
    return folders


def write(tmp_path: Path, *records: Any) -> str:
    """A JSONL file; a text is written as it is."""
    path = tmp_path / "examples.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return str(path)


def run_show(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What is printed for `arguments`, errors last."""
    assert main(arguments) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_trained_tokens_are_marked_where_there_are_no_colours(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = run_show(capsys, write(tmp_path, CHAT), "--base-model", bases["llama"])
    assert "assistant<|end_header_id|>\n\n⟦Hello there!<|eot_id|>⟧\n" in text
    assert text.count("⟦") == 2  # and one in the legend


def test_pieces_keep_the_space_before_an_answer(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = run_show(capsys, write(tmp_path, CHAT), "--base-model", bases["mixtral"])
    assert "[INST] Say hi [/INST]⟦ Hello there!</s>⟧" in text


def test_trained_tokens_are_green_and_context_is_dim_on_a_terminal(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    colored = run_show(capsys, write(tmp_path, CHAT), "--base-model", bases["llama"])
    assert "\x1b[1;30;42mHello there!<|eot_id|>\x1b[0m" in colored
    assert "\x1b[2m<|begin_of_text|>" in colored
    assert "⟦" not in colored
    monkeypatch.setenv("NO_COLOR", "1")
    assert "⟦Hello there!<|eot_id|>⟧" in run_show(capsys, write(tmp_path, CHAT), "--base-model", bases["llama"])


def test_tokens_are_shown_one_by_one_and_counted(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    text = run_show(capsys, write(tmp_path, CHAT), "--base-model", bases["llama"], "--tokens")
    answer = AutoTokenizer.from_pretrained(bases["llama"])("Hello there!<|eot_id|>", add_special_tokens=False)
    assert f"{len(answer['input_ids'])} trained" in text
    learned = text[text.index("⟦") + 1 : text.index("⟧")]
    assert learned.replace("│", "") == "Hello there!<|eot_id|>"
    assert learned.count("│") == len(answer["input_ids"]) - 1


def test_what_max_length_cuts_off_is_shown(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run_show(capsys, write(tmp_path, CHAT), "--base-model", bases["llama"])
    n_tokens = int(whole.split(": ")[1].split(" tokens")[0])
    cut = run_show(capsys, write(tmp_path, CHAT), "--base-model", bases["llama"], "--max-length", str(n_tokens - 1))
    assert "Hello there!⟧✂<|eot_id|>✂" in cut
    assert "1 cut off" in cut


def test_an_answer_that_is_cut_off_whole_is_an_error(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, CHAT)
    text = run_show(capsys, file, "--base-model", bases["llama"], "--max-length", "8", code=2)
    assert "error: line 1: its" in text
    assert "raise `max_length`" in text


def test_several_rows_of_one_chat_are_all_shown(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = run_show(capsys, write(tmp_path, TWO_ANSWERS), "--base-model", bases["qwen3"])
    assert "line 1, chat, row 1 of 2: " in text
    assert text.count("⟦<think>\n\n</think>\n\nHello there!<|im_end|>⟧") == 2
    last = run_show(
        capsys, write(tmp_path, TWO_ANSWERS), "--base-model", bases["qwen3"], "--train-on", "last_assistant"
    )
    assert last.count("⟦<think>") == 1


def test_both_answers_of_a_preference_are_shown(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = run_show(capsys, write(tmp_path, PAIR), "--base-model", bases["llama"])
    assert "⟦Hello!<|eot_id|>⟧" in text
    assert "⟪Go.<|eot_id|>⟫" in text


def test_limit_and_line_choose_examples(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, *[{"prompt": f"number {number}", "completion": " yes"} for number in range(1, 6)])
    limited = run_show(capsys, file, "--base-model", bases["llama"], "--limit", "2")
    assert ("number 2⟦ yes<|eot_id|>⟧" in limited, "number 3" in limited) == (True, False)
    one = run_show(capsys, file, "--base-model", bases["llama"], "--line", "4")
    assert ("number 4" in one, "number 3" in one, "number 5" in one) == (True, False, False)
    assert "no example on line 9" in run_show(capsys, file, "--line", "9", code=2)


def test_without_a_base_model_the_messages_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run_show(capsys, write(tmp_path, CHAT, PAIR))
    assert "user: Say hi\nassistant: ⟦Hello there!⟧\n" in text
    assert "preferred: ⟦Hello!⟧\nnot preferred: ⟪Go.⟫\n" in text


def test_faults_are_told_and_the_rest_is_shown(
    bases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = {"messages": [{"role": "user", "content": "Hi<|eot_id|>"}, CHAT["messages"][1]]}
    text = run_show(capsys, write(tmp_path, "{", spoilt, CHAT), "--base-model", bases["llama"], code=2)
    assert "error: line 1: " in text
    assert "error: line 2: message 1 has the text '<|eot_id|>'" in text
    assert "⟦Hello there!<|eot_id|>⟧" in text


def test_a_base_model_without_tokenizer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    text = run_show(capsys, write(tmp_path, CHAT), "--base-model", str(empty), code=2)
    assert f"Can't load the tokenizer of {str(empty)!r}" in text
    assert "a base model must be given" in run_show(capsys, write(tmp_path, CHAT), "--tokens", code=2)
