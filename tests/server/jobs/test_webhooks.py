"""Webhooks: endpoints through the official SDK, and deliveries to a real receiver that misbehaves in every way."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.webhooks.unwrap_webhook_event import UnwrapWebhookEvent
from sqlalchemy import select

from server.access.keys import create_key
from server.jobs.webhooks import outbox
from server.jobs.webhooks.deliverer import PER_ENDPOINT
from server.storage.tables import WebhookDeliveryRow, WebhookEndpointRow
from tests.conftest import free_port
from tests.server.conftest import Gateway, StartGateway
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.both_databases

SUCCEEDED = "fine_tuning.job.succeeded"
QUICK = {"pauses_s": (0, 0, 0, 0, 0), "timeout_s": 2}


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    receivers: list[Receiver] = []

    def start(*arguments: Any, **keywords: Any) -> Receiver:
        receivers.append(Receiver(*arguments, **keywords))
        return receivers[-1]

    yield start
    for receiver in receivers:
        receiver.close()


@pytest.fixture
def quick(start_gateway: StartGateway) -> Gateway:
    """A gateway that tries again at once, five times."""
    return start_gateway(webhooks=QUICK)


def client_of(gateway: Gateway, key: str = "none") -> openai.OpenAI:
    """The official SDK, which here refuses an answer that isn't exactly of the type that it announces."""
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, _strict_response_validation=True)


def endpoint(gateway: Gateway, url: str) -> Any:
    return client_of(gateway).webhooks.create(name="tests", url=url, event_types=[SUCCEEDED])


def happen(gateway: Gateway, job_id: str = "ftjob-1", event_type: str = SUCCEEDED) -> None:
    """What the end of a job does."""
    with gateway.database.session() as session:
        outbox.enqueue(session, event_type, job_id)
    gateway.services.webhooks.wake()


def delivery(gateway: Gateway, *, over: bool = True) -> WebhookDeliveryRow:
    """The one delivery, when it is over."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with gateway.database.session() as session:
            row = session.scalars(select(WebhookDeliveryRow)).one()
        if not over or row.status != "pending":
            return row
        time.sleep(0.05)
    raise AssertionError(f"still {row.status} after {row.attempts} attempts: {row.last_result}")


def unwrap(gateway: Gateway, sent: tuple[dict[str, str], bytes], secret: str) -> UnwrapWebhookEvent:
    headers, body = sent
    return client_of(gateway).webhooks.unwrap(body, headers, secret=secret)


def test_event_of_a_job_comes_signed_and_the_sdk_unwraps_it(quick: Gateway, receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    made = endpoint(quick, receiver.url)
    happen(quick, "ftjob-abc")
    headers, body = receiver.wait_for(1)[0]
    event = unwrap(quick, (headers, body), made.signing_secret)
    assert (event.type, event.data.id, event.object) == (SUCCEEDED, "ftjob-abc", "event")
    assert event.id == headers["webhook-id"]
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("tuneloop")
    assert delivery(quick).status == "delivered"
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrap(quick, (headers, body + b" "), made.signing_secret)


def test_endpoint_hears_only_what_it_asked_for(quick: Gateway, receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    made = endpoint(quick, receiver.url)
    happen(quick, "ftjob-1", "fine_tuning.job.failed")
    happen(quick, "ftjob-2")
    assert unwrap(quick, receiver.wait_for(1)[0], made.signing_secret).data.id == "ftjob-2"
    delivery(quick)  # there is exactly one


@pytest.mark.parametrize("fault", [500, 404, 302, 429, 0])
def test_what_is_not_taken_is_sent_again_under_the_same_id(
    start_gateway: StartGateway, receive: Callable[..., Receiver], fault: int
) -> None:
    gateway = start_gateway(webhooks={**QUICK, "timeout_s": 0.3})
    receiver = receive(lambda n: fault if n < 3 else 204)
    endpoint(gateway, receiver.url)
    happen(gateway)
    sent = receiver.wait_for(3)
    assert len({headers["webhook-id"] for headers, _ in sent}) == 1  # a followed redirect would be a GET without one
    assert len({body for _, body in sent}) == 1
    row = delivery(gateway)
    assert (row.status, row.attempts, row.last_result) == ("delivered", 3, "204")


def test_after_the_last_pause_it_is_given_up(quick: Gateway, receive: Callable[..., Receiver]) -> None:
    receiver = receive(lambda _n: 500)
    endpoint(quick, receiver.url)
    happen(quick)
    row = delivery(quick)
    assert (row.status, row.attempts, row.last_result) == ("given_up", 6, "500")
    assert len(receiver.received) == 6


def test_410_gone_is_not_asked_again(quick: Gateway, receive: Callable[..., Receiver]) -> None:
    receiver = receive(lambda _n: 410)
    endpoint(quick, receiver.url)
    happen(quick)
    row = delivery(quick)
    assert (row.status, row.attempts) == ("given_up", 1)


def test_endpoint_that_was_down_gets_its_event_when_it_is_back(
    start_gateway: StartGateway, receive: Callable[..., Receiver]
) -> None:
    gateway, port = start_gateway(webhooks={"pauses_s": [0.5] * 50}), free_port()
    made = endpoint(gateway, f"http://127.0.0.1:{port}/hook")
    happen(gateway)
    while delivery(gateway, over=False).attempts == 0:
        time.sleep(0.05)
    assert "Cannot connect" in str(delivery(gateway, over=False).last_result)
    receiver = receive(port=port)
    assert unwrap(gateway, receiver.wait_for(1)[0], made.signing_secret).data.id == "ftjob-1"


def test_endpoint_that_hangs_holds_up_no_other(start_gateway: StartGateway, receive: Callable[..., Receiver]) -> None:
    gateway = start_gateway(webhooks=QUICK | {"timeout_s": 600})  # nothing times out while this test looks
    hanging, fine = receive(lambda _n: 0), receive()
    endpoint(gateway, hanging.url)
    endpoint(gateway, fine.url)
    for number in range(20):
        happen(gateway, f"ftjob-{number}")
    assert len(fine.wait_for(20)) == 20
    assert len(hanging.wait_for(PER_ENDPOINT)) == PER_ENDPOINT
    assert len(hanging.received) == PER_ENDPOINT  # the others wait for one of these to end


def test_what_a_stopped_server_left_is_sent_by_the_next(
    start_gateway: StartGateway, receive: Callable[..., Receiver]
) -> None:
    first, port = start_gateway(webhooks={"pauses_s": [1.0] * 50}), free_port()
    made = endpoint(first, f"http://127.0.0.1:{port}/hook")
    with first.database.session() as session:
        outbox.enqueue(session, SUCCEEDED, "ftjob-kept")
    first.stop()
    receiver = receive(port=port)
    second = start_gateway(webhooks=QUICK)
    assert unwrap(second, receiver.wait_for(1)[0], made.signing_secret).data.id == "ftjob-kept"


DELIVER = """
import asyncio, sys
from server.storage.database import Database
from server.jobs.webhooks.deliverer import Deliverer
async def deliver():
    deliverer = Deliverer(Database(sys.argv[1]))
    await deliverer.start()
    await asyncio.sleep(60)
asyncio.run(deliver())
"""


def test_killed_in_the_middle_of_a_delivery_it_is_sent_again_under_the_same_id(
    start_gateway: StartGateway, receive: Callable[..., Receiver]
) -> None:
    gateway = start_gateway()
    receiver = receive(lambda n: 0 if n == 1 else 200)
    endpoint(gateway, receiver.url)
    gateway.stop()
    with gateway.database.session() as session:
        outbox.enqueue(session, SUCCEEDED, "ftjob-1")
    killed = subprocess.Popen([sys.executable, "-c", DELIVER, gateway.services.settings.resolved_database_url])
    receiver.wait_for(1)
    killed.kill()
    killed.wait()
    again = start_gateway(webhooks=QUICK)
    sent = receiver.wait_for(2)
    assert sent[0][0]["webhook-id"] == sent[1][0]["webhook-id"]
    assert delivery(again).status == "delivered"


def test_event_is_written_with_what_it_tells_of_or_not_at_all(quick: Gateway) -> None:
    endpoint(quick, "https://example.com/hook")
    with quick.database.session() as session:
        outbox.enqueue(session, SUCCEEDED, "ftjob-1")
        session.flush()
        session.rollback()
    with quick.database.session() as session:
        assert not session.scalars(select(WebhookDeliveryRow)).all()


def test_deleted_endpoint_gets_nothing_any_more(start_gateway: StartGateway) -> None:
    gateway = start_gateway(webhooks={"pauses_s": [1000.0]})
    made = endpoint(gateway, f"http://127.0.0.1:{free_port()}/hook")
    happen(gateway)
    deleted = client_of(gateway).webhooks.delete(made.id)
    assert deleted.deleted
    with gateway.database.session() as session:
        assert not session.scalars(select(WebhookDeliveryRow)).all()
    with pytest.raises(openai.NotFoundError):
        client_of(gateway).webhooks.retrieve(made.id)


def test_sdk_creates_lists_changes_and_retrieves_endpoints(quick: Gateway) -> None:
    webhooks = client_of(quick).webhooks
    assert set(webhooks.event_types.list().data) == set(outbox.EVENT_TYPES)
    made = [
        webhooks.create(name=f"n{number}", url="https://example.com/h", event_types=[SUCCEEDED]) for number in range(3)
    ]
    assert [row.id for row in webhooks.list(limit=2)] == [row.id for row in reversed(made)]  # two pages
    changed = webhooks.update(made[0].id, name="other", event_types=["fine_tuning.job.failed"])
    assert (changed.name, changed.event_types, changed.url) == ("other", ["fine_tuning.job.failed"], made[0].url)
    assert webhooks.retrieve(made[0].id) == changed


def test_secret_is_shown_once(quick: Gateway) -> None:
    made = endpoint(quick, "https://example.com/h")
    assert made.signing_secret.startswith("whsec_")
    for path in ("/v1/webhook_endpoints", f"/v1/webhook_endpoints/{made.id}"):
        assert made.signing_secret not in quick.http.get(path).text
    hint = client_of(quick).webhooks.retrieve(made.id).signing_secret_hint
    assert hint
    assert made.signing_secret.endswith(hint[-4:])


def test_rotated_secret_signs_alone_or_beside_the_old_one(quick: Gateway, receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    first = endpoint(quick, receiver.url)
    webhooks = client_of(quick).webhooks
    second = webhooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
    webhooks.test(first.id, event_type=SUCCEEDED)
    for secret in (first.signing_secret, second.signing_secret):
        assert unwrap(quick, receiver.received[0], secret).type == SUCCEEDED
    third = webhooks.rotate_secret(first.id)
    webhooks.test(first.id, event_type=SUCCEEDED)
    assert unwrap(quick, receiver.received[1], third.signing_secret).type == SUCCEEDED
    for secret in (first.signing_secret, second.signing_secret):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            unwrap(quick, receiver.received[1], secret)


def test_old_secret_ends_after_its_day(quick: Gateway, receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    first = endpoint(quick, receiver.url)
    webhooks = client_of(quick).webhooks
    webhooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
    with quick.database.session() as session:
        row = session.scalars(select(WebhookEndpointRow)).one()
        assert 86000 < (row.old_secret_until or 0) - time.time() <= 86400
        row.old_secret_until = int(time.time()) - 1
    webhooks.test(first.id, event_type=SUCCEEDED)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrap(quick, receiver.received[0], first.signing_secret)


def test_test_tells_the_status_and_that_nobody_answers(quick: Gateway, receive: Callable[..., Receiver]) -> None:
    webhooks, made = client_of(quick).webhooks, endpoint(quick, receive(lambda _n: 503).url)
    result = webhooks.test(made.id, event_type="fine_tuning.job.cancelled")
    assert (result.status_code, result.event_type) == (503, "fine_tuning.job.cancelled")
    assert webhooks.retrieve(made.id).updated_at == made.updated_at
    nobody = endpoint(quick, f"http://127.0.0.1:{free_port()}/hook")
    with pytest.raises(openai.BadRequestError) as refused:
        webhooks.test(nobody.id, event_type=SUCCEEDED)
    assert refused.value.code == "webhook_endpoint_unreachable"


BAD = (
    ({"url": "http://example.com/hook"}, "url"),
    ({"url": "http://127.0.0.1.example.com/"}, "url"),
    ({"url": "ftp://127.0.0.1/"}, "url"),
    ({"url": "https://me:secret@example.com/"}, "url"),
    ({"url": "https://[/"}, "url"),
    ({"url": "https://example.com:99999/"}, "url"),
    ({"url": "https://"}, "url"),
    ({"url": "https://example.com/\r\nx: y"}, "url"),
    ({"url": "https://example.com/" + "x" * 3000}, "url"),
    ({"event_types": ["batch.completed"]}, "event_types"),
    ({"event_types": []}, "event_types"),
    ({"name": ""}, "name"),
    ({"name": "a\x00b"}, "name"),
    ({"secret": "mine"}, "secret"),
)


def test_bad_endpoint_is_400_with_its_param(quick: Gateway) -> None:
    for change, param in BAD:
        body = {"name": "x", "url": "https://example.com/hook", "event_types": [SUCCEEDED]} | change
        response = quick.http.post("/v1/webhook_endpoints", json=body)
        assert response.status_code == 400, change
        assert quick.error(response)["param"] == param
    assert quick.http.get("/v1/webhook_endpoints").json()["data"] == []


def test_unknown_endpoint_is_an_error_of_the_client(quick: Gateway) -> None:
    for path, (method, ending) in itertools.product(
        ("nothing", "a%00b", "%ff"),
        (("GET", ""), ("POST", ""), ("DELETE", ""), ("POST", "/rotate_secret"), ("POST", "/test")),
    ):
        body = {"event_type": SUCCEEDED} if ending == "/test" else {}
        response = quick.http.request(method, f"/v1/webhook_endpoints/{path}{ending}", json=body)
        assert response.status_code in (400, 404), response.text
        quick.error(response)


def test_only_an_admin_sets_up_webhooks(quick: Gateway) -> None:
    with quick.database.session() as session:
        _, admin = create_key(session, "first")
        _, other = create_key(session, "second")
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client_of(quick, other).webhooks.list()
    assert refused.value.code == "admin_key_required"
    assert client_of(quick, admin).webhooks.list().data == []


def test_two_rotations_at_once_both_end_well(quick: Gateway) -> None:
    made = endpoint(quick, "https://example.com/h")
    webhooks = client_of(quick).webhooks
    with ThreadPoolExecutor(8) as pool:
        rotated = list(pool.map(lambda _: webhooks.rotate_secret(made.id), range(16)))
    assert len({answer.signing_secret for answer in rotated}) == 16


def test_receiver_of_the_docs_takes_what_is_signed_and_prints_it(quick: Gateway) -> None:
    page = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (program,) = [block for block in page.split("```python\n") if block.startswith("from http.server")]
    port = free_port()
    made = endpoint(quick, f"http://127.0.0.1:{port}/")
    with subprocess.Popen(
        [sys.executable, "-c", program.split("```")[0].replace("9000", str(port))],
        env={**os.environ, "OPENAI_WEBHOOK_SECRET": made.signing_secret},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as receiver:
        try:
            assert _test_until_it_runs(quick, made.id) == 200
            assert receiver.stdout
            assert receiver.stdout.readline() == "fine_tuning.job.succeeded ftjob-000000000000000000000000\n"
        finally:
            receiver.kill()


def _test_until_it_runs(gateway: Gateway, endpoint_id: str) -> int:
    for _ in range(200):
        try:
            return client_of(gateway).webhooks.test(endpoint_id, event_type=SUCCEEDED).status_code
        except openai.BadRequestError:
            time.sleep(0.1)
    raise AssertionError("the receiver does not start")
