"""Every endpoint with good and bad input, through the official SDK: the type, or the exception, code and param.

python -m tests.integration.test_api_conformance     # prints the table for docs/openai-api.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai._base_client import BasePage

from server.app.http import ROUTERS
from tests.conftest import Tuneloop
from tests.integration.api_table import ROWS, Row, markdown
from tests.integration.api_world import World, chats, jsonl

PAGE = Path(__file__).parents[2] / "docs" / "openai-api.md"
CLASSES: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
}
FAMILIES = ("/v1/files", "/v1/uploads", "/v1/fine_tuning", "/v1/webhook", "/v1/models")
OURS = {
    "POST /v1/files/{file_id}/report",
    "GET /v1/files/{file_id}/examples",
    "POST /v1/files/{file_id}/clean",
    "POST /v1/fine_tuning/preflight",
    "GET /v1/models/{model}/lineage",
}
"""Among OpenAI's families, but not of its API: tests/server has test_file_reports, test_preflight and test_lineage."""


class Answers:
    """The responses of a client, the newest last."""

    def __init__(self) -> None:
        self.seen: list[Any] = []


@pytest.fixture(scope="module")
def answers() -> Answers:
    """What came back over the wire."""
    return Answers()


@pytest.fixture(scope="module")
def world(tuneloop: Tuneloop, answers: Answers) -> Iterator[World]:
    """Files and jobs on the shared server, asked for by a strict client that never repeats a request by itself."""
    http = openai.DefaultHttpxClient(event_hooks={"response": [answers.seen.append]})
    with openai.OpenAI(
        base_url=f"{tuneloop.url}/v1",
        api_key="unused",
        max_retries=0,
        http_client=http,
        _strict_response_validation=True,
    ) as client:
        yield World(client, tuneloop.base_model)


@pytest.mark.engine
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_answer_is_as_in_the_table(world: World, answers: Answers, row: Row) -> None:
    if row.status == 200:
        assert type_name(row.call(world)) == row.answer
    else:
        with pytest.raises(CLASSES.get(row.status, openai.APIStatusError)) as caught:
            row.call(world)
        error = caught.value
        assert (error.status_code, error.code, error.param) == (row.status, row.answer, row.param), error.message
        assert isinstance(error.body, dict)
        assert set(error.body) == {"message", "type", "param", "code"}
        assert error.body["type"] == "invalid_request_error"
        assert error.request_id
    assert all(answer.headers["x-request-id"] for answer in answers.seen)
    if row.status == 409:
        assert answers.seen[-1].headers["x-should-retry"] == "false"


def type_name(answer: Any) -> str:
    """The name of the SDK's type, with that of its items where it is a page that has some."""
    if isinstance(answer, BasePage):
        (item,) = {type(item).__name__ for item in answer._get_page_items()}
        return f"{type(answer).__name__.split('[')[0]}[{item}]"
    return type(answer).__name__


BAD_LINE = jsonl([{"messages": [{"role": "wizard", "content": "hi"}]}])
REFUSE_LEAKAGE = {"extra_body": {"tuneloop": {"on_leakage": "refuse"}}}
PREFERENCE = {"method": {"type": "dpo"}}


@pytest.mark.engine
@pytest.mark.parametrize(
    ("training", "validation", "changes", "code", "param", "words"),
    [
        (chats(10) + BAD_LINE, None, {}, "invalid_training_file", "training_file", "line 11"),
        (chats(12), None, PREFERENCE, "invalid_training_file", "training_file", "line 1"),
        (chats(3), None, {}, "invalid_n_examples", "training_file", "3 example(s), but must have at least 10"),
        (chats(12), BAD_LINE, {}, "invalid_validation_file", "validation_file", "line 1"),
        (chats(12), chats(2), REFUSE_LEAKAGE, "invalid_validation_file", "validation_file", "line 1"),
    ],
    ids=["a faulty line", "the wrong kind", "too few", "a faulty line to measure on", "the same in both files"],
)
def test_job_on_bad_files_fails_with_code_and_param(
    world: World, training: bytes, validation: bytes | None, changes: Any, code: str, param: str, words: str
) -> None:
    files = {"training_file": world.upload_checked(training)}
    if validation:
        files["validation_file"] = world.upload_checked(validation)
    job = world.ended(world.create(**files, **changes))
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == (code, param)
    assert words in job.error.message
    assert (job.fine_tuned_model, job.result_files) == (None, [])
    newest = next(iter(world.client.fine_tuning.jobs.list_events(job.id)))
    assert (newest.level, newest.message) == ("error", job.error.message)


@pytest.mark.engine
def test_more_than_300_files_are_paged_through_once_each(world: World) -> None:
    made = [world.upload(json.dumps({"n": n}).encode(), f"{n}.txt", "user_data").id for n in range(301)]
    assert [file.id for file in world.client.files.list(purpose="user_data", limit=50)] == made[::-1]


def test_every_endpoint_is_called() -> None:
    called = {row.endpoint for row in ROWS}
    offered = {
        f"{method} {route.path.replace(':path', '')}"
        for router in ROUTERS
        for route in router.routes
        if route.path.startswith(FAMILIES)
        for method in route.methods
    }
    assert offered - called == OURS


def test_docs_show_this_table() -> None:
    assert markdown() in PAGE.read_text(encoding="utf-8")


if __name__ == "__main__":
    print(markdown(), end="")
