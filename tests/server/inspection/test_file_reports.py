"""`/v1/files/{id}/report`, `/examples` and `/clean`: what is found in a stored file, and what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.inspection.file_reports import CleaningSettings
from server.inspection.processes import AT_ONCE, Inspections
from server.wire.errors import BadRequest, ServerError, ServiceUnavailable
from tests.server.conftest import Gateway, StartGateway
from tests.server.inspection.test_preflight import use_files_of
from tests.server.jobs.test_fine_tuning_api import add_file
from training.data.cleaning.rules import CleaningConfig

CHAT = {"messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "The keeper."}]}
OTHER = {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In the tower, sir."}]}
UNANSWERED = {"messages": [{"role": "user", "content": "Hello?"}]}


def lines(*records: Any) -> str:
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records)


def post(gateway: Gateway, file_id: str, what: str, **body: Any) -> dict[str, Any]:
    """The answer to a question that is taken."""
    response = gateway.http.post(f"/v1/files/{file_id}/{what}", json=body, timeout=120)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_report_has_the_figures_of_what_can_be_read_and_every_fault_with_its_line(gateway: Gateway) -> None:
    file_id = add_file(gateway, text=lines(CHAT, UNANSWERED, OTHER, CHAT, {"foo": 1}))
    report = post(gateway, file_id, "report")
    assert (report["object"], report["file_id"], report["method"]) == ("file.report", file_id, "supervised")
    assert (report["examples"], report["lengths"]["unit"], report["tokens"]) == (3, "characters", None)
    assert report["duplicates"] == [{"line": 4, "first_line": 1}]
    assert [fault["line"] for fault in report["faults"]] == [2, 5]
    assert "no message has the role assistant" in report["faults"][0]["message"]
    assert report["faults_found"] == 2


def test_a_report_lists_as_many_faults_and_duplicates_as_were_asked_for_and_counts_the_others(gateway: Gateway) -> None:
    file_id = add_file(gateway, text=lines(*[UNANSWERED] * 5))
    report = post(gateway, file_id, "report", limit=2)
    assert [fault["line"] for fault in report["faults"]] == [1, 2]
    assert (report["faults_found"], report["examples"], report["lengths"]) == (5, 0, None)
    report = post(gateway, add_file(gateway, text=lines(*[CHAT] * 5)), "report", limit=2)
    assert [duplicate["line"] for duplicate in report["duplicates"]] == [2, 3]
    assert report["duplicates_found"] == 4


def test_only_the_faults_that_are_listed_come_from_the_process_the_first_of_every_kind(tmp_path: Path) -> None:
    from training.inspection.answer import answer

    file = tmp_path / "many.jsonl"
    file.write_text(lines(*[CHAT, UNANSWERED] * 3000), encoding="utf-8")
    question = {"ask": "report", "file": str(file), "base_model": None, "config": {"method": "dpo"}, "limit": 5}
    report = answer(question)["answer"]
    assert report["faults_found"] == 6000
    assert [fault["line"] for fault in report["faults"]] == [1, 2, 3, 4, 5]
    assert "use `method: supervised`" in report["faults"][0]["message"]
    assert "no message has the role assistant" in report["faults"][1]["message"]


def test_cleaning_has_the_same_settings_and_defaults_everywhere() -> None:
    settings = CleaningSettings()
    assert list(CleaningSettings.model_fields) == [field.name for field in dataclasses.fields(CleaningConfig)]
    assert CleaningConfig(**settings.model_dump()) == CleaningConfig()


def test_a_process_that_says_much_is_read_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import server.inspection.processes

    threads = []

    def loads(said: bytes) -> Any:
        threads.append(threading.current_thread())
        return json.loads(said)

    monkeypatch.setattr(server.inspection.processes, "json", SimpleNamespace(loads=loads, dumps=json.dumps))
    said = program(tmp_path, "print('{\"answer\": 1}')")
    assert asyncio.run(Inspections(said).inspect("report")) == 1
    assert threads != [threading.main_thread()]


def test_a_report_for_a_method_tells_the_examples_that_it_cannot_learn_from(gateway: Gateway) -> None:
    report = post(gateway, add_file(gateway, text=lines(CHAT)), "report", config={"method": "dpo"})
    assert report["method"] == "dpo"
    assert "use `method: supervised`" in report["faults"][0]["message"]


def test_examples_are_split_into_what_is_learned_and_what_is_context(gateway: Gateway) -> None:
    file_id = add_file(gateway, text=lines(CHAT, UNANSWERED, OTHER))
    page = gateway.http.get(f"/v1/files/{file_id}/examples", params={"limit": 2}).json()
    assert (page["object"], page["has_more"], page["base_model"]) == ("list", True, None)
    first, faulty = page["data"]
    told = [(one["role"], one["text"], one["trained"]) for one in first["rows"][0]["segments"]]
    assert told == [("user", "Who are you?", False), ("assistant", "The keeper.", True)]
    assert (faulty["line"], faulty["rows"]) == (2, [])
    assert "assistant" in faulty["error"]
    rest = gateway.http.get(f"/v1/files/{file_id}/examples", params={"limit": 2, "offset": 2}).json()
    assert [one["line"] for one in rest["data"]] == [3]
    assert not rest["has_more"]


def test_with_a_base_lengths_and_masks_come_in_its_tokens(start_gateway: StartGateway, demo_model: Path) -> None:
    gateway = start_gateway()
    use_files_of(gateway, demo_model)
    file_id = add_file(gateway, text=lines(CHAT, OTHER))
    report = post(gateway, file_id, "report", base_model="base")
    assert (report["base_model"], report["lengths"]["unit"], report["tokens"]["rows"]) == ("base", "tokens", 2)
    assert 0 < report["tokens"]["learned_share"] < 1
    query = {"base_model": "base", "limit": 1, "max_length": 16}
    row = gateway.http.get(f"/v1/files/{file_id}/examples", params=query, timeout=120).json()["data"][0]["rows"][0]
    assert row["tokens"] > row["trained_tokens"] > 0
    assert {one["part"] for one in row["segments"]} == {"context", "trained", "cut"} or row["cut_tokens"] == 0
    assert "".join(one["text"] for one in row["segments"]).count("The keeper.") == 1


def test_cleaning_makes_a_new_file_and_leaves_the_old_one(gateway: Gateway) -> None:
    file_id = add_file(gateway, text=lines(CHAT, UNANSWERED, OTHER, CHAT))
    cleaning = post(gateway, file_id, "clean", settings={"near_duplicates": None})
    assert (cleaning["object"], cleaning["report"]["read"], cleaning["report"]["kept"]) == ("file.cleaning", 4, 2)
    assert cleaning["report"]["dropped"] == {"fault": 1, "exact_duplicate": 1}
    new = cleaning["file"]
    assert (new["filename"], new["purpose"]) == ("t.cleaned.jsonl", "fine-tune")
    content = gateway.http.get(f"/v1/files/{new['id']}/content").text.splitlines()
    assert [json.loads(line) for line in content] == [CHAT, OTHER]
    assert len(gateway.http.get(f"/v1/files/{file_id}/content").text.splitlines()) == 4
    assert list((gateway.services.settings.files_dir / "incoming").iterdir()) == []


def test_a_cleaning_that_keeps_nothing_says_why_and_makes_no_file(gateway: Gateway) -> None:
    file_id = add_file(gateway, text=lines(UNANSWERED, UNANSWERED))
    response = gateway.http.post(f"/v1/files/{file_id}/clean", json={})
    error = gateway.error(response)
    assert (response.status_code, error["code"]) == (400, "nothing_kept")
    assert "2 fault" in error["message"]
    assert [file["id"] for file in gateway.http.get("/v1/files").json()["data"]] == [file_id]


@pytest.mark.parametrize(
    ("what", "body", "param", "code"),
    [
        ("report", {"base_model": "gpt-4"}, "base_model", "model_not_available"),
        ("report", {"base_model": "/etc"}, "base_model", "model_not_available"),
        ("report", {"config": {"training_file": "/etc/passwd"}}, "config.training_file", "invalid_value"),
        ("report", {"config": {"base_model": "/etc"}}, "config.base_model", "invalid_value"),
        ("report", {"config": {"max_lenght": 3}}, "config.max_lenght", "invalid_value"),
        ("report", {"config": {"max_length": "long"}}, "config.max_length", "invalid_value"),
        ("report", {"limit": 0}, "limit", "integer_below_min_value"),
        ("clean", {"settings": {"near_duplicates": 7}}, None, "invalid_value"),
        ("clean", {"settings": {"languages": ["klingon"]}}, None, "invalid_value"),
        ("clean", {"settings": {"min_chars": "3"}}, "settings.min_chars", "invalid_type"),
        ("clean", {"settings": {"output": "/tmp/x"}}, "settings.output", "unknown_parameter"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    shared_gateway: Gateway, what: str, body: dict[str, Any], param: str | None, code: str
) -> None:
    file_id = add_file(shared_gateway, text=lines(CHAT))
    response = shared_gateway.http.post(f"/v1/files/{file_id}/{what}", json=body)
    error = shared_gateway.error(response)
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert str(shared_gateway.services.settings.data_dir) not in error["message"]


def test_only_files_of_examples_are_looked_into(gateway: Gateway) -> None:
    response = gateway.http.get(f"/v1/files/{add_file(gateway, purpose='user_data')}/examples")
    assert (response.status_code, gateway.error(response)["code"]) == (400, "invalid_file_purpose")
    response = gateway.http.post("/v1/files/file-none/report", json={})
    assert (response.status_code, gateway.error(response)["code"]) == (404, "file_not_found")


def test_html_and_other_scripts_in_examples_come_back_as_they_are(gateway: Gateway) -> None:
    said = "<script>alert(1)</script> مرحبا 你好 \u2028"
    record = {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": said}]}
    data = gateway.http.get(f"/v1/files/{add_file(gateway, text=lines(record))}/examples").json()["data"]
    assert [one["text"] for one in data[0]["rows"][0]["segments"]] == [said, said]


PROGRAM = "import sys, time, pathlib, os; sys.stdin.readline(); pathlib.Path(sys.argv[1], str(os.getpid())).touch(); "


def program(folder: Path, then: str) -> tuple[str, ...]:
    return sys.executable, "-c", PROGRAM + then, str(folder)


def test_a_caller_who_leaves_ends_the_process(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = start_gateway()
    object.__setattr__(gateway.services.file_reports, "inspections", Inspections(program(tmp_path, "time.sleep(600)")))
    before = set(tmp_path.iterdir())
    file_id = add_file(gateway, text=lines(CHAT))
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(
            f"POST /v1/files/{file_id}/report HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        started = until(lambda: set(tmp_path.iterdir()) - before)
    (pid,) = (int(path.name) for path in started if path.name.isdigit())
    until(lambda: not alive(pid))


def test_no_more_processes_run_at_once_than_are_allowed(tmp_path: Path) -> None:
    async def ask_often() -> None:
        inspections = Inspections(program(tmp_path, "time.sleep(600)"))
        asked = [asyncio.create_task(inspections.inspect("report")) for _ in range(AT_ONCE + 2)]
        await asyncio.to_thread(until, lambda: len(started()) >= AT_ONCE)
        await asyncio.sleep(0.5)
        assert len(started()) == AT_ONCE
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    def started() -> list[int]:
        return [int(path.name) for path in tmp_path.iterdir()]

    asyncio.run(ask_often())
    assert not any(map(alive, started()))


@pytest.mark.parametrize(
    ("then", "kind", "words"),
    [
        ("os.kill(os.getpid(), 9)", ServerError, "was killed by signal 9"),
        ("sys.exit(3)", ServerError, "ended with 3"),
        ("time.sleep(600)", ServiceUnavailable, "took more than"),
        ('print(\'{"refused": [{"param": "r", "message": "Too much."}]}\')', BadRequest, "Too much."),
    ],
)
def test_a_process_that_gives_no_answer_is_told_with_a_remedy(
    tmp_path: Path, then: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        asyncio.run(Inspections(program(tmp_path, then), timeout_s=2.0).inspect("report"))


WAITING = (
    "import sys, time; from training.inspection import answer; answer.answer = lambda _: time.sleep(600); "
    "sys.exit(answer.main())"
)
"""The real program, with a question that takes long."""


def test_a_process_ends_with_the_server_that_asked() -> None:
    """Its standard input ends as it does when the server is killed."""
    process = subprocess.Popen([sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(b'{"ask": "wait"}\n')
    process.stdin.flush()
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(30) == 1


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Any) -> Any:
    """What `condition` gives once it gives something."""
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found
