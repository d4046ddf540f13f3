"""Jobs that are created right after their upload: they wait for the check of their files, and go on or fail with it.

The check of files is held by a gate; a training is a process that sleeps.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from sqlalchemy import select, update

from server.files.check import COMMAND
from server.storage.tables import FileRow, WebhookDeliveryRow
from tests.server.conftest import Gateway, StartGateway
from tests.server.files.test_files import eventually
from tests.server.jobs.test_fine_tuning_api import JOBS, client_of

GOOD = b"".join(
    b'{"messages": [{"role": "user", "content": "q%d"}, {"role": "assistant", "content": "a%d"}]}\n' % (n, n)
    for n in range(12)
)
BAD = GOOD + b'{"messages": []}\n' + GOOD + b'{"no": "messages"}\n'
SLEEPING = (sys.executable, "-c", "import time; time.sleep(600)")
WAIT_UNTIL = 'while [ ! -e "$1" ]; do sleep 0.02; done; shift; exec "$@"'

Start = Callable[[], Gateway]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file is checked only once this exists."""
    return tmp_path / "checks-may-go-on"


@pytest.fixture
def start(start_gateway: StartGateway, gate: Path) -> Start:
    """Starts a server whose checks of files wait for the gate. Those that jobs do themselves don't."""

    def started() -> Gateway:
        gateway = start_gateway(training=SLEEPING, max_running_jobs=20)
        gateway.services.files._check_command = ("sh", "-c", WAIT_UNTIL, "sh", str(gate), *COMMAND)
        return gateway

    return started


def upload(gateway: Gateway, content: bytes = GOOD) -> str:
    return client_of(gateway).files.create(file=("a.jsonl", content), purpose="fine-tune").id


def upload_checked(gateway: Gateway, content: bytes = GOOD) -> str:
    """The id of a file that counts as checked."""
    file_id = upload(gateway, content)
    change_file(gateway, file_id, status="processed")
    return file_id


def change_file(gateway: Gateway, file_id: str, **values: Any) -> None:
    with gateway.database.session() as session:
        session.execute(update(FileRow).where(FileRow.id == file_id).values(**values))


def create(gateway: Gateway, training_file: str, *, headers: dict[str, str] | None = None, **body: Any) -> str:
    """The id of the new job, which waits."""
    asked = {"model": "base", "training_file": training_file, **body}
    answer = gateway.http.post(JOBS, json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "validating_files"
    return str(answer.json()["id"])


def job(gateway: Gateway, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = gateway.http.get(f"{JOBS}/{job_id}").json()
    return found


def wait(gateway: Gateway, job_id: str, status: str) -> dict[str, Any]:
    """The job once it has this status."""
    found: dict[str, Any] = eventually(lambda: one if (one := job(gateway, job_id))["status"] == status else None)
    return found


def messages(gateway: Gateway, job_id: str) -> list[str]:
    return [event.message for event in client_of(gateway).fine_tuning.jobs.list_events(job_id)][::-1]


@pytest.mark.both_databases
def test_a_job_waits_for_the_check_of_each_file_that_it_names_and_holds_up_nobody(start: Start, gate: Path) -> None:
    gateway = start()
    ready, new = upload_checked(gateway), upload(gateway)
    waiting = [
        create(gateway, new),
        create(gateway, ready, validation_file=new),
        create(gateway, ready, tuneloop={"mix_file": new}),
    ]
    behind = create(gateway, ready)
    wait(gateway, behind, "running")
    for job_id in waiting:
        shown = job(gateway, job_id)
        assert (shown["status"], shown["error"], shown["finished_at"]) == ("validating_files", None, None)
        assert messages(gateway, job_id)[-1] == f"Waiting for {new} to be checked"
    assert not any(text.startswith("Waiting") for text in messages(gateway, behind))
    gate.touch()
    for job_id in waiting:
        wait(gateway, job_id, "running")
        assert messages(gateway, job_id)[2:] == [
            f"Waiting for {new} to be checked",
            "Files validated, moving job to queued state",
            "Fine-tuning job started",
        ]


@pytest.mark.parametrize("place", ["training", "validation"])
def test_a_job_fails_with_every_fault_of_the_file_that_it_waited_for(start: Start, gate: Path, place: str) -> None:
    gateway = start()
    gateway.http.post(
        "/v1/webhook_endpoints",
        json={"name": "n", "url": "https://example.com/hook", "event_types": ["fine_tuning.job.failed"]},
    )
    good, bad = upload(gateway), upload(gateway, BAD)
    job_id = create(gateway, bad) if place == "training" else create(gateway, good, validation_file=bad)
    assert job(gateway, job_id)["status"] == "validating_files"
    gate.touch()
    failed = wait(gateway, job_id, "failed")
    error = failed["error"]
    assert (error["code"], error["param"]) == (f"invalid_{place}_file", f"{place}_file")
    assert "2 error(s)" in error["message"]
    assert "line 13: " in error["message"]
    assert "line 26: " in error["message"]
    assert (failed["fine_tuned_model"], failed["finished_at"] is None) == (None, False)
    [last] = client_of(gateway).fine_tuning.jobs.list_events(job_id, limit=1).data
    assert (last.level, last.message) == ("error", error["message"])
    with gateway.database.session() as session:
        told = [(row.event_type, json.loads(row.payload)) for row in session.scalars(select(WebhookDeliveryRow))]
    assert [(kind, payload["data"]["id"]) for kind, payload in told] == [("fine_tuning.job.failed", job_id)]


def test_jobs_and_checks_that_a_server_left_waiting_go_on_at_the_next(start: Start, gate: Path) -> None:
    first = start()
    good, bad = create(first, upload(first)), create(first, upload(first, BAD))
    first.stop()
    second = start()
    assert {job(second, job_id)["status"] for job_id in (good, bad)} == {"validating_files"}
    gate.touch()
    wait(second, good, "running")
    assert wait(second, bad, "failed")["error"]["code"] == "invalid_training_file"
    assert messages(second, good).count(f"Waiting for {job(second, good)['training_file']} to be checked") == 1


def test_a_waiting_job_can_be_paused_resumed_and_cancelled(start: Start, gate: Path) -> None:
    gateway = start()
    file_id = upload(gateway)
    paused, resumed, cancelled = (create(gateway, file_id) for _ in range(3))
    for job_id, change, state in (
        (paused, "pause", "paused"),
        (resumed, "pause", "paused"),
        (resumed, "resume", "validating_files"),
        (cancelled, "cancel", "cancelled"),
    ):
        assert gateway.http.post(f"{JOBS}/{job_id}/{change}").json()["tuneloop"]["state"] == state
    gate.touch()
    wait(gateway, resumed, "running")
    assert job(gateway, paused)["tuneloop"]["state"] == "paused"
    assert job(gateway, cancelled)["status"] == "cancelled"
    gateway.http.post(f"{JOBS}/{paused}/resume")
    wait(gateway, paused, "running")


@pytest.mark.parametrize("gone", ["deleted", "expired"])
def test_a_file_that_goes_while_its_jobs_wait_is_not_waited_for(start: Start, gone: str) -> None:
    gateway = start()
    files = upload(gateway), upload(gateway, BAD)
    good, bad = (create(gateway, file_id) for file_id in files)
    for file_id in files:
        if gone == "deleted":
            assert client_of(gateway).files.delete(file_id).deleted
        else:
            change_file(gateway, file_id, expires_at=int(time.time()) - 1)
    wait(gateway, good, "running")
    assert "line 13: " in wait(gateway, bad, "failed")["error"]["message"]


@pytest.mark.parametrize("named", [False, True])
def test_a_repeated_request_finds_the_job_that_waits(start: Start, named: bool) -> None:
    gateway = start()
    file_id = upload(gateway)
    first = {"Idempotency-Key": "mine"} if named else {}
    again = first or {"x-stainless-retry-count": "1"}
    job_id = create(gateway, file_id, headers=first)
    assert create(gateway, file_id, headers=again) == job_id
    assert [one.id for one in client_of(gateway).fine_tuning.jobs.list()] == [job_id]


def test_a_check_that_cannot_be_done_leaves_no_job_waiting(start: Start) -> None:
    gateway = start()
    gateway.services.files._check_command = ("false",)
    job_id = create(gateway, upload(gateway))
    wait(gateway, job_id, "running")  # what the job's own look at its copy found is what counts


def test_what_else_is_wrong_with_a_request_is_still_refused_at_once(start: Start) -> None:
    gateway = start()
    file_id = upload(gateway)
    for wrong, param in (
        ({"model": "gpt-none"}, "model"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"validation_file": "file-none"}, "validation_file"),
        ({"validation_file": file_id}, "validation_file"),
        ({"tuneloop": {"max_length": 513}}, "tuneloop.max_length"),
    ):
        answer = gateway.http.post(JOBS, json={"model": "base", "training_file": file_id} | wrong)
        assert (answer.status_code, gateway.error(answer)["param"]) == (400, param)
    assert gateway.http.get(JOBS).json()["data"] == []


def test_a_file_of_parts_and_a_client_that_awaits_find_the_same(start: Start, gate: Path) -> None:
    gateway = start()

    async def created() -> str:
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
            upload = await client.uploads.upload_file_chunked(
                file=GOOD, filename="a.jsonl", bytes=len(GOOD), mime_type="text/jsonl", purpose="fine-tune"
            )
            assert upload.file is not None
            job = await client.fine_tuning.jobs.create(model="base", training_file=upload.file.id)
            assert job.status == "validating_files"
            return job.id

    job_id = asyncio.run(created())
    gate.touch()
    wait(gateway, job_id, "running")
