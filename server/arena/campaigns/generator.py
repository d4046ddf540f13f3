"""Generates the answers of campaigns in the background, a few at once.

Only the database has what is to be done, so the next server continues after a crash. If an engine is away, the
generator retries with growing pauses and the campaign shows it; a request that the engine rejects fails that one
answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from server.access.checkpoints import list_visible_names
from server.arena.campaigns import answers
from server.arena.campaigns.answers import AnswerTask
from server.arena.comparisons import generate
from server.arena.comparisons.generate import Side
from server.inference.ask import Inference
from server.wire.background import BackgroundLoop
from server.wire.errors import APIError, BadRequest, ServerError

log = logging.getLogger(__name__)

POLL_S = 1.0
"""How often the queue is read, besides wake-ups."""
PAUSES_S = (1, 2, 5, 10, 30, 60)
"""Pauses between attempts while a model doesn't answer; the last one repeats."""
FORGOTTEN_AFTER_S = 600.0
"""A pause that ended this long ago no longer counts."""
MAX_ATTEMPTS = 4
"""For failures that the prompt may cause: a 500, an interrupted answer, a missing model."""
_TEMPORARY = (409, 429, 503)
"""The engine is away, busy, or must be restarted for an adapter: retried without limit."""
_MISSING = 404
_RETRIED = (_MISSING, 500)


@dataclass
class _Pause:
    """A pause in a campaign's requests to one model."""

    until_s: float
    """On the monotonic clock."""
    times: int


class AnswerGenerator:
    """Generates the pending answers of campaigns."""

    def __init__(
        self, inference: Inference, work: asyncio.Event, *, concurrency: int, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        """work: set when there may be answers to generate. concurrency: how many at once."""
        self._inference, self._database, self._concurrency = inference, inference.database, concurrency
        self._pauses_s = tuple(pauses_s)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._pauses: dict[tuple[str, str], _Pause] = {}
        self._loop = BackgroundLoop(
            self._start_pending,
            "Can't look for campaign answers to generate now",
            pause_s=POLL_S,
            failure_pause_s=self._pauses_s[-1],
            awake=work,
        )

    async def start(self) -> None:
        """Start generating, beginning with what an earlier server left."""
        self._loop.start()

    async def stop(self) -> None:
        """Stop generating; unfinished answers stay pending."""
        await self._loop.stop()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_pending(self) -> None:
        free = self._concurrency - len(self._tasks)
        if free > 0:
            active, paused = list(self._tasks), self._list_paused()
            waiting = await self._database.run(
                lambda session: answers.find_pending(session, free, active=active, paused=paused)
            )
            for task in waiting:
                self._tasks[task.number] = asyncio.create_task(self._run_task(task))
        await self._database.run(answers.finish_campaigns)

    def _list_paused(self) -> list[tuple[str, str]]:
        now_s = time.monotonic()
        self._pauses = {key: pause for key, pause in self._pauses.items() if pause.until_s > now_s - FORGOTTEN_AFTER_S}
        return [key for key, pause in self._pauses.items() if pause.until_s > now_s]

    async def _run_task(self, task: AnswerTask) -> None:
        try:
            await self._generate(task)
        except SQLAlchemyError as error:  # still pending, so it is generated again
            log.warning("can't store an answer of %s now: %s", task.campaign_id, error)
            await asyncio.sleep(self._pauses_s[-1])
        finally:
            self._tasks.pop(task.number, None)
            self._loop.wake()

    async def _generate(self, task: AnswerTask) -> None:
        side = Side(task.model, messages=task.messages)
        try:
            async for _event in generate.generate_side(self._inference, task.caller, task.sampling, side):
                pass
            error = side.error
        except (SQLAlchemyError, asyncio.CancelledError):
            raise
        except Exception as fault:  # the engine's response can't be parsed: only this answer fails
            log.exception("an answer of %s failed", task.campaign_id)
            error = ServerError(f"The answer can't be read ({type(fault).__name__}); see the server's log.")
        if error is None:
            await self._store(task, side)
        elif error.status in _TEMPORARY or (error.status in _RETRIED and not await self._has_no_attempts_left(task)):
            await self._pause(task, error)
        elif error.status == _MISSING and task.model not in await list_visible_names(
            self._database, self._inference.registry, task.caller
        ):
            await self._fail_all_pending(task, error)
        else:
            log.warning("campaign %s: %s doesn't answer: %s", task.campaign_id, task.model, error.message)
            await self._database.run(lambda session: answers.store_failure(session, task, error.body()["error"]))

    async def _has_no_attempts_left(self, task: AnswerTask) -> bool:
        return await self._database.run(lambda session: answers.count_attempt(session, task)) >= MAX_ATTEMPTS

    async def _fail_all_pending(self, task: AnswerTask, error: APIError) -> None:
        """Fail all answers of a model that is gone for good: failing them one by one would take hours."""
        log.warning("campaign %s: %s no longer answers: %s", task.campaign_id, task.model, error.message)
        error_body = error.body()["error"]
        await self._database.run(lambda session: answers.fail_all_pending(session, task, error_body))
        await self._clear_wait(task)

    async def _store(self, task: AnswerTask, side: Side) -> None:
        fault = _find_answer_fault(side)
        if fault is None:
            await self._database.run(lambda session: answers.store_answer(session, task, side.to_record()))
        else:
            error_body, content = fault.body()["error"], side.to_record()
            await self._database.run(lambda session: answers.store_failure(session, task, error_body, content))
        await self._clear_wait(task)

    async def _clear_wait(self, task: AnswerTask) -> None:
        """Clear the campaign's note that it waits for this model."""
        was_paused = self._pauses.pop((task.campaign_id, task.model), None)
        others = any(campaign == task.campaign_id for campaign, _ in self._pauses)
        if was_paused and not others:
            await self._database.run(lambda session: answers.set_error(session, task.campaign_id, None))

    async def _pause(self, task: AnswerTask, error: APIError) -> None:
        """Pause requests to this model. Failures during a pause don't extend it."""
        key, now_s = (task.campaign_id, task.model), time.monotonic()
        before = self._pauses.get(key)
        if before is not None and before.until_s > now_s:
            return
        times = before.times if before else 0
        pause_s = self._pauses_s[min(times, len(self._pauses_s) - 1)]
        self._pauses[key] = _Pause(now_s + pause_s, times + 1)
        error_body = error.body()["error"] | {
            "message": f"Waiting for {task.model}; next attempt in {pause_s:g} s. {error.message}"
        }
        log.warning("campaign %s: %s", task.campaign_id, error_body["message"])
        await self._database.run(lambda session: answers.set_error(session, task.campaign_id, error_body))


def _find_answer_fault(side: Side) -> APIError | None:
    """Return why this answer shouldn't be rated: ratings of truncated or empty answers don't count."""
    if side.finish_reason != "stop":
        return BadRequest(
            f"The answer was cut off ({side.finish_reason}), and ratings of such answers don't count. Raise "
            "max_tokens.",
            code="unfinished_answer",
        )
    if not side.content.strip():
        return BadRequest(
            "The answer is empty. Change the prompt, or check the model's training data.", code="empty_answer"
        )
    return None
