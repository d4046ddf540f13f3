"""Data files: what is read, and that every fault is told with its place."""

from __future__ import annotations

import csv
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.config.config import FileFormat, Method
from training.data.examples import Example, Message
from training.data.formats.read import DataError, Fault, iter_examples, read_examples

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
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
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
            Message("developer", "Be\nbrief."),
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
        {"question": "hello"},
        "[1]",
        {"instruction": "Do", "output": ""},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, answer]},
        {"messages": [{"role": "assistant", "content": "  "}]},
    )
    found = dict(faults(path))
    expected = {
        2: "isn't JSON", 3: "no message has the role assistant", 4: "no `role`", 5: "unknown role 'robot'",
        6: "`content` that is a number", 7: "weight 0.5", 8: "weight 0", 9: "`messages`", 10: "no format",
        11: "but must be an object", 12: "`output` is empty", 13: "isn't text", 14: "empty `content`",
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
    assert faults(path) == [(None, "it is empty; add at least one example")]


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


HI, HELLO = Message("user", "Hi"), Message("assistant", "Hello")
WORSE = Message("assistant", "What?")
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC", "at": 12}'}}
TOOL = {"type": "function", "function": {"name": "now"}}
CALLED = [
    {"role": "user", "content": "Time?"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": "12:00", "tool_call_id": "c1"},
    {"role": "assistant", "content": "Noon."},
]


def one(tmp_path: Path, record: Any, file_format: FileFormat = "auto") -> Example:
    (example,) = read_examples(lines(tmp_path, record), file_format)
    return example


def test_alpaca_history_comes_before_the_instruction(tmp_path: Path) -> None:
    record = {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]}
    assert [(m.role, m.content) for m in one(tmp_path, record).messages] == [
        ("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"),
    ]  # fmt: skip


def test_function_calls_of_older_openai_files_become_tool_calls(tmp_path: Path) -> None:
    record = {
        "messages": [
            {"role": "user", "content": "Time?"},
            {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": "{}"}},
            {"role": "function", "name": "now", "content": "12:00"},
            {"role": "assistant", "content": "Noon."},
        ],
        "functions": [{"name": "now"}],
    }
    example = one(tmp_path, record)
    _, call, answer, _ = example.messages
    assert call.extra["tool_calls"][0]["id"] == answer.extra["tool_call_id"]
    assert answer.role == "tool"
    assert example.tools == (TOOL,)


def test_templates_get_calls_and_tools_as_vllm_hands_them_over(tmp_path: Path) -> None:
    """Expected: ChatCompletionRequest and _postprocess_messages of vLLM 0.32 for the same chat, keys in their order."""
    answered = {**CALLED[3], "reasoning_content": "Hm."}
    example = one(tmp_path, {"messages": [*CALLED[:3], answered], "tools": [TOOL]})
    assert json.dumps([message.for_template() for message in example.messages]) == json.dumps(
        [
            {"role": "user", "content": "Time?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "c1",
                        "function": {"arguments": {"zone": "UTC", "at": 12}, "name": "now"},
                        "type": "function",
                    }
                ],
            },
            {"role": "tool", "content": "12:00", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Noon.", "reasoning": "Hm.", "reasoning_content": "Hm."},
        ]
    )
    assert json.dumps(example.tools_for_template()) == json.dumps(
        [{"type": "function", "function": {"name": "now", "description": None, "parameters": None}}]
    )
    assert example.messages[1].extra["tool_calls"] == [CALL], "the record itself keeps the text"


def test_a_chat_without_tools_gives_its_template_none(tmp_path: Path) -> None:
    assert one(tmp_path, GOOD).tools_for_template() is None


def test_sharegpt_is_read_with_calls_answers_and_tools(tmp_path: Path) -> None:
    call = {"name": "now", "arguments": {"zone": "UTC"}}
    record = {
        "system": "Be\nbrief.",
        "conversations": [
            {"from": "human", "value": "Time?"},
            {"from": "function_call", "value": json.dumps([call, {"name": "day"}])},
            {"from": "observation", "value": "12:00"},
            {"from": "tool", "value": "Monday"},
            {"from": "gpt", "value": "Noon.", "weight": 0},
            {"from": "function_call", "value": json.dumps(call)},
        ],
        "tools": json.dumps([{"name": "now"}]),
    }
    example = one(tmp_path, record)
    assert example.tools == (TOOL,)
    assert [(m.role, m.content, m.weight) for m in example.messages] == [
        ("system", "Be\nbrief.", 1), ("user", "Time?", 1), ("assistant", "", 1), ("tool", "12:00", 1),
        ("tool", "Monday", 1), ("assistant", "Noon.", 0), ("assistant", "", 1),
    ]  # fmt: skip
    made = [call for message in example.messages for call in message.extra.get("tool_calls", ())]
    assert [call["id"] for call in made] == ["call00001", "call00002", "call00003"]
    assert [call["function"]["arguments"] for call in made] == ['{"zone":"UTC"}', "{}", '{"zone":"UTC"}']
    answered = [message.extra["tool_call_id"] for message in example.messages if message.role == "tool"]
    assert answered == ["call00001", "call00002"]


ANSWER, BAD_ANSWER = {"role": "assistant", "content": "Hello"}, {"role": "assistant", "content": "What?"}
ASKED = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "record",
    [
        {"input": {"messages": ASKED}, "preferred_output": [ANSWER], "non_preferred_output": [BAD_ANSWER]},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "What?"},
        },
        {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"},
        {"prompt": ASKED, "chosen": [ANSWER], "rejected": [BAD_ANSWER]},
        {"chosen": [*ASKED, ANSWER], "rejected": [*ASKED, BAD_ANSWER]},
        {"prompt": "Hi", "chosen": [*ASKED, ANSWER], "rejected": [*ASKED, BAD_ANSWER]},
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "What?"},
        {"messages": ASKED, "chosen": ANSWER, "rejected": BAD_ANSWER},
    ],
    ids=["openai", "sharegpt", "trl", "trl-messages", "trl-shared", "trl-prompt-and-shared", "alpaca", "messages"],
)
def test_every_form_of_a_preference_gives_the_same_pair(tmp_path: Path, record: Any) -> None:
    assert one(tmp_path, record) == Example(1, (HI,), chosen=(HELLO,), rejected=(WORSE,))


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [*ASKED, ANSWER], "label": False},
        {"prompt": "Hi", "completion": "Hello", "label": False},
        {"prompt": ASKED, "completion": [ANSWER], "label": False},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "kto_tag": False},
    ],
    ids=["messages", "trl", "trl-messages", "sharegpt"],
)
def test_every_form_of_a_labelled_answer_gives_the_same_example(tmp_path: Path, record: Any) -> None:
    example = one(tmp_path, record)
    assert (example, example.kind) == (Example(1, (HI, HELLO), label=False), "labelled")


def test_a_prompt_and_completion_of_messages_learn_only_the_completion(tmp_path: Path) -> None:
    example = one(tmp_path, {"prompt": [*ASKED, BAD_ANSWER, *ASKED], "completion": [ANSWER]})
    assert [message.weight for message in example.messages if message.role == "assistant"] == [0, 1]


def test_a_label_that_is_no_verdict_is_passed_over_where_the_format_is_said(tmp_path: Path) -> None:
    assert one(tmp_path, {**GOOD, "label": "greeting"}, "chat").kind == "chat"


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("one\ntwo\n\n\nthree\n", [(1, "one\ntwo"), (5, "three")]),
        ("one\r\ntwo\r\n", [(1, "one"), (2, "two")]),
        ("\n\none\ntwo\n\n", [(3, "one"), (4, "two")]),
        ("\ufeffone", [(1, "one")]),
    ],
    ids=["blank-lines-part", "each-line", "blank-only-around", "bom"],
)
def test_plain_text_is_parted_by_blank_lines_or_by_lines(
    tmp_path: Path, content: str, texts: list[tuple[int, str]]
) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(content.encode())
    assert [(example.line, example.text) for example in read_examples(path)] == texts


def test_text_records_are_read_from_lines(tmp_path: Path) -> None:
    assert one(tmp_path, {"text": "Once."}) == Example(1, text="Once.")


def test_csv_rows_have_the_line_they_begin_on(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    with path.open("w", newline="") as file:
        rows = [["prompt", "completion", "label"], ["a\nb", "c, d", "TRUE"], ["", "", ""], ["e", 'f "g"', "0"]]
        csv.writer(file).writerows(rows)
    first, second = read_examples(path)
    assert (first.line, first.messages[0].content, first.messages[1].content, first.label) == (2, "a\nb", "c, d", True)
    assert (second.line, second.messages[1].content, second.label) == (5, 'f "g"', False)


def test_csv_cells_may_hold_messages_as_json(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["messages", "tools"], [json.dumps(CALLED), json.dumps([TOOL])], [json.dumps([*ASKED, ANSWER]), ""]]
        )
    called, plain = read_examples(path)
    assert (called.tools, plain.tools, plain.messages) == ((TOOL,), (), (HI, HELLO))


def test_parquet_rows_of_chats_with_tools_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist([{**GOOD, "tools": None}, {"messages": CALLED, "tools": [TOOL]}] * 300), path)
    examples = read_examples(path)
    assert [example.line for example in examples] == list(range(1, 601))
    assert examples[0].messages == (HI, HELLO)
    assert (examples[1].messages[1].extra["tool_calls"], examples[1].tools) == ([CALL], (TOOL,))


def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    parquet, rows, chats = tmp_path / "a.csv", tmp_path / "file-1", tmp_path / "b.txt"
    pq.write_table(pa.table({"text": ["a"]}), parquet)
    rows.write_text("prompt,completion\na,b\n")
    chats.write_text(json.dumps(GOOD))
    assert [read_examples(path)[0].kind for path in (parquet, rows, chats)] == ["text", "prompt_completion", "chat"]


RECORDS = [
    GOOD,
    {"messages": CALLED, "tools": [TOOL]},
    {"messages": [*ASKED, {**ANSWER, "weight": 0, "name": "Bo", "reasoning": "Hm."}, *ASKED, ANSWER]},
    {"prompt": "1, 2,", "completion": " 3"},
    {
        "input": {"messages": CALLED[:3], "tools": [TOOL]},
        "preferred_output": [ANSWER],
        "non_preferred_output": [BAD_ANSWER],
    },
    {"messages": [*ASKED, ANSWER], "label": True},
    {"text": "Once."},
]


def test_an_example_written_as_a_record_and_read_again_is_the_same(tmp_path: Path) -> None:
    examples = read_examples(lines(tmp_path, *RECORDS))
    assert read_examples(lines(tmp_path, *[example.to_record() for example in examples])) == examples


def test_records_are_written_as_openai_spells_them(tmp_path: Path) -> None:
    alpaca = one(tmp_path, {"instruction": "Hi", "output": "Hello"})
    assert alpaca.to_record() == GOOD
    pair = one(tmp_path, {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"})
    assert pair.to_record() == {
        "input": {"messages": ASKED}, "preferred_output": [ANSWER], "non_preferred_output": [BAD_ANSWER]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "lines_refused", "remedy"),
    [
        ("supervised", [5, 6, 7], "use `method: dpo`"),
        ("dpo", [1, 2, 3, 4, 6, 7], "use `method: supervised`"),
        ("kto", [1, 2, 3, 4, 5, 7], "use `method: supervised`"),
        ("text", [1, 2, 3, 4, 5, 6], "use `method: supervised`"),
    ],
)
def test_records_that_the_method_cannot_learn_from_are_faults(
    tmp_path: Path, method: Method, lines_refused: list[int], remedy: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_examples(lines(tmp_path, *RECORDS), method=method)
    assert [fault.line for fault in caught.value.faults] == lines_refused
    assert remedy in caught.value.faults[0].reason


def test_examples_and_faults_come_in_their_order(tmp_path: Path) -> None:
    found = list(iter_examples(lines(tmp_path, GOOD, "{", GOOD)))
    assert [type(item) for item in found] == [Example, Fault, Example]
    assert found[2] == Example(3, (HI, HELLO))


@pytest.mark.parametrize(("ending", "row"), [(".jsonl", '{"text": "%s"}\n'), (".csv", "%s,b\n"), (".txt", "%s\n\n")])
def test_memory_stays_far_below_the_size_of_the_file(tmp_path: Path, ending: str, row: str) -> None:
    path = tmp_path / f"data{ending}"
    header = "prompt,completion\n" if ending == ".csv" else ""
    path.write_text(header + (row % ("x" * 2000)) * 5000)
    tracemalloc.start()
    count = sum(isinstance(found, Example) for found in iter_examples(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 5000
    assert peak < path.stat().st_size / 10


def test_every_record_in_the_docs_is_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "data.md"
    formats = page.read_text().partition("\n## Kinds of file\n")[0]
    records = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", formats, re.DOTALL)]
    examples = read_examples(lines(tmp_path, *records))
    assert [example.kind for example in examples] == [
        "chat", "chat", "chat", "prompt_completion", "chat", "preference", "preference", "preference",
        "labelled", "labelled", "text",
    ]  # fmt: skip
