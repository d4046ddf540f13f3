"""`/v1/files` through the official SDK, which validates every answer strictly, and by hand where it can't go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from sqlalchemy import event, select, update
from sqlalchemy.exc import OperationalError

from server.files.check import check_file, check_for_job
from server.files.contents import IncomingFile
from server.storage.tables import FileRow
from tests.server.conftest import Gateway, StartGateway

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
LINE = json.dumps(CHAT).encode() + b"\n"


def sdk(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True)


def upload(gateway: Gateway, content: bytes, name: str = "train.jsonl", purpose: Any = "fine-tune") -> Any:
    return sdk(gateway).files.create(file=(name, content), purpose=purpose)


def waited(gateway: Gateway, content: bytes) -> Any:
    return sdk(gateway).files.wait_for_processing(upload(gateway, content).id, poll_interval=0.02, max_wait_seconds=60)


def refusal(gateway: Gateway, content: bytes, name: str = "train.jsonl", purpose: Any = "fine-tune") -> Any:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(gateway, content, name, purpose)
    return caught.value


def on_disk(gateway: Gateway) -> list[Path]:
    return [path for path in gateway.services.settings.files_dir.rglob("*") if path.is_file()]


def eventually(condition: Callable[[], Any]) -> Any:
    """What the condition gives once that is true; a minute at most."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return found


def check_processes() -> list[int]:
    """Processes that check files for this one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and b"training.inspection.answer" in command:
            found.append(int(status.parent.name))
    return found


@pytest.mark.both_databases
def test_a_training_file_goes_in_is_processed_and_comes_out_as_it_was(gateway: Gateway) -> None:
    file = waited(gateway, LINE * 12)
    assert (file.status, file.bytes, file.filename, file.purpose) == (
        "processed",
        12 * len(LINE),
        "train.jsonl",
        "fine-tune",
    )
    assert sdk(gateway).files.retrieve(file.id) == file
    content = sdk(gateway).files.content(file.id)
    assert content.read() == LINE * 12
    assert content.response.headers["content-type"] == "application/jsonl"


@pytest.mark.both_databases
def test_a_file_that_no_method_can_learn_from_ends_in_error_with_the_lines(gateway: Gateway) -> None:
    file = waited(gateway, LINE + b'{"nothing": 1}\n' * 30)
    assert file.status == "error"
    assert "30 error(s): line 2: no format has these keys" in file.status_details
    assert file.status_details.endswith("and 10 more")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"\n \r\n", "it is empty"),
        (b"not json\n", "line 1: it isn't JSON"),
        (LINE + b"[1, 2]\n", "line 2: it is an array, not an object"),
        (LINE + b'"text"\n3\nnull', "line 4: it is null"),
        (LINE + b'{"a": "\xff\xfe"}\n', "line 2: it isn't UTF-8"),
        (LINE.decode().encode("utf-16"), "line 1: it isn't UTF-8"),
        (LINE + b'{"a": 1e999}\n', "line 2: it isn't usable JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "line 1: it isn't usable JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"\n", "nested too deeply"),
        (b'{"a": "' + b"x" * 10_000_001 + b'"}\n', "line 1: the line has 10000010 bytes"),
        (b'{"a": 1, "a": 2}\n', "occurs twice"),
        (b'{"a": NaN}\n', "line 1: it isn't usable JSON"),
        (b"\x1f\x8b\x08\x00", "line 1: it isn't UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}-bytes",
)
def test_what_is_no_jsonl_is_refused_with_the_faulty_lines(shared_gateway: Gateway, content: bytes, told: str) -> None:
    error = refusal(shared_gateway, content)
    assert error.message.count("Expected file to have JSONL format, where every line is a valid JSON dictionary.")
    assert told in error.body["message"]
    assert (error.code, error.param) == ("invalid_jsonl", None)
    assert on_disk(shared_gateway) == []


def test_the_first_twenty_faulty_lines_are_listed_and_the_rest_counted(shared_gateway: Gateway) -> None:
    message = refusal(shared_gateway, b"x\n" * 33).body["message"]
    assert "line 20:" in message
    assert "line 21:" not in message
    assert message.endswith("and 13 more")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + LINE * 2,
        (LINE * 2).replace(b"\n", b"\r\n"),
        b"\n" + LINE + b"\n\n" + LINE.strip(),
        json.dumps(
            CHAT | {"messages": [{"role": "user", "content": "a\u2028b\u2029"}, *CHAT["messages"][1:]]},
            ensure_ascii=False,
        ).encode(),
    ],
    ids=["byte-order-mark", "crlf", "blank-lines", "line-separator-inside-a-string"],
)
def test_odd_but_sound_jsonl_is_processed(gateway: Gateway, content: bytes) -> None:
    assert waited(gateway, content).status == "processed"


def test_names_other_than_jsonl_are_refused_for_fine_tune_and_no_extension_is_taken(gateway: Gateway) -> None:
    error = refusal(gateway, LINE, name="train.csv")
    assert (error.code, error.param) == ("invalid_file_format", "file")
    assert sdk(gateway).files.create(file=LINE, purpose="fine-tune").filename == "upload"


@pytest.mark.parametrize(
    ("purpose", "param"), [("evals", "purpose"), ("fine-tune-results", "purpose"), ("", "purpose")]
)
def test_other_purposes_are_refused_by_name(shared_gateway: Gateway, purpose: str, param: str) -> None:
    error = refusal(shared_gateway, LINE, purpose=purpose)
    assert (error.code, error.param) == ("invalid_value", param)


@pytest.mark.parametrize("purpose", ["assistants", "batch", "vision", "user_data"])
def test_files_for_other_purposes_are_processed_at_once(gateway: Gateway, purpose: str) -> None:
    file = upload(gateway, b"\x00\xff", name="any.bin", purpose=purpose)
    assert file.status == "processed"
    assert (file.expires_at is not None) == (purpose == "batch")
    assert refusal(gateway, b"", name="any.bin", purpose=purpose).code == "empty_file"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("日本語 ñ.jsonl", "日本語 ñ.jsonl"),
        ("../../etc/passwd.jsonl", "passwd.jsonl"),
        ("C:\\data\\train.jsonl", "train.jsonl"),
        ("a\x00b\u202e\x1b.jsonl", "ab.jsonl"),
        ("..", "upload"),
        ("n" * 300 + ".jsonl", "n" * 249 + ".jsonl"),
    ],
)
def test_of_a_filename_the_last_part_is_kept_without_control_characters(
    gateway: Gateway, given: str, kept: str
) -> None:
    form = b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--B\r\n'
    form += (
        b'Content-Disposition: form-data; name="file"; filename="' + given.replace("\\", "\\\\").encode() + b'"\r\n\r\n'
    )
    answer = gateway.http.post(
        "/v1/files", content=form + LINE + b"\r\n--B--\r\n", headers={"content-type": "multipart/form-data; boundary=B"}
    )
    assert answer.json()["filename"] == kept
    disposition = gateway.http.get(f"/v1/files/{answer.json()['id']}/content").headers["content-disposition"]
    assert disposition.isascii()
    assert disposition.startswith("attachment; filename*=UTF-8''")


def test_fields_may_come_after_the_file(gateway: Gateway) -> None:
    form = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + LINE
    form += b'\r\n--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--B--\r\n'
    answer = gateway.http.post("/v1/files", content=form, headers={"content-type": "multipart/form-data; boundary=B"})
    assert answer.json()["bytes"] == len(LINE)


@pytest.mark.parametrize(
    ("request_parts", "code", "param"),
    [
        ({"json": {"file": "x"}}, "invalid_content_type", None),
        ({"files": {"purpose": (None, "fine-tune")}}, "missing_required_parameter", "file"),
        ({"files": {"file": ("a.jsonl", LINE)}}, "missing_required_parameter", "purpose"),
        ({"files": {"file": ("a.jsonl", LINE), "other": ("b", b"")}}, "unknown_parameter", "other"),
        ({"files": [("file", ("a.jsonl", LINE)), ("file", ("b.jsonl", LINE))]}, "invalid_multipart", "file"),
        ({"files": {"file": ("a", LINE)}, "data": {"purpose": "fine-tune", "x": "1"}}, "unknown_parameter", "x"),
        ({"files": {"file": ("a", LINE)}, "data": {"purpose": "x" * 70_000}}, "string_above_max_length", "purpose"),
        (
            {"files": {"file": ("a", LINE)}, "data": {"purpose": "fine-tune", "expires_after[seconds]": "3600"}},
            "invalid_value",
            "expires_after[anchor]",
        ),
        (
            {
                "files": {"file": ("a", LINE)},
                "data": {
                    "purpose": "fine-tune",
                    "expires_after[anchor]": "created_at",
                    "expires_after[seconds]": "3599",
                },
            },
            "invalid_value",
            "expires_after[seconds]",
        ),
        ({"content": b"--B\r\nrubbish", "headers": {"content-type": "multipart/form-data; boundary=B"}}, None, None),
        ({"content": b"", "headers": {"content-type": "multipart/form-data; boundary=B"}}, "incomplete_body", None),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, "invalid_content_type", None),
    ],
)
def test_a_wrong_form_is_a_400_that_names_the_field_and_leaves_nothing(
    shared_gateway: Gateway, request_parts: dict[str, Any], code: str | None, param: str | None
) -> None:
    answer = shared_gateway.http.post("/v1/files", **request_parts)
    assert answer.status_code == 400
    error = shared_gateway.error(answer)
    assert error["param"] == param
    assert code is None or error["code"] == code
    assert on_disk(shared_gateway) == []


def test_a_file_over_the_limit_is_a_413_announced_or_not(start_gateway: StartGateway) -> None:
    gateway = start_gateway(max_file_bytes=3 * 2**20)
    for size in (3 * 2**20 + 1, 5 * 2**20):
        with pytest.raises(openai.APIStatusError) as caught:
            upload(gateway, b"x" * size, name="a.bin", purpose="user_data")
        assert (caught.value.status_code, caught.value.code) == (413, "file_too_large")
    assert upload(gateway, b"x" * 3 * 2**20, name="a.bin", purpose="user_data").bytes == 3 * 2**20
    assert len(on_disk(gateway)) == 1


def test_a_client_that_leaves_midway_leaves_nothing(gateway: Gateway) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    head = "POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=B\r\n"
    head += "Content-Length: 5000000\r\n\r\n"
    part = '--B\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall((head + part).encode() + b"x" * 3_000_000)
        eventually(lambda: on_disk(gateway))
    eventually(lambda: not on_disk(gateway))
    assert sdk(gateway).files.list().data == []


@pytest.mark.both_databases
def test_pages_of_a_hundred_files_follow_each_other_without_gap(gateway: Gateway) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda n: upload(gateway, b"x", f"{n}.txt", "user_data").id, range(100)))
    client = sdk(gateway)
    newest_first = [file.id for file in client.files.list(limit=7)]
    assert len(newest_first) == len(ids) == 100
    assert set(newest_first) == ids
    assert [file.id for file in client.files.list(limit=40, order="asc")] == newest_first[::-1]
    assert [file.id for file in client.files.list().data] == newest_first
    assert client.files.list(purpose="batch").data == []
    page = gateway.http.get("/v1/files", params={"limit": 5}).json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == (newest_first[0], newest_first[4], True)


@pytest.mark.both_databases
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_who_deletes_what_a_page_has_shown_goes_on_to_the_next(gateway: Gateway, order: Any) -> None:
    client = sdk(gateway)
    ids = [upload(gateway, b"x", f"{n}.txt", "user_data").id for n in range(5)]
    seen = []
    for file in client.files.list(limit=2, order=order, purpose="user_data"):
        client.files.delete(file.id)
        seen.append(file.id)
    assert seen == (ids if order == "asc" else ids[::-1])
    newest = upload(gateway, b"x", "new.txt", "user_data")
    assert [file.id for file in client.files.list(after=ids[-1], order="asc")] == [newest.id]
    assert client.files.list(after=ids[-1]).data == []


@pytest.mark.both_databases
def test_of_a_deleted_file_no_name_and_no_finding_is_kept(gateway: Gateway) -> None:
    file = waited(gateway, b"{}\n")
    sdk(gateway).files.delete(file.id)
    with gateway.database.session() as session:
        [row] = session.scalars(select(FileRow)).all()
    assert (row.filename, row.sha256, row.status_details) == ("", "", None)


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 10_001}, {"order": "up"}, {"after": "file-none"}])
def test_a_wrong_query_is_a_400(shared_gateway: Gateway, query: dict[str, Any]) -> None:
    answer = shared_gateway.http.get("/v1/files", params=query)
    assert answer.status_code == 400
    assert shared_gateway.error(answer)["param"] == next(iter(query))


@pytest.mark.both_databases
def test_a_deleted_file_is_unknown_and_its_content_gone(gateway: Gateway) -> None:
    client = sdk(gateway)
    file = upload(gateway, LINE)
    assert client.files.delete(file.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            call(file.id)
        assert caught.value.code == "file_not_found"
    assert on_disk(gateway) == []


@pytest.mark.both_databases
def test_an_expired_file_is_unknown_at_once(gateway: Gateway) -> None:
    file = sdk(gateway).files.create(
        file=("a.jsonl", LINE), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    with gateway.database.session() as session:
        session.execute(update(FileRow).values(expires_at=file.created_at - 1))
    with pytest.raises(openai.NotFoundError):
        sdk(gateway).files.retrieve(file.id)
    assert sdk(gateway).files.list().data == []
    upload(gateway, LINE)  # wakes the sweep from the loop
    eventually(lambda: file.id not in [path.name for path in on_disk(gateway)])


def test_a_check_whose_process_is_killed_is_tried_again(gateway: Gateway) -> None:
    file = upload(gateway, LINE * 20_000)
    os.kill(eventually(check_processes)[0], signal.SIGKILL)
    assert sdk(gateway).files.wait_for_processing(file.id, poll_interval=0.02).status == "processed"


def test_a_check_whose_process_dies_every_time_ends_in_error(gateway: Gateway) -> None:
    gateway.services.files._check_command = ("false",)
    file = waited(gateway, LINE)
    assert file.status == "error"
    assert "crashed 3 times" in file.status_details


@pytest.mark.both_databases
def test_a_restart_takes_up_checks_and_sweeps_what_was_being_written(start_gateway: StartGateway) -> None:
    first = start_gateway()
    kept = upload(first, LINE)
    waited(first, LINE)
    with first.database.session() as session:  # as a server that was killed in the middle leaves it
        session.execute(update(FileRow).values(status="uploaded"))
    (first.services.settings.files_dir / "incoming" / "half").write_bytes(b"x")
    second = start_gateway()
    assert sdk(second).files.wait_for_processing(kept.id, poll_interval=0.02).status == "processed"
    assert sorted(path.name for path in on_disk(second)) == sorted(file.id for file in sdk(second).files.list())


@pytest.mark.both_databases
def test_the_wrong_database_costs_no_file_and_no_part(start_gateway: StartGateway, tmp_path: Path) -> None:
    right = start_gateway()
    file = waited(right, LINE)
    pending = sdk(right).uploads.create(filename="a.bin", purpose="user_data", bytes=1, mime_type="text/plain")
    part = sdk(right).uploads.parts.create(pending.id, data=b"x")
    right.stop()
    empty = start_gateway(database_url=f"sqlite:///{tmp_path / 'empty.db'}")
    assert sdk(empty).files.list().data == []
    assert {path.parent.name for path in on_disk(empty)} == {"orphaned"}
    empty.stop()
    again = start_gateway()
    assert sdk(again).files.content(file.id).read() == LINE
    assert sdk(again).uploads.complete(pending.id, part_ids=[part.id]).status == "completed"
    assert list((again.services.settings.files_dir / "orphaned").iterdir()) == []


@pytest.mark.both_databases
def test_a_deletion_that_a_kill_cut_short_is_ended_at_the_next_start(start_gateway: StartGateway) -> None:
    first = start_gateway()
    file = waited(first, LINE)
    sdk(first).files.delete(file.id)
    first.services.files.path(file.id).write_bytes(LINE)  # as it was between the row's change and the removal
    first.stop()
    assert on_disk(start_gateway()) == []


@contextlib.contextmanager
def commits_without_an_answer(gateway: Gateway, table: str) -> Iterator[None]:
    """Has the connection lost just after what was put into the table is committed."""
    engine, inserted = gateway.database._engine, set()
    commit = engine.dialect.do_commit

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(f"INSERT INTO {table} "):
            inserted.add(threading.get_ident())

    def lose(connection: Any) -> None:
        commit(connection)
        if threading.get_ident() in inserted:
            inserted.clear()
            raise OperationalError("COMMIT", None, ConnectionError("lost"))

    event.listen(engine, "after_cursor_execute", note)
    engine.dialect.do_commit = lose  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine.dialect.do_commit = commit  # type: ignore[method-assign]
        event.remove(engine, "after_cursor_execute", note)


@pytest.mark.both_databases
def test_a_file_whose_commit_was_not_answered_keeps_its_content(gateway: Gateway) -> None:
    with commits_without_an_answer(gateway, "files"), pytest.raises(openai.InternalServerError) as caught:
        upload(gateway, LINE)
    assert caught.value.code == "database_unavailable"
    [file] = sdk(gateway).files.list().data
    assert sdk(gateway).files.content(file.id).read() == LINE


@pytest.mark.both_databases
def test_a_file_whose_row_was_refused_leaves_nothing(gateway: Gateway) -> None:
    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO files "):
            raise OperationalError(statement, None, ConnectionError("lost"))

    event.listen(gateway.database._engine, "before_cursor_execute", refuse)
    with pytest.raises(openai.InternalServerError):
        upload(gateway, LINE)
    assert on_disk(gateway) == []


HANGS = (
    "import sys, time; from training.inspection import answer; real = answer.answer\n"
    "answer.answer = lambda q: time.sleep(600) if b'hang' in open(q['file'], 'rb').read() else real(q)\n"
    "sys.exit(answer.main())"
)
"""A check that comes to no end with a file that says hang."""


def test_a_check_that_hangs_holds_up_no_other_and_ends_in_error(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.services.files._check_command = (sys.executable, "-c", HANGS)
    first = upload(gateway, LINE.replace(b"Hi", b"hang"))
    assert waited(gateway, LINE).status == "processed"
    assert sdk(gateway).files.retrieve(first.id).status == "uploaded"
    monkeypatch.setattr("server.files.check.START_S", 0.5)
    file = waited(gateway, LINE.replace(b"Hi", b"hang"))
    assert file.status == "error"
    assert "took more than" in file.status_details


def test_contents_are_for_our_eyes_only(gateway: Gateway) -> None:
    upload(gateway, LINE)
    [content] = on_disk(gateway)
    assert content.stat().st_mode & 0o777 == 0o600
    assert content.parent.stat().st_mode & 0o777 == 0o700


def test_a_web_page_comes_back_as_bytes_to_be_saved(gateway: Gateway) -> None:
    file = upload(gateway, b"<script>1</script>", name="x.html", purpose="user_data")
    headers = sdk(gateway).files.content(file.id).response.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"


def chats(numbers: range) -> bytes:
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"{n} apples cost {n * n}?"},
                    {"role": "assistant", "content": "y"},
                ]
            }
        )
        for n in numbers
    ]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("training", "validation", "method", "code", "param"),
    [
        (chats(range(12)), None, "supervised", None, None),
        (chats(range(3)), None, "supervised", "invalid_n_examples", "training_file"),
        (chats(range(12)), None, "dpo", "invalid_training_file", "training_file"),
        (b"{}\n" * 12, None, "supervised", "invalid_training_file", "training_file"),
        (chats(range(12)), b"{}\n", "supervised", "invalid_validation_file", "validation_file"),
        (chats(range(12)), chats(range(5, 6)), "supervised", "invalid_validation_file", "validation_file"),
    ],
)
def test_the_files_of_a_job_are_judged_in_openais_codes(
    tmp_path: Path, training: bytes, validation: bytes | None, method: Any, code: str | None, param: str | None
) -> None:
    (tmp_path / "training.jsonl").write_bytes(training)
    (tmp_path / "validation.jsonl").write_bytes(validation or b"")
    found = asyncio.run(
        check_for_job(
            tmp_path / "training.jsonl", None if validation is None else tmp_path / "validation.jsonl", method
        )
    )
    assert (found.code, found.param) == (code, param)
    assert str(tmp_path) not in (found.message or "")
    if code == "invalid_n_examples":
        assert found.message == "Training file has 3 example(s), but must have at least 10 examples"


def test_a_file_check_counts_examples(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE * 7)
    assert asyncio.run(check_file(tmp_path / "a.jsonl")).examples == 7


def test_who_stops_waiting_for_a_check_ends_its_process(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE * 100_000)

    async def leave() -> None:
        waiting = asyncio.create_task(check_file(tmp_path / "a.jsonl"))
        await asyncio.to_thread(eventually, check_processes)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert check_processes() == []

    asyncio.run(leave())


def test_a_boundary_that_is_too_long_is_400(shared_gateway: Gateway) -> None:
    headers = {"Content-Type": f'multipart/form-data; boundary="{"x" * 5000}"'}
    refused = shared_gateway.http.post("/v1/files", content=b"--x", headers=headers)
    assert (refused.status_code, shared_gateway.error(refused)["code"]) == (400, "invalid_multipart")


def test_a_full_disk_is_told_as_that_and_not_tried_again(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is met: the disk itself is not the test's to fill."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IncomingFile, "publish", full)
    refused = gateway.http.post("/v1/files", files={"file": ("a.txt", b"x")}, data={"purpose": "user_data"})
    assert (refused.status_code, gateway.error(refused)["code"]) == (500, "disk_full")
    assert refused.headers["x-should-retry"] == "false"
    assert gateway.http.get("/v1/files").json()["data"] == []
