"""Data files: what is read, and that every fault is told with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.examples import Example, Message
from training.formats import DataError, read_examples

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def lines(tmp_path: Path, *records: Any) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records))
    return path


def faults(path: Path) -> list[tuple[int | None, str]]:
    with pytest.raises(DataError) as caught:
        read_examples(path)
    return [(fault.line, fault.reason) for fault in caught.value.faults]


def test_openai_chat_is_read_with_weights_and_tools(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    record = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Time?"},
            {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
            {"role": "tool", "content": "12:00", "tool_call_id": "1"},
            {"role": "assistant", "content": "Noon."},
        ],
        "tools": [{"type": "function", "function": {"name": "now"}}],
    }
    (example,) = read_examples(lines(tmp_path, record))
    assert example == Example(
        1,
        (
            Message("developer", "Be brief."),
            Message("user", "Time?"),
            Message("assistant", "", 0, {"tool_calls": [call]}),
            Message("tool", "12:00", 1, {"tool_call_id": "1"}),
            Message("assistant", "Noon."),
        ),
        ({"type": "function", "function": {"name": "now"}},),
    )


def test_alpaca_is_read_from_a_json_array(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.json"
    records = [
        {"instruction": "Add.", "input": "2 and 3", "output": "5"},
        {"instruction": "Greet.", "input": "", "output": "Hi", "system": "Be kind."},
    ]
    path.write_text(json.dumps(records, indent=2))
    first, second = read_examples(path)
    assert first.messages == (Message("user", "Add.\n\n2 and 3"), Message("assistant", "5"))
    assert second.messages == (Message("system", "Be kind."), Message("user", "Greet."), Message("assistant", "Hi"))


def test_alpaca_and_prompt_completion_are_read_from_lines(tmp_path: Path) -> None:
    path = lines(tmp_path, {"instruction": "Greet.", "output": "Hi"}, {"prompt": "1, 2,", "completion": " 3"})
    alpaca, completion = read_examples(path)
    assert alpaca.messages[-1].content == "Hi"
    assert (completion.line, completion.prompt, completion.completion) == (2, "1, 2,", " 3")


def test_blank_lines_and_a_byte_order_mark_are_passed_over_but_counted(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n" + json.dumps(GOOD).encode())
    assert [example.line for example in read_examples(path)] == [1, 3]


def test_all_faults_come_together_with_their_lines(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "Yes"}
    path = lines(
        tmp_path,
        GOOD,
        "{not json",
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": [{"content": "Hi"}, answer]},
        {"messages": [{"role": "robot", "content": "Hi"}, answer]},
        {"messages": [{"role": "user", "content": 7}, answer]},
        {"messages": [{**answer, "weight": 0.5}]},
        {"messages": [{**answer, "weight": 0}]},
        {"messages": []},
        {"text": "hello"},
        "[1]",
        {"instruction": "Do", "output": ""},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, answer]},
        {"messages": [{"role": "assistant", "content": "  "}]},
    )
    found = dict(faults(path))
    expected = {
        2: "isn't JSON", 3: "no message has the role assistant", 4: "no `role`", 5: "unknown role 'robot'",
        6: "`content` that is a number", 7: "weight 0.5", 8: "weight 0", 9: "`messages`", 10: "no format",
        11: "an object was expected", 12: "`output` is empty", 13: "isn't text", 14: "empty `content`",
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for line, part in expected.items():
        assert part in str(found[line])


def test_broken_json_at_line_7_is_reported_at_line_7(tmp_path: Path) -> None:
    assert [line for line, _ in faults(lines(tmp_path, *[GOOD] * 6, '{"messages": [', GOOD))] == [7]


def test_a_fault_in_a_json_array_names_its_element(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.json"
    path.write_text('[\n {"instruction": "a", "output": "b"},\n\n {"instruction": "a"}\n]')
    with pytest.raises(DataError, match="element 2: `output` is missing"):
        read_examples(path)


def test_a_json_array_that_breaks_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.json"
    path.write_text('[\n {"instruction": "a", "output": "b"},\n {"instruction": }\n]')
    with pytest.raises(DataError, match="line 3"):
        read_examples(path)


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "caf\xe9", "completion": "x"}\n')
    ((line, reason),) = faults(path)
    assert line == 2
    assert "UTF-8" in reason
    assert "0xe9" in reason


@pytest.mark.parametrize("content", ["", "\n\n", "[]"])
def test_a_file_without_examples_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    assert faults(path) == [(None, "it is empty; give at least one example")]


def test_a_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl.*\n.*No such file"):
        read_examples(tmp_path / "nowhere.jsonl")


def test_the_text_lists_twenty_faults_and_counts_the_rest(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_examples(lines(tmp_path, *["{"] * 25))
    assert len(caught.value.faults) == 25
    assert str(caught.value).count("\n  line ") == 20
    assert str(caught.value).endswith("and 5 more")


@pytest.mark.parametrize(
    "content", ["[" * 200_000, "{}\n" + '{"a":' * 200_000, '{"prompt": "\\ud800", "completion": "b"}', "1" * 5000]
)
def test_json_that_breaks_its_readers_is_a_fault_like_any_other(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    assert all(line is not None and reason for line, reason in faults(path))


def test_an_escaped_emoji_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "\\ud83d\\ude00", "completion": "b"}')
    assert read_examples(path)[0].prompt == "😀"
