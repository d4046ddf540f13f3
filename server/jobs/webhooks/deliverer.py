"""Sends the events of the outbox, signed, with growing pauses between attempts.

Only the database has what is to be sent and when, so the next server continues after a crash. Events are delivered at
least once; receivers can recognize duplicates by the id. Events for one endpoint may arrive out of order.
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

from server.jobs.webhooks.sender import TIMEOUT_S, UnreachableError, WebhookSender
from server.storage.database import Database
from server.storage.tables import WebhookDeliveryRow, WebhookEndpointRow, now_s
from server.wire.background import BackgroundLoop

log = logging.getLogger(__name__)

PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200, 43200, 57600, 57600)
"""Pauses between attempts; 72 hours in all, as long as OpenAI retries."""
JITTER = 0.1
"""Pauses vary randomly by up to this share, so that deliveries that failed together aren't retried together."""
PER_ENDPOINT = 4
"""Concurrent deliveries per endpoint, so that a slow one delays only its own."""
POLL_S = 1.0
"""How often the outbox is read, for events without a `wake` and for retries that are due."""
DATABASE_PAUSE_S = 5.0
KEPT_S = 30 * 24 * 3600
"""Finished deliveries stay in the table this long, for debugging."""

Due = tuple[WebhookDeliveryRow, WebhookEndpointRow]


class Deliverer:
    """Delivers the outbox in the background; nothing waits for it."""

    def __init__(
        self, database: Database, *, pauses_s: Sequence[float] = PAUSES_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        """timeout_s: of one attempt, from connecting to the end of the response headers."""
        self._database = database
        self._pauses_s, self._timeout_s = tuple(pauses_s), timeout_s
        self._unrecorded: Counter[str] = Counter()
        """Attempts by delivery that could not be recorded in the database."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._endpoint_of: dict[str, str] = {}
        self._loop = BackgroundLoop(
            self._work, "Can't send webhooks now", pause_s=POLL_S, failure_pause_s=DATABASE_PAUSE_S
        )
        self._old_deleted_at = float("-inf")
        self._sender: WebhookSender | None = None

    async def start(self) -> None:
        """Start sending, beginning with what an earlier server left."""
        self._sender = WebhookSender(self._timeout_s)
        self._loop.start()

    async def stop(self) -> None:
        """Stop sending; undelivered events stay in the outbox."""
        await self._loop.stop()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sender is not None:
            await self._sender.close()

    def wake(self) -> None:
        """Read the outbox now. Callable from any thread."""
        self._loop.wake()

    async def send_sample(self, endpoint: WebhookEndpointRow, event_id: str, payload: str) -> int:
        """Send an event now, once, without the outbox, and return the status of the response.

        Raises:
            UnreachableError: there was no response in time.
        """
        assert self._sender is not None, "The deliverer was not started."  # noqa: S101 (a mistake of ours alone)
        return await self._sender.send(endpoint, event_id, payload)

    async def _work(self) -> None:
        if time.monotonic() - self._old_deleted_at > 3600:
            await self._database.run(_delete_old)
            self._old_deleted_at = time.monotonic()
        await self._start_due()

    async def _start_due(self) -> None:
        busy, active_ids = Counter(self._endpoint_of.values()), frozenset(self._tasks)
        for delivery, endpoint in await self._database.run(lambda session: _find_due(session, busy, active_ids)):
            self._endpoint_of[delivery.id] = endpoint.id
            self._tasks[delivery.id] = asyncio.create_task(self._deliver(delivery, endpoint))

    async def _deliver(self, delivery: WebhookDeliveryRow, endpoint: WebhookEndpointRow) -> None:
        try:
            status, result = await self._attempt(delivery, endpoint)
            pause_s = self._compute_pause_s(delivery.attempts + 1)
            if status == "pending" and pause_s is None:
                status = "given_up"
                log.warning("giving up on webhook %s to %s: %s", delivery.event_id, endpoint.id, result)
            await self._database.run(
                lambda session: _record_attempt(session, delivery.id, status, result, pause_s or 0)
            )
            del self._unrecorded[delivery.id]  # a Counter ignores missing keys
        except SQLAlchemyError as error:  # still pending, so it is sent again: better twice than never
            log.warning("webhook %s to %s was attempted but not recorded: %s", delivery.event_id, endpoint.id, error)
            # The row still says that it is due, so the schedule is kept here.
            self._unrecorded[delivery.id] += 1
            attempts = delivery.attempts + self._unrecorded[delivery.id]
            await asyncio.sleep(self._compute_pause_s(attempts) or max(self._pauses_s, default=DATABASE_PAUSE_S))
        finally:
            del self._tasks[delivery.id], self._endpoint_of[delivery.id]
            self._loop.wake()

    async def _attempt(self, delivery: WebhookDeliveryRow, endpoint: WebhookEndpointRow) -> tuple[str, str]:
        """Attempt the delivery; return its new status and a short result."""
        try:
            code = await self.send_sample(endpoint, delivery.event_id, delivery.payload)
        except UnreachableError as error:
            return "pending", str(error)
        except Exception:
            log.exception("webhook %s to %s could not be sent", delivery.event_id, endpoint.id)
            return "pending", "failed before it was sent; see the server's log"
        if 200 <= code < 300:
            return "delivered", str(code)
        # 410 Gone: the endpoint no longer wants events.
        return "given_up" if code == 410 else "pending", str(code)

    def _compute_pause_s(self, attempts: int) -> float | None:
        """Return the seconds until the next attempt; None after the last."""
        if attempts > len(self._pauses_s):
            return None
        return self._pauses_s[attempts - 1] * random.uniform(1 - JITTER, 1 + JITTER)


def _find_due(session: Session, busy: Counter[str], active_ids: frozenset[str]) -> list[Due]:
    """Return the due deliveries, for each endpoint up to its concurrency limit."""
    due: list[Due] = []
    waiting = (WebhookDeliveryRow.status == "pending", WebhookDeliveryRow.next_attempt_at <= now_s())
    for endpoint_id in session.scalars(select(WebhookDeliveryRow.endpoint_id).where(*waiting).distinct()).all():
        endpoint = session.scalar(select(WebhookEndpointRow).where(WebhookEndpointRow.id == endpoint_id))
        if endpoint is None:  # deleted while the event was being written
            session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint_id == endpoint_id))
            continue
        query = (
            select(WebhookDeliveryRow)
            .where(*waiting, WebhookDeliveryRow.endpoint_id == endpoint_id, WebhookDeliveryRow.id.not_in(active_ids))
            .order_by(WebhookDeliveryRow.next_attempt_at, WebhookDeliveryRow.created_at)
            .limit(max(0, PER_ENDPOINT - busy[endpoint_id]))
        )
        due += [(delivery, endpoint) for delivery in session.scalars(query)]
    return due


def _record_attempt(session: Session, delivery_id: str, status: str, result: str, pause_s: float) -> None:
    # The row may be gone if its endpoint was deleted meanwhile.
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


def _delete_old(session: Session) -> None:
    session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.finished_at < now_s() - KEPT_S))
