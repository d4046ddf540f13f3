"""`/v1/uploads` through the official SDK, which validates every answer strictly."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import OpenAI
from sqlalchemy import select, update

from server.files.uploads import MAX_PART_BYTES
from server.storage.tables import FileRow, UploadPartRow, UploadRow
from tests.server.conftest import Gateway, StartGateway
from tests.server.files.test_files import LINE, commits_without_an_answer, eventually, on_disk, sdk


def create(client: OpenAI, size: int, **changes: Any) -> Any:
    asked: dict[str, Any] = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": size, "mime_type": "text/jsonl"}
    return client.uploads.create(**asked | changes)


def parts_of(client: OpenAI, upload_id: str, *contents: bytes) -> list[str]:
    return [client.uploads.parts.create(upload_id, data=content).id for content in contents]


def part_rows(gateway: Gateway) -> list[str]:
    with gateway.database.session() as session:
        return list(session.scalars(select(UploadPartRow.id)))


@pytest.mark.both_databases
def test_the_sdks_chunked_upload_makes_a_processed_file(gateway: Gateway) -> None:
    content = LINE * 50
    upload = sdk(gateway).uploads.upload_file_chunked(
        file=content,
        filename="名.jsonl",
        bytes=len(content),
        mime_type="text/jsonl",
        purpose="fine-tune",
        part_size=999,
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
    )
    assert upload.status == "completed"
    assert upload.file is not None
    assert (upload.file.filename, upload.file.bytes) == ("名.jsonl", len(content))
    assert sdk(gateway).files.wait_for_processing(upload.file.id, poll_interval=0.02).status == "processed"
    assert sdk(gateway).files.content(upload.file.id).read() == content
    assert [path.name for path in on_disk(gateway)] == [upload.file.id]


@pytest.mark.both_databases
def test_the_order_of_the_ids_is_the_order_of_the_file_and_unnamed_parts_are_left_out(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, 6, purpose="user_data", filename="a.bin")
    first, _again, second, third = parts_of(client, upload.id, b"ef", b"ef", b"ab", b"cd")
    file = client.uploads.complete(upload.id, part_ids=[second, third, first]).file
    assert file is not None
    assert client.files.content(file.id).read() == b"abcdef"


@pytest.mark.both_databases
def test_a_wrong_completion_is_a_400_and_the_upload_goes_on(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, 2 * len(LINE))
    ids = parts_of(client, upload.id, LINE, LINE)
    for part_ids, md5, code in (
        ([*ids, "part_none"], None, "part_not_found"),
        ([ids[0], ids[0]], None, "duplicate_part"),
        (ids[:1], None, "wrong_number_of_bytes"),
        (ids, "0" * 32, "md5_mismatch"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.uploads.complete(upload.id, part_ids=part_ids, md5=md5 or openai.omit)
        assert caught.value.code == code
    assert client.uploads.complete(upload.id, part_ids=ids).status == "completed"


def test_parts_that_make_no_jsonl_are_refused_as_a_file_is(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, 4)
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.complete(upload.id, part_ids=parts_of(client, upload.id, b"nope"))
    assert caught.value.code == "invalid_jsonl"
    assert client.files.list().data == []


@pytest.mark.both_databases
def test_completing_again_and_at_once_makes_one_file(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, len(LINE))
    ids = parts_of(client, upload.id, LINE)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: sdk(gateway).uploads.complete(upload.id, part_ids=ids), range(12)))
    assert len({answer.file.id for answer in answers if answer.file}) == 1
    assert len(client.files.list().data) == len(on_disk(gateway)) == 1


@pytest.mark.both_databases
def test_cancelling_and_completing_at_once_end_in_one_of_the_two(gateway: Gateway) -> None:
    client = sdk(gateway)
    for _ in range(10):
        upload = create(client, len(LINE))
        ids = parts_of(client, upload.id, LINE)

        def end(how: str, upload_id: str = upload.id, ids: list[str] = ids) -> str:
            try:
                uploads = sdk(gateway).uploads
                done = uploads.cancel(upload_id) if how == "cancel" else uploads.complete(upload_id, part_ids=ids)
            except openai.ConflictError:
                return "refused"
            return done.status

        with ThreadPoolExecutor(2) as pool:
            ends = sorted(pool.map(end, ("cancel", "complete")))
        assert ends in (["cancelled", "refused"], ["completed", "refused"])
    files = client.files.list().data
    assert sorted(path.name for path in on_disk(gateway)) == sorted(file.id for file in files)


@pytest.mark.both_databases
def test_a_part_whose_commit_was_not_answered_keeps_its_content(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, len(LINE))
    with commits_without_an_answer(gateway, "upload_parts"), pytest.raises(openai.InternalServerError):
        parts_of(client, upload.id, LINE)
    assert client.uploads.complete(upload.id, part_ids=part_rows(gateway)).status == "completed"


@pytest.mark.both_databases
def test_an_upload_that_has_ended_leaves_no_parts(start_gateway: StartGateway) -> None:
    first = start_gateway()
    client = sdk(first)
    upload = create(client, len(LINE))
    client.uploads.complete(upload.id, part_ids=parts_of(client, upload.id, LINE))
    upload = create(client, len(LINE))
    parts_of(client, upload.id, LINE)
    client.uploads.cancel(upload.id)
    eventually(lambda: part_rows(first) == [])
    upload = create(client, len(LINE))
    [part] = parts_of(client, upload.id, LINE)
    first.stop()
    with first.database.session() as session:  # as a server leaves it that is killed as soon as this is committed
        session.execute(update(UploadRow).values(status="cancelled"))
    second = start_gateway()
    eventually(lambda: part_rows(second) == [])
    assert part not in [path.name for path in on_disk(second)]


@pytest.mark.both_databases
def test_a_cancelled_upload_takes_nothing_more_and_its_parts_are_gone(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, len(LINE))
    ids = parts_of(client, upload.id, LINE)
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert on_disk(gateway) == []
    with pytest.raises(openai.ConflictError) as caught:
        parts_of(client, upload.id, LINE)
    assert caught.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.ConflictError):
        client.uploads.complete(upload.id, part_ids=ids)


@pytest.mark.both_databases
def test_an_expired_upload_takes_nothing_more_and_is_swept(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, len(LINE))
    assert upload.expires_at == upload.created_at + 3600
    ids = parts_of(client, upload.id, LINE)
    with gateway.database.session() as session:
        session.execute(update(UploadRow).values(expires_at=1))
    for call in (lambda: parts_of(client, upload.id, LINE), lambda: client.uploads.complete(upload.id, part_ids=ids)):
        with pytest.raises(openai.ConflictError, match="expired"):
            call()
    client.files.create(file=("a.jsonl", LINE), purpose="fine-tune")  # wakes the sweep
    eventually(lambda: ids[0] not in [path.name for path in on_disk(gateway)])
    with gateway.database.session() as session:
        assert session.scalars(select(UploadRow.status)).all() == ["expired"]
    eventually(lambda: part_rows(gateway) == [])


@pytest.mark.both_databases
def test_a_restart_keeps_pending_parts_and_completes_them(start_gateway: StartGateway) -> None:
    first = start_gateway()
    upload = create(sdk(first), 2 * len(LINE))
    ids = parts_of(sdk(first), upload.id, LINE)
    second = start_gateway()
    ids += parts_of(sdk(second), upload.id, LINE)
    assert sdk(second).uploads.complete(upload.id, part_ids=ids).status == "completed"


def test_the_finished_file_expires_as_asked_for(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, len(LINE), expires_after={"anchor": "created_at", "seconds": 7200})
    file = client.uploads.complete(upload.id, part_ids=parts_of(client, upload.id, LINE)).file
    assert file is not None
    assert file.expires_at == file.created_at + 7200


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": 9 * 2**30}, "bytes"),
        ({"bytes": "9"}, "bytes"),
        ({"purpose": "evals"}, "purpose"),
        ({"filename": "a.csv"}, "filename"),
        ({"filename": ""}, "filename"),
        ({"mime_type": "a\nb"}, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
    ],
)
def test_a_wrong_announcement_is_a_400_that_names_the_field(
    shared_gateway: Gateway, changes: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(sdk(shared_gateway), 10, **changes)
    assert caught.value.param == param


def test_parts_have_a_limit_each_and_together(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, 10)
    with pytest.raises(openai.APIStatusError) as too_large:
        parts_of(client, upload.id, b"x" * (MAX_PART_BYTES + 1))
    assert (too_large.value.status_code, too_large.value.param) == (413, "data")
    parts_of(client, upload.id, b"x" * MAX_PART_BYTES)
    with pytest.raises(openai.BadRequestError) as together:
        parts_of(client, upload.id, b"x" * 21)
    assert together.value.code == "too_many_bytes"


def test_an_unknown_upload_is_a_404(shared_gateway: Gateway) -> None:
    client = sdk(shared_gateway)
    for call in (
        lambda: parts_of(client, "upload_none", b"x"),
        lambda: client.uploads.complete("upload_none", part_ids=["part_x"]),
        lambda: client.uploads.cancel("upload_none"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == "upload_not_found"


def test_a_file_row_is_never_without_its_content(gateway: Gateway) -> None:
    client = sdk(gateway)
    upload = create(client, len(LINE))
    client.uploads.complete(upload.id, part_ids=parts_of(client, upload.id, LINE))
    with gateway.database.session() as session:
        [row] = session.scalars(select(FileRow)).all()
    assert gateway.services.files.path(row.id).read_bytes() == LINE
    assert row.sha256 == hashlib.sha256(LINE).hexdigest()
