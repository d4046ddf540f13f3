"""A corpus of malformed data files: each is refused with the right place and reason, and nothing crashes."""

from __future__ import annotations

import csv
import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.config.config import FileFormat
from training.data.formats.read import DataError, read_examples

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
CHAT = {"messages": [USER, ANSWER]}
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
HUMAN = {"from": "human", "value": "Hi"}
GPT = {"from": "gpt", "value": "Hello"}
WORSE = {"from": "gpt", "value": "What?"}
PAIR = {
    "input": {"messages": [USER]},
    "preferred_output": [ANSWER],
    "non_preferred_output": [{**ANSWER, "content": "?"}],
}


@dataclass(frozen=True)
class Case:
    """One malformed file and what must be said about it."""

    name: str
    content: bytes
    line: int | None
    phrase: str
    ending: str = ".jsonl"
    file_format: FileFormat = "auto"


def _jsonl(*records: Any) -> bytes:
    return "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records).encode()


def _third(name: str, record: Any, phrase: str, file_format: FileFormat = "auto", good: Any = CHAT) -> Case:
    """A JSONL file whose third line is the bad one; a text is taken as the line itself."""
    return Case(name, _jsonl(good, good, record, good), 3, phrase, file_format=file_format)


def _chat(name: str, turn: Any, phrase: str, *before: Any) -> Case:
    return _third(f"chat-{name}", {"messages": [USER, *before, turn, ANSWER]}, phrase)


def _call(name: str, phrase: str, /, **changed: Any) -> Case:
    call = {key: value for key, value in {**CALL, **changed}.items() if value is not None}
    return _chat(f"call-{name}", {**CALLS, "tool_calls": [call]}, phrase)


def _function(name: str, phrase: str, /, **changed: Any) -> Case:
    return _call(name, phrase, function={**CALL["function"], **changed})  # type: ignore[dict-item]


def _share(name: str, turns: Any, phrase: str, **more: Any) -> Case:
    return _third(f"sharegpt-{name}", {"conversations": turns, **more}, phrase)


def _pair(name: str, phrase: str, **changed: Any) -> Case:
    return _third(f"openai-pair-{name}", {**PAIR, **changed}, phrase)


CHAT_CASES = [
    _third("chat-messages-null", {"messages": None}, "`messages` is missing"),
    _third("chat-messages-text", {"messages": "Hi"}, "`messages` is a string"),
    _third("chat-messages-object", {"messages": {}}, "`messages` is an object"),
    _third("chat-no-messages", {"messages": []}, "at least one message"),
    _third("chat-no-answer", {"messages": [USER]}, "nothing to train on"),
    _third("chat-weights-0", {"messages": [USER, {**ANSWER, "weight": 0}]}, "every assistant message has weight 0"),
    _third("chat-answer-blank", {"messages": [USER, {**ANSWER, "content": " \n"}]}, "empty `content`"),
    _third("chat-answer-null", {"messages": [USER, {**ANSWER, "content": None}]}, "message 2 has no `content`"),
    _chat("turn-text", "Hi", "message 2 is a string"),
    _chat("turn-null", None, "message 2 is null"),
    _chat("turn-list", [USER], "message 2 is a list"),
    _chat("no-role", {"content": "Hi"}, "message 2 has no `role`"),
    _chat("role-unknown", {**USER, "role": "User"}, "unknown role 'User'"),
    _chat("role-number", {**USER, "role": 1}, "unknown role 1"),
    _chat("role-list", {**USER, "role": ["user"]}, "unknown role a list"),
    _chat("no-content", {"role": "user"}, "message 2 has no `content`"),
    _chat("content-number", {**USER, "content": 7}, "`content` that is a number"),
    _chat("content-object", {**USER, "content": {}}, "`content` that is an object"),
    _chat("content-image", {**USER, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "isn't text"),
    _chat("content-part-text", {**USER, "content": ["Hi"]}, "isn't text"),
    _chat("content-part-number", {**USER, "content": [{"type": "text", "text": 1}]}, "isn't text"),
    _chat("weight-half", {**ANSWER, "weight": 0.5}, "weight 0.5"),
    _chat("weight-2", {**ANSWER, "weight": 2}, "weight 2"),
    _chat("weight-true", {**ANSWER, "weight": True}, "weight True"),
    _chat("weight-text", {**ANSWER, "weight": "1"}, "weight '1'"),
    _chat("weight-huge", {**ANSWER, "weight": 10**4000}, "it must be 0 (not trained on) or 1"),
    _chat("weight-of-user", {**USER, "weight": 1}, "only assistant messages are trained on"),
    _chat("name-number", {**USER, "name": 5}, "`name` is a number"),
    _chat("calls-of-user", {**USER, "tool_calls": [CALL]}, "only an assistant calls tools"),
    _chat("calls-object", {**CALLS, "tool_calls": CALL}, "`tool_calls` is an object"),
    _chat("calls-empty-and-no-content", {**CALLS, "tool_calls": []}, "no `content`"),
    _chat("call-text", {**CALLS, "tool_calls": ["now"]}, "tool call 1 is a string"),
    _call("no-id", "has no `id`", id=None),
    _call("id-number", "has no `id`", id=7),
    _call("no-type", "has the type None", type=None),
    _call("type-unknown", "has the type 'tool'", type="tool"),
    _call("no-function", "has no `function`", function=None),
    _function("no-name", "has no `function.name`", name=None),
    _function("name-blank", "has no `function.name`", name=" "),
    _function("no-arguments", "`function.arguments` is missing", arguments=None),
    _function("arguments-object", "`function.arguments` is an object", arguments={}),
    _function("arguments-empty", "isn't JSON: ''", arguments=""),
    _function("arguments-no-json", "isn't JSON: '{city: 1}'", arguments="{city: 1}"),
    _function("arguments-list", "contains a list", arguments="[1]"),
    _function("arguments-deep", "nested more than 100 levels deep", arguments='{"a":' + "[" * 400 + "]" * 400 + "}"),
    _chat("tool-no-id", {"role": "tool", "content": "12"}, "has no `tool_call_id`", CALLS),
    _chat(
        "tool-id-unknown",
        {"role": "tool", "content": "12", "tool_call_id": "c2"},
        "isn't in any earlier message",
        CALLS,
    ),
    _chat(
        "tool-before-call", {"role": "tool", "content": "12", "tool_call_id": "c1"}, "message 2 answers the call 'c1'"
    ),
    _chat("call-id-twice", CALLS, "ids must be unique", CALLS),
    _chat(
        "function-unasked",
        {"role": "function", "name": "now", "content": "12"},
        "no earlier message has a `function_call`",
    ),
    _chat("function-call-no-name", {**ANSWER, "function_call": {"arguments": "{}"}}, "no `function.name`"),
    _third("chat-tools-object", {**CHAT, "tools": TOOL}, "`tools` must be a list"),
    _third("chat-tools-text", {**CHAT, "tools": "now"}, "`tools` must be a list"),
    _third("chat-tool-text", {**CHAT, "tools": ["now"]}, "tool 1 is a string"),
    _third("chat-tool-bare", {**CHAT, "tools": [{"name": "now"}]}, 'tool 1 must be {"type": "function"'),
    _third("chat-tool-no-name", {**CHAT, "tools": [TOOL, {**TOOL, "function": {}}]}, "tool 2 has no `function.name`"),
    _third(
        "chat-tool-parameters", {**CHAT, "tools": [{**TOOL, "function": {"name": "a", "parameters": []}}]}, "schema"
    ),
    _third(
        "chat-tool-describe",
        {**CHAT, "tools": [{**TOOL, "function": {"name": "a", "description": 1}}]},
        "must be a string",
    ),
    _third("chat-functions-no-name", {**CHAT, "functions": [{}]}, "function 1 has no `function.name`"),
    _third("chat-parallel", {**CHAT, "tools": [TOOL], "parallel_tool_calls": "no"}, "must be true or false"),
    _third("chat-said-but-alpaca", {"instruction": "a", "output": "b"}, "`messages` is missing", "chat"),
]
SHAREGPT_CASES = [
    _share("null", None, "`conversations` is missing"),
    _share("text", "Hi", "`conversations` is a string"),
    _share("empty", [], "at least one turn"),
    _share("no-answer", [HUMAN], "nothing to train on"),
    _share("turn-text", ["Hi", GPT], "turn 1 is a string"),
    _share("no-from", [{"value": "Hi"}, GPT], "turn 1 has no `from`"),
    _share("from-unknown", [{**HUMAN, "from": "alien"}, GPT], "turn 1 is from 'alien'"),
    _share("from-list", [{**HUMAN, "from": []}, GPT], "turn 1 is from a list"),
    _share("no-value", [{"from": "human"}, GPT], "turn 1 has no `value`"),
    _share("value-number", [{**HUMAN, "value": 3}, GPT], "`value` that is a number"),
    _share("answer-blank", [HUMAN, {**GPT, "value": ""}], "turn 2 is from gpt and has an empty `value`"),
    _share("call-no-json", [HUMAN, {"from": "function_call", "value": "now()"}], "turn 2 is a function_call whose"),
    _share("call-no-name", [HUMAN, {"from": "function_call", "value": "{}"}], "without a `name`"),
    _share("call-empty", [HUMAN, {"from": "function_call", "value": "[]"}], "without a `name`"),
    _share(
        "call-arguments-deep",
        [HUMAN, {"from": "function_call", "value": '{"name": "a", "arguments": {"b":' + "[" * 400 + "]" * 400 + "}}"}],
        "`arguments` is nested more than 100 levels deep",
    ),
    _share(
        "call-arguments-list",
        [HUMAN, {"from": "function_call", "value": '{"name": "a", "arguments": [1]}'}],
        "`arguments` is a list",
    ),
    _share(
        "call-arguments-no-json",
        [HUMAN, {"from": "function_call", "value": '{"name": "a", "arguments": "{x"}'}],
        "`function.arguments` isn't JSON",
    ),
    _share("observation-unasked", [HUMAN, {"from": "observation", "value": "12"}, GPT], "no unanswered function_call"),
    _share("tools-no-json", [HUMAN, GPT], "JSON string", tools="[{"),
    _share("tools-object", [HUMAN, GPT], "`tools` must be a list", tools="{}"),
    _share("tool-no-name", [HUMAN, GPT], "tool 1 has no `function.name`", tools='[{"description": "x"}]'),
    _share("system-number", [HUMAN, GPT], "`system` is a number", system=1),
    _share("system-twice", [{"from": "system", "value": "a"}, HUMAN, GPT], "given twice", system="b"),
    _share("weight-half", [HUMAN, {**GPT, "weight": 0.5}], "weight 0.5"),
    _share("chosen-text", [HUMAN], "`chosen` is a string", chosen="a", rejected=WORSE),
    _share("rejected-missing", [HUMAN], "`rejected` is missing", chosen=GPT),
    _share("chosen-from-human", [HUMAN], "must be from gpt", chosen=HUMAN, rejected=WORSE),
    _share("rejected-no-value", [HUMAN], "`rejected`: turn 1 has no `value`", chosen=GPT, rejected={"from": "gpt"}),
    _share("pair-equal", [HUMAN], "both answers are the same", chosen=GPT, rejected=GPT),
    _share("pair-after-answer", [HUMAN, GPT], "ends with an assistant message", chosen=GPT, rejected=WORSE),
    _share("kto-text", [HUMAN, GPT], "`kto_tag` is 'good'", kto_tag="good"),
    _share("kto-no-answer", [HUMAN], "the last message has the role user", kto_tag=True),
    _third("sharegpt-said-but-chat", CHAT, "`conversations` is missing", "sharegpt", {"conversations": [HUMAN, GPT]}),
]
PAIR_CASES = [
    _pair("no-input", "`input` is missing", input=None),
    _pair("input-text", "`input` is a string", input="Hi"),
    _pair("no-messages", "`messages` is missing", input={}),
    _pair("bad-turn", "message 1 has no `role`", input={"messages": [{"content": "Hi"}]}),
    _pair("bad-tools", "`tools` must be a list", input={"messages": [USER], "tools": {}}),
    _pair("no-preferred", "`preferred_output` is missing", preferred_output=None),
    _pair("no-non-preferred", "`non_preferred_output` is missing", non_preferred_output=None),
    _pair("preferred-empty", "`preferred_output` is an empty list", preferred_output=[]),
    _pair("preferred-user", "must be one message with the role assistant", preferred_output=[USER]),
    _pair("preferred-two", "the roles: assistant, assistant", preferred_output=[ANSWER, ANSWER]),
    _pair("preferred-blank", "empty `content`", preferred_output=[{**ANSWER, "content": ""}]),
    _pair("equal", "both answers are the same", non_preferred_output=[ANSWER]),
    _pair("after-answer", "ends with an assistant message", input={"messages": [USER, ANSWER]}),
    _third("trl-no-prompt", {"chosen": "a", "rejected": "b"}, "`prompt` is missing"),
    _third("trl-no-rejected", {"prompt": "Hi", "chosen": "a"}, "`rejected` is missing"),
    _third("trl-chosen-blank", {"prompt": "Hi", "chosen": " ", "rejected": "b"}, "`chosen` is empty"),
    _third("trl-chosen-number", {"prompt": "Hi", "chosen": 1, "rejected": "b"}, "`chosen` is a number"),
    _third("trl-equal", {"prompt": "Hi", "chosen": "a", "rejected": "a"}, "both answers are the same"),
    _third("trl-prompt-empty", {"prompt": [], "chosen": [ANSWER], "rejected": "b"}, "`prompt` is an empty list"),
    _third("preference-said-but-chat", CHAT, "`chosen` is missing", "preference", PAIR),
]
KTO_CASES = [
    _third("kto-text", {**CHAT, "label": "yes"}, "`label` is 'yes'"),
    _third("kto-number", {**CHAT, "label": 1}, "`label` is 1"),
    _third("kto-no-answer", {"messages": [USER], "label": True}, "the last message has the role user"),
    _third("kto-only-answer", {"messages": [ANSWER], "label": True}, "no message before the answer"),
    _third("kto-no-completion", {"prompt": "Hi", "label": True}, "`completion` is missing"),
    _third("kto-completion-blank", {"prompt": "Hi", "completion": "", "label": False}, "`completion` is empty"),
    _third("kto-said-no-label", CHAT, "`label` is missing", "kto", {**CHAT, "label": True}),
]
ALPACA_CASES = [
    _third("alpaca-no-output", {"instruction": "a"}, "`output` is missing"),
    _third("alpaca-output-blank", {"instruction": "a", "output": " "}, "`output` is empty"),
    _third("alpaca-output-list", {"instruction": "a", "output": ["b"]}, "`output` is a list"),
    _third("alpaca-instruction-blank", {"instruction": "", "output": "b"}, "`instruction` is empty"),
    _third("alpaca-instruction-number", {"instruction": 5, "output": "b"}, "`instruction` is a number"),
    _third("alpaca-input-object", {"instruction": "a", "input": {}, "output": "b"}, "`input` is an object"),
    _third("alpaca-system-false", {"instruction": "a", "output": "b", "system": False}, "`system` is true or false"),
    _third("alpaca-history-text", {"instruction": "a", "output": "b", "history": "x"}, "`history` is a string"),
    _third("alpaca-history-flat", {"instruction": "a", "output": "b", "history": ["x", "y"]}, "round 1 must be a pair"),
    _third("alpaca-history-odd", {"instruction": "a", "output": "b", "history": [["x", "y"], ["z"]]}, "round 2"),
    _third(
        "alpaca-said-but-text", {"text": "a"}, "`instruction` is missing", "alpaca", {"instruction": "a", "output": "b"}
    ),
    _third("completion-missing", {"prompt": "a"}, "`completion` is missing"),
    _third("completion-blank", {"prompt": "a", "completion": ""}, "`completion` is empty"),
    _third("prompt-missing", {"completion": "b"}, "`prompt` is missing"),
    _third("prompt-object", {"prompt": {}, "completion": "b"}, "`prompt` is an object"),
    _third("prompt-messages-bad", {"prompt": [USER], "completion": [USER]}, "no message has the role assistant"),
    _third("text-null", {"text": None}, "`text` is missing"),
    _third("text-blank", {"text": " "}, "`text` is empty"),
    _third("text-list", {"text": ["a"]}, "`text` is a list"),
    _third("text-said-but-chat", CHAT, "`text` is missing", "text", {"text": "a"}),
    _third("keys-unknown", {"question": "a", "answer": "b"}, "no format has these keys: `question`, `answer`"),
    _third("keys-none", {}, "no format has these keys: nothing"),
    _third("keys-long", {"k" * 1000: 1}, "no format has these keys"),
    _third("record-list", [1], "but must be an object"),
    _third("record-text", '"Hi"', "but must be an object"),
    _third("record-number", "12", "but must be an object"),
    _third("record-null", "null", "but must be an object"),
]
JSON_CASES = [
    _third("json-cut", '{"messages": [', "isn't JSON"),
    _third("json-word", "hello", "isn't JSON"),
    _third("json-single-quotes", "{'prompt': 'a', 'completion': 'b'}", "in double quotes"),
    _third("json-comma-after", json.dumps(CHAT) + ",", "there is a comma after the record"),
    _third("json-two-on-a-line", json.dumps(CHAT) * 2, "each record on its own line"),
    _third("json-comment", "// a comment", "isn't JSON"),
    _third("json-comma-last", '{"prompt": "a", "completion": "b",}', "isn't JSON"),
    _third("json-key-twice", '{"prompt": "a", "prompt": "c", "completion": "b"}', "the key `prompt` occurs twice"),
    _third("json-key-twice-apart", '{"text" :"a", "text"\t: "b"}', "the key `text` occurs twice"),
    _third(
        "json-key-twice-inside", '{"messages": [{"role": "user", "role": "x", "content": ""}]}', "`role` occurs twice"
    ),
    _third("json-key-twice-escaped", '{"text": "a", "\\u0074ext": "b"}', "the key `text` occurs twice"),
    _third("json-key-twice-backslash", '{"text": "a", "b\\\\": 1, "b\\\\": 2}', "occurs twice"),
    _third("json-nan", '{"text": "a", "score": NaN}', "NaN isn't a JSON value"),
    _third("json-infinity", '{"text": "a", "score": -Infinity}', "Infinity isn't a JSON value"),
    _third("json-overflow", '{"text": "a", "score": 1e999}', "too large"),
    _third("json-digits", '{"text": "a", "score": ' + "1" * 5000 + "}", "isn't usable JSON"),
    _third("json-half-surrogate", '{"text": "\\ud800"}', "half a surrogate pair"),
    _third("json-low-surrogate", '{"text": "a\\udc00b"}', "half a surrogate pair"),
    _third("json-nul-escaped", '{"text": "a\\u0000b"}', "NUL character"),
    _third("json-control", '{"text": "a\x01b"}', "isn't JSON"),
    _third("json-deep-200", '{"text": "a", "x": ' + "[" * 200 + "]" * 200 + "}", "nested too deeply"),
    _third("json-deep-100000", '{"text": "a", "x": ' + "[" * 100_000, "nested too deeply"),
    _third("json-tab-raw", '{"text": "a\tb"}', "isn't JSON"),
    Case("json-nul-raw", _jsonl(*[CHAT] * 80) + b'{"text": "a\x00b"}\n', 81, "isn't JSON"),
    Case("json-latin-1", _jsonl(CHAT) + '{"text": "caf\xe9"}\n'.encode("latin-1") * 5, 2, "isn't UTF-8: byte 0xe9"),
    Case("json-surrogate-bytes", _jsonl(CHAT) + b'{"text": "\xed\xa0\x80"}\n', 2, "isn't UTF-8"),
    Case("json-utf8-cut", _jsonl(CHAT) + b'{"text": "\xe2\x82"}\n', 2, "isn't UTF-8"),
    Case("json-after-bom-and-blanks", b"\xef\xbb\xbf\r\n\n" + _jsonl("{"), 3, "isn't JSON"),
    Case("json-lines-by-cr", _jsonl(CHAT, CHAT).replace(b"\n", b"\r"), 1, "each record on its own line"),
    Case("json-pretty", json.dumps(CHAT, indent=2).encode(), 1, "spans several lines"),
    Case("json-pretty-many", json.dumps(CHAT, indent=2).encode() * 3, 1, "spans several lines"),
    Case(
        "json-wrapped", json.dumps({"data": [CHAT]}, indent=1).encode(), 1, "write only the list in it (under `data`)"
    ),
    Case(
        "json-wrapped-one-line", json.dumps({"data": [CHAT]}).encode(), 1, "no format has these keys: `data`", ".json"
    ),
]
ARRAY_CASES = [
    Case("array-element-bad", json.dumps([CHAT, {"instruction": "a"}]).encode(), 2, "`output` is missing", ".json"),
    Case("array-element-text", json.dumps([CHAT, "Hi"]).encode(), 2, "but must be an object", ".json"),
    Case("array-nested", json.dumps([[CHAT]]).encode(), 1, "but must be an object", ".json"),
    Case("array-cut", b"[\n" + _jsonl(CHAT)[:-1] + b",\n{", 3, "isn't JSON", ".json"),
    Case("array-open", b"[\n" + _jsonl(CHAT), 3, "a comma or ] is missing", ".json"),
    Case("array-no-comma", b"[\n" + _jsonl(CHAT, CHAT) + b"]", 3, "a comma or ] is missing", ".json"),
    Case("array-comma-last", b"[\n" + _jsonl(CHAT)[:-1] + b",\n]", 3, "isn't JSON", ".json"),
    Case("array-more-after", b"[" + _jsonl(CHAT) + b"]\n" + _jsonl(CHAT), 3, "there is more", ".json"),
    Case("array-key-twice", b'[{"text": "a"}, {"text": "a", "text": "b"}]', 2, "occurs twice", ".json"),
    Case("array-nan", b'[{"text": "a"}, {"text": "b", "x": NaN}]', 2, "NaN isn't", ".json"),
    Case("array-nul", b'[{"text": "a"}, {"text": "\\u0000"}]', 2, "NUL character", ".json"),
    Case("array-half-surrogate", b'[{"text": "a"}, {"text": "\\ud800"}]', 2, "half a surrogate", ".json"),
    Case("array-latin-1", b'[\n{"text": "a"},\n{"text": "caf\xe9"}]', 3, "isn't UTF-8", ".json"),
    Case("array-deep", b"[" * 100_000, 1, "nested too deeply", ".json"),
    Case("array-open-only", b"[", 1, "isn't JSON", ".json"),
]
CSV_HEADER = "instruction,output\n"
CSV_CASES = [
    Case("csv-columns-unknown", b"question,answer\na,b\nc,d\n", 1, "no format has these columns: `question`", ".csv"),
    Case("csv-column-twice", b"prompt,prompt,completion\na,b,c\n", 1, "`prompt` twice", ".csv"),
    Case("csv-semicolons", b"instruction;output\na;b\n", 1, "no format has these columns", ".csv"),
    Case("csv-output-empty", (CSV_HEADER + "a,b\nc,\n").encode(), 3, "`output` is empty", ".csv"),
    Case("csv-cell-missing", (CSV_HEADER + "a,b\nc\n").encode(), 3, "has 1 cells, but the header has 2", ".csv"),
    Case("csv-cell-too-many", (CSV_HEADER + "a,b,c\n").encode(), 2, "put cells that contain a comma in", ".csv"),
    Case("csv-quoted-newlines", (CSV_HEADER + '"a\n1\n2",b\n\nc,\n').encode(), 6, "`output` is empty", ".csv"),
    Case("csv-quote-open", (CSV_HEADER + 'a,b\nc,"d\ne,f\n').encode(), 3, "never closed", ".csv"),
    Case("csv-quote-then-text", (CSV_HEADER + 'a,"b"c\n').encode(), 2, "isn't CSV", ".csv"),
    Case("csv-latin-1", (CSV_HEADER + "a,b\ncaf\xe9,b\n").encode("latin-1"), 3, "isn't UTF-8", ".csv"),
    Case("csv-header-latin-1", "text,caf\xe9\na,b\n".encode("latin-1"), 1, "isn't UTF-8", ".csv"),
    Case("csv-nul", (CSV_HEADER + "a,b\n" * 2000 + "a,b\0c\n").encode(), 2002, "NUL character", ".csv"),
    Case("csv-label-word", b"prompt,completion,label\na,b,true\na,b,good\n", 3, "`label` is 'good'", ".csv"),
    Case("csv-label-empty", b"prompt,completion,label\na,b,false\na,b,\n", 3, "`label` is ''", ".csv"),
    Case("csv-messages-no-json", b"messages\nHi\n", 2, "the column `messages` must be JSON", ".csv"),
    Case("csv-messages-bad", b'messages\n"[{""role"": ""user""}]"\n', 2, "message 1 has no `content`", ".csv"),
    Case("csv-header-only", CSV_HEADER.encode(), None, "is empty", ".csv"),
    Case("csv-said-text", b"prompt,completion\na,b\n", 2, "`text` is missing", ".csv", "text"),
    Case("tsv-cell-missing", b"prompt\tcompletion\na\n", 2, "has 1 cells", ".tsv"),
]


def _parquet(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    return sink.getvalue()


def _parquet_latin_1() -> bytes:
    texts = pa.array([b"a", b"caf\xe9", b"c"], pa.binary()).view(pa.string())
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue()


GOOD_PARQUET = _parquet([CHAT] * 300)
PARQUET_CASES = [
    Case("parquet-columns-unknown", _parquet([{"q": "a"}]), None, "no format has these columns", ".parquet"),
    Case(
        "parquet-output-null",
        _parquet([{"instruction": "a", "output": x} for x in ("b", None)]),
        2,
        "missing",
        ".parquet",
    ),
    Case("parquet-output-number", _parquet([{"instruction": "a", "output": 1}]), 1, "`output` is a number", ".parquet"),
    Case("parquet-output-bytes", _parquet([{"instruction": "a", "output": b"b"}]), 1, "the type bytes", ".parquet"),
    Case("parquet-row-300", _parquet([{"text": "a"}] * 299 + [{"text": " "}]), 300, "`text` is empty", ".parquet"),
    Case("parquet-role", _parquet([CHAT, {"messages": [{**USER, "role": "x"}]}]), 2, "unknown role 'x'", ".parquet"),
    Case("parquet-label", _parquet([{**CHAT, "label": 1}]), 1, "`label` is 1", ".parquet"),
    Case("parquet-nul-inside", _parquet([{"messages": [USER, {**ANSWER, "content": "a\0"}]}]), 1, "NUL", ".parquet"),
    Case("parquet-nul", _parquet([{"text": "a\0b"}]), 1, "NUL character", ".parquet"),
    Case("parquet-messages-text", _parquet([{"messages": "Hi"}]), 1, "must be JSON", ".parquet"),
    Case("parquet-latin-1", _parquet_latin_1(), 2, "write text as UTF-8", ".parquet"),
    Case("parquet-no-rows", _parquet([], pa.schema({"text": pa.string()})), None, "is empty", ".parquet"),
    Case("parquet-cut", GOOD_PARQUET[:-200], None, "damaged Parquet", ".parquet"),
    Case("parquet-magic-only", b"PAR1", None, "damaged Parquet", ".parquet"),
    Case("parquet-only-by-name", _jsonl(CHAT), None, "isn't a Parquet file", ".parquet"),
]


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("data.jsonl", _jsonl(CHAT))
    return sink.getvalue()


FILE_CASES = [
    Case("file-empty", b"", None, "is empty"),
    Case("file-empty-csv", b"", None, "is empty", ".csv"),
    Case("file-empty-text", b"\n \n", None, "is empty", ".txt"),
    Case("file-bom-only", b"\xef\xbb\xbf", None, "is empty"),
    Case("file-blank", b"\r\n\r\n", None, "is empty"),
    Case("file-empty-array", b" [ ] ", None, "is empty", ".json"),
    Case("file-utf-16", _jsonl(CHAT).decode().encode("utf-16"), None, "UTF-16"),
    Case("file-utf-16-no-bom", _jsonl(CHAT).decode().encode("utf-16-le"), None, "UTF-16"),
    Case("file-utf-16-csv", "text\nHi\n".encode("utf-16"), None, "UTF-16", ".csv"),
    Case("file-utf-16-text", "Hi\n".encode("utf-16"), None, "UTF-16", ".txt"),
    Case("file-gzip", b"\x1f\x8b\x08\x00" + b"x" * 50, None, "gzip archive"),
    Case("file-zip", _zip(), None, "zip archive"),
    Case("file-zstd", b"\x28\xb5\x2f\xfd" + b"x" * 50, None, "Zstandard"),
    Case("file-png", b"\x89PNG\r\n\x1a\n" + b"x" * 50, None, "PNG"),
    Case("file-jpeg", b"\xff\xd8\xff\xe0" + b"x" * 50, None, "JPEG"),
    Case("file-pdf", b"%PDF-1.7\n", None, "PDF"),
    Case("file-sqlite", b"SQLite format 3\x00" + b"x" * 50, None, "SQLite"),
    Case("file-binary", bytes(range(256)) * 3, None, "binary"),
    Case("file-yaml", b"messages:\n", 1, "isn't JSON", ".yaml"),
    Case("text-latin-1", "one\ncaf\xe9\n".encode("latin-1"), 2, "isn't UTF-8", ".txt"),
    Case("text-nul", b"one\n" * 2000 + b"a\0b\n", 2001, "NUL character", ".txt"),
    Case("text-holding-jsonl", _jsonl(CHAT, {"messages": []}), 2, "at least one message", ".txt"),
]
CASES = [
    *CHAT_CASES, *SHAREGPT_CASES, *PAIR_CASES, *KTO_CASES, *ALPACA_CASES, *JSON_CASES, *ARRAY_CASES, *CSV_CASES,
    *PARQUET_CASES, *FILE_CASES,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_malformed_file_is_refused_with_its_place_and_reason(tmp_path: Path, case: Case) -> None:
    path = tmp_path / f"data{case.ending}"
    path.write_bytes(case.content)
    with pytest.raises(DataError) as caught:
        read_examples(path, case.file_format)
    first = caught.value.faults[0]
    assert (first.line, case.phrase in first.reason) == (case.line, True), str(caught.value)
    assert {fault.line for fault in caught.value.faults} == {case.line}, "a good record was refused"


def test_the_corpus_is_large_and_its_names_are_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 120


def test_all_faults_of_one_record_are_told(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(_jsonl(CHAT, {"messages": [{"content": "Hi"}, {**USER, "content": 1}], "tools": ["now"]}))
    with pytest.raises(DataError) as caught:
        read_examples(path)
    reasons = [fault.reason for fault in caught.value.faults]
    assert [fault.line for fault in caught.value.faults] == [2, 2, 2]
    assert [word in reason for word, reason in zip(("`role`", "`content`", "tool 1"), reasons, strict=True)] == [
        True
    ] * 3


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is a directory"):
        read_examples(tmp_path)


def test_a_path_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_examples(Path("a\0b"))
    with pytest.raises(DataError, match="can't be read"):
        read_examples(Path("x" * 5000))


def _csv() -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(["instruction", "input", "output"])
    writer.writerows([["Add\nthem", "2, 3", 'It is "5"']] * 5)
    return sink.getvalue().encode()


VALID: dict[str, Callable[[], bytes]] = {
    ".jsonl": lambda: _jsonl(
        {"messages": [USER, CALLS, {"role": "tool", "content": "é", "tool_call_id": "c1"}, ANSWER], "tools": [TOOL]},
        {"conversations": [HUMAN, GPT], "kto_tag": True},
        PAIR,
    ),
    ".json": lambda: json.dumps([CHAT, {"instruction": 'a\\b: "c":', "output": "b"}], indent=1).encode(),
    ".csv": _csv,
    ".txt": lambda: "One line.\n\nAnother – line.\n".encode(),
    ".parquet": lambda: _parquet([CHAT, CHAT]),
}


@pytest.mark.parametrize("ending", VALID)
def test_bytes_changed_at_random_bring_faults_or_examples_and_nothing_else(tmp_path: Path, ending: str) -> None:
    randomness = random.Random(7)
    valid = VALID[ending]()
    path = tmp_path / f"data{ending}"
    path.write_bytes(valid)
    read_examples(path)
    refused = 0
    for _ in range(500):
        changed = bytearray(valid)
        for _ in range(randomness.randint(1, 4)):
            place = randomness.randrange(len(changed))
            changed[place : place + randomness.randint(0, 2)] = randomness.randbytes(randomness.randint(0, 2))
        path.write_bytes(changed)
        try:
            read_examples(path)
        except DataError as error:
            refused += bool(str(error))
    assert refused > 50
