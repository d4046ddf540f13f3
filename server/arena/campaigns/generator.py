"""Generates the answers of campaigns beside everything else, a few at once.

What is to be done is in the database alone: after a crash the next server goes on where this one was. An engine that is
away is waited for, with growing pauses, and the campaign says so; what the engine refuses fails that one answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from server.arena.campaigns import answers
from server.arena.campaigns.answers import Task
from server.arena.comparisons import generate
from server.arena.comparisons.generate import Side
from server.inference.ask import Inference
from server.inference.visible import list_visible_names
from server.wire.background import BackgroundLoop
from server.wire.errors import APIError, BadRequest, ServerError

log = logging.getLogger(__name__)

POLL_S = 1.0
"""What is to be done is looked for this often, beside when something tells of it."""
PAUSES_S = (1, 2, 5, 10, 30, 60)
"""Between one attempt and the next while a model doesn't answer; then the last again and again."""
FORGOTTEN_AFTER_S = 600.0
"""A pause so long over counts no more."""
MAX_ATTEMPTS = 4
"""For failures that are perhaps the prompt's: a 500, an answer that broke off, a model that isn't there."""
_AWAY = (409, 429, 503)
"""The engine is away, busy, or must be restarted for an adapter: it is waited for, however long."""
_MISSING = 404
_PERHAPS = (_MISSING, 500)


@dataclass
class _Pause:
    """Why a campaign's model isn't asked now."""

    until_s: float
    """On the monotonic clock."""
    times: int


class Generator:
    """Works through the answers that campaigns wait for."""

    def __init__(
        self, inference: Inference, work: asyncio.Event, *, concurrency: int, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        """work: set when there may be answers to generate. concurrency: how many at once."""
        self._inference, self._database, self._concurrency = inference, inference.database, concurrency
        self._pauses_s = tuple(pauses_s)
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._pauses: dict[tuple[str, str], _Pause] = {}
        self._working = BackgroundLoop(
            self._begin_waiting,
            "Answers for campaigns can't be looked for now",
            pause_s=POLL_S,
            failure_pause_s=self._pauses_s[-1],
            awake=work,
        )

    async def start(self) -> None:
        """Begins to generate, what an earlier server left first."""
        self._working.start()

    async def stop(self) -> None:
        """Returns when nothing is being generated; what wasn't finished is still to be done."""
        await self._working.stop()
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin_waiting(self) -> None:
        free = self._concurrency - len(self._under_way)
        if free > 0:
            under_way, paused = list(self._under_way), self._paused()
            waiting = await self._database.run(
                lambda session: answers.waiting(session, free, under_way=under_way, paused=paused)
            )
            for task in waiting:
                self._under_way[task.number] = asyncio.create_task(self._do(task))
        await self._database.run(answers.end_finished)

    def _paused(self) -> list[tuple[str, str]]:
        now_s = time.monotonic()
        self._pauses = {key: pause for key, pause in self._pauses.items() if pause.until_s > now_s - FORGOTTEN_AFTER_S}
        return [key for key, pause in self._pauses.items() if pause.until_s > now_s]

    async def _do(self, task: Task) -> None:
        try:
            await self._generate(task)
        except SQLAlchemyError as error:  # still pending, so it is generated again
            log.warning("an answer of %s can't be stored now: %s", task.campaign_id, error)
            await asyncio.sleep(self._pauses_s[-1])
        finally:
            self._under_way.pop(task.number, None)
            self._working.wake()

    async def _generate(self, task: Task) -> None:
        side = Side(task.model, messages=task.messages)
        try:
            async for _event in generate.answer(self._inference, task.caller, task.sampling, side):
                pass
            error = side.error
        except (SQLAlchemyError, asyncio.CancelledError):
            raise
        except Exception as fault:  # what the engine sent can't be read: of that only this answer must suffer
            log.exception("an answer of %s failed", task.campaign_id)
            error = ServerError(f"The answer can't be read ({type(fault).__name__}); the server's log tells more.")
        if error is None:
            await self._keep(task, side)
        elif error.status in _AWAY or (error.status in _PERHAPS and not await self._is_enough(task)):
            await self._pause(task, error)
        elif error.status == _MISSING and task.model not in await list_visible_names(
            self._inference.registry, self._database, task.caller
        ):
            await self._give_up_all(task, error)
        else:
            log.warning("campaign %s: %s gives no answer: %s", task.campaign_id, task.model, error.message)
            await self._database.run(lambda session: answers.give_up(session, task, error.body()["error"]))

    async def _is_enough(self, task: Task) -> bool:
        return await self._database.run(lambda session: answers.count_attempt(session, task)) >= MAX_ATTEMPTS

    async def _give_up_all(self, task: Task, error: APIError) -> None:
        """The model is gone for good: asking for each of its answers would take hours to say so."""
        log.warning("campaign %s: %s answers no more: %s", task.campaign_id, task.model, error.message)
        told = error.body()["error"]
        await self._database.run(lambda session: answers.give_up_all(session, task, told))
        await self._waits_no_more(task)

    async def _keep(self, task: Task, side: Side) -> None:
        fault = _unfit(side)
        if fault is None:
            await self._database.run(lambda session: answers.keep(session, task, side.stored()))
        else:
            told, content = fault.body()["error"], side.stored()
            await self._database.run(lambda session: answers.give_up(session, task, told, content))
        await self._waits_no_more(task)

    async def _waits_no_more(self, task: Task) -> None:
        """The campaign says no longer that it waits for this model."""
        was_paused = self._pauses.pop((task.campaign_id, task.model), None)
        others = any(campaign == task.campaign_id for campaign, _ in self._pauses)
        if was_paused and not others:
            await self._database.run(lambda session: answers.say(session, task.campaign_id, None))

    async def _pause(self, task: Task, error: APIError) -> None:
        """Asks this model for nothing more for a while. What fails while it pauses makes no pause longer."""
        key, now_s = (task.campaign_id, task.model), time.monotonic()
        before = self._pauses.get(key)
        if before is not None and before.until_s > now_s:
            return
        times = before.times if before else 0
        pause_s = self._pauses_s[min(times, len(self._pauses_s) - 1)]
        self._pauses[key] = _Pause(now_s + pause_s, times + 1)
        told = error.body()["error"] | {
            "message": f"Waiting for {task.model}, which is asked again in {pause_s:g} s. {error.message}"
        }
        log.warning("campaign %s: %s", task.campaign_id, told["message"])
        await self._database.run(lambda session: answers.say(session, task.campaign_id, told))


def _unfit(side: Side) -> APIError | None:
    """Why people's time would be lost on this answer: votes on what is cut off or empty count for nothing."""
    if side.finish_reason != "stop":
        return BadRequest(
            f"The answer was cut off ({side.finish_reason}), and votes on such answers don't count. Raise max_tokens.",
            code="unfinished_answer",
        )
    if not side.content.strip():
        return BadRequest(
            "The answer is empty. Change the prompt, or look at what the model learned.", code="empty_answer"
        )
    return None
