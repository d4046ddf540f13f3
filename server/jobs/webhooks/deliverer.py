"""Sends what is in the outbox, signed, with growing pauses between attempts.

What is to be sent, and when, is in the database alone: after a crash the next server goes on. So an event comes at
least once, and its id tells a receiver what it has had. Events of one endpoint may overtake one another.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from server.jobs.webhooks.sender import TIMEOUT_S, Sender, UnreachableError
from server.storage.database import Database
from server.storage.tables import WebhookDeliveryRow, WebhookEndpointRow, now_s
from server.wire.background import BackgroundLoop

log = logging.getLogger(__name__)

PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200, 43200, 57600, 57600)
"""Between one attempt and the next; together 72 hours, which is how long OpenAI tries."""
JITTER = 0.1
"""Each pause is up to this share longer or shorter: what failed together is not sent again together."""
PER_ENDPOINT = 4
"""Deliveries under way to one endpoint: a slow one holds up nothing but what is meant for itself."""
POLL_S = 1.0
"""The outbox is looked into this often, for what came without a `wake` and what is due again."""
DATABASE_PAUSE_S = 5.0
KEPT_S = 30 * 24 * 3600
"""Deliveries that are over are kept this long, for whoever looks into the table."""

Due = tuple[WebhookDeliveryRow, WebhookEndpointRow]


class Deliverer:
    """Works through the outbox beside everything else; nothing waits for it."""

    def __init__(
        self, database: Database, *, pauses_s: Sequence[float] = PAUSES_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        """timeout_s: for one attempt, from connecting to the end of the answer's head."""
        self._database = database
        self._pauses_s, self._timeout_s = tuple(pauses_s), timeout_s
        self._unwritten: Counter[str] = Counter()
        """Attempts by delivery that the database couldn't be told of."""
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._endpoint_of: dict[str, str] = {}
        self._working = BackgroundLoop(
            self._work, "Webhooks can't be sent now", pause_s=POLL_S, failure_pause_s=DATABASE_PAUSE_S
        )
        self._forgotten_at = float("-inf")
        self._sender: Sender | None = None

    async def start(self) -> None:
        """Begins to send, what an earlier server left first."""
        self._sender = Sender(self._timeout_s)
        self._working.start()

    async def stop(self) -> None:
        """Returns when nothing is being sent; what isn't delivered stays in the outbox."""
        await self._working.stop()
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sender is not None:
            await self._sender.close()

    def wake(self) -> None:
        """Says that there may be something to send. From any thread."""
        self._working.wake()

    async def send_sample(self, endpoint: WebhookEndpointRow, event_id: str, payload: str) -> int:
        """The status of the endpoint's answer to an event that is sent now, once, past the outbox.

        Raises:
            UnreachableError: there was no answer in time.
        """
        assert self._sender is not None, "The deliverer was not started."  # noqa: S101 (a mistake of ours alone)
        return await self._sender.send(endpoint, event_id, payload)

    async def _work(self) -> None:
        if time.monotonic() - self._forgotten_at > 3600:
            await self._database.run(_forget_old)
            self._forgotten_at = time.monotonic()
        await self._begin_due()

    async def _begin_due(self) -> None:
        busy, under_way = Counter(self._endpoint_of.values()), frozenset(self._under_way)
        for delivery, endpoint in await self._database.run(lambda session: _due(session, busy, under_way)):
            self._endpoint_of[delivery.id] = endpoint.id
            self._under_way[delivery.id] = asyncio.create_task(self._deliver(delivery, endpoint))

    async def _deliver(self, delivery: WebhookDeliveryRow, endpoint: WebhookEndpointRow) -> None:
        try:
            status, result = await self._attempt(delivery, endpoint)
            pause_s = self._pause_after(delivery.attempts + 1)
            if status == "pending" and pause_s is None:
                status = "given_up"
                log.warning("webhook %s to %s is given up: %s", delivery.event_id, endpoint.id, result)
            await self._database.run(lambda session: _write_down(session, delivery.id, status, result, pause_s or 0))
            del self._unwritten[delivery.id]  # a Counter doesn't mind where there is none
        except SQLAlchemyError as error:  # still pending, so it is sent again: twice is better than never
            log.warning("webhook %s to %s was tried and not written down: %s", delivery.event_id, endpoint.id, error)
            # The row still says that it is due, so what the schedule says is kept here.
            self._unwritten[delivery.id] += 1
            attempts = delivery.attempts + self._unwritten[delivery.id]
            await asyncio.sleep(self._pause_after(attempts) or max(self._pauses_s, default=DATABASE_PAUSE_S))
        finally:
            del self._under_way[delivery.id], self._endpoint_of[delivery.id]
            self._working.wake()

    async def _attempt(self, delivery: WebhookDeliveryRow, endpoint: WebhookEndpointRow) -> tuple[str, str]:
        """What became of the delivery, and the endpoint's answer in a word."""
        try:
            code = await self.send_sample(endpoint, delivery.event_id, delivery.payload)
        except UnreachableError as error:
            return "pending", str(error)
        except Exception:
            log.exception("webhook %s to %s could not be sent", delivery.event_id, endpoint.id)
            return "pending", "failed before it was sent; the server's log tells why"
        if 200 <= code < 300:
            return "delivered", str(code)
        # 410 Gone: whoever is there says that nobody wants this any more.
        return "given_up" if code == 410 else "pending", str(code)

    def _pause_after(self, attempts: int) -> float | None:
        """Seconds until the next attempt; None when that was the last."""
        if attempts > len(self._pauses_s):
            return None
        return self._pauses_s[attempts - 1] * random.uniform(1 - JITTER, 1 + JITTER)


def _due(session: Session, busy: Counter[str], under_way: frozenset[str]) -> list[Due]:
    """What is to be sent now, for each endpoint as much as it may have at once."""
    due: list[Due] = []
    waiting = (WebhookDeliveryRow.status == "pending", WebhookDeliveryRow.next_attempt_at <= now_s())
    for endpoint_id in session.scalars(select(WebhookDeliveryRow.endpoint_id).where(*waiting).distinct()).all():
        endpoint = session.scalar(select(WebhookEndpointRow).where(WebhookEndpointRow.id == endpoint_id))
        if endpoint is None:  # deleted in the moment in which the event was written
            session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint_id == endpoint_id))
            continue
        query = (
            select(WebhookDeliveryRow)
            .where(*waiting, WebhookDeliveryRow.endpoint_id == endpoint_id, WebhookDeliveryRow.id.not_in(under_way))
            .order_by(WebhookDeliveryRow.next_attempt_at, WebhookDeliveryRow.created_at)
            .limit(max(0, PER_ENDPOINT - busy[endpoint_id]))
        )
        due += [(delivery, endpoint) for delivery in session.scalars(query)]
    return due


def _write_down(session: Session, delivery_id: str, status: str, result: str, pause_s: float) -> None:
    # The row may be gone: its endpoint was deleted while this was under way.
    session.execute(
        update(WebhookDeliveryRow)
        .where(WebhookDeliveryRow.id == delivery_id, WebhookDeliveryRow.status == "pending")
        .values(
            status=status,
            attempts=WebhookDeliveryRow.attempts + 1,
            next_attempt_at=int(time.time() + pause_s),
            finished_at=None if status == "pending" else now_s(),
            last_result=result,
        )
    )


def _forget_old(session: Session) -> None:
    session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.finished_at < now_s() - KEPT_S))
