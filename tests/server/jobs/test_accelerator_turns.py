"""Jobs and engines take turns: a job waits for the engine to make room, and its model for the engine to be back."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from server.jobs import states
from server.jobs.run.queue import Runner
from serving.engines.accelerator import Accelerator
from serving.engines.accelerator_lease import AcceleratorLease
from tests.server.fake_engine import FakeEngine
from tests.server.jobs.conftest import JobPlace, ServerThread
from tests.server.jobs.serve import TRAINER, services_over

MAKES_ROOM = "The job is waiting for the engine to finish its requests and free memory"


class SlowLender:
    """Makes room and comes back when it is let; remembers the loans, and what was asked of the engine without one."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.lease: AcceleratorLease | None = None
        self.may_go, self.may_return = threading.Event(), threading.Event()
        self.may_go.set()
        self.may_return.set()

    async def lend_accelerator(self, lease: AcceleratorLease) -> None:
        self.told.append("lend")
        self.lease = lease
        await _until_set(self.may_go)
        self.told.append("lent")

    async def reclaim_accelerator(self) -> None:
        await _until_set(self.may_return)
        self.lease = None
        self.told.append("back")


async def _until_set(event: threading.Event) -> None:
    while not event.is_set():  # noqa: ASYNC110 (the test sets it in another thread)
        await asyncio.sleep(0.01)


@pytest.fixture
def lender(place: JobPlace) -> SlowLender:
    """An engine that takes turns with the jobs of a server in a thread."""
    lender = SlowLender()
    services = services_over(
        place.settings.model_copy(update={"max_running_jobs": 3, "job_stop_grace_s": 20}), place.base.path, TRAINER
    )
    runner = Runner(
        services.settings,
        services.database,
        services.engine,
        services.registry,
        services.files,
        command=TRAINER,
        accelerator=Accelerator("stop", [lender]),
    )
    place.server = ServerThread(replace(services, runner=runner))
    return lender


def test_a_job_trains_when_the_engine_has_made_room_and_its_model_is_loaded_when_it_is_back(
    place: JobPlace, lender: SlowLender
) -> None:
    lender.may_go.clear()
    lender.may_return.clear()
    job_id = place.create()
    place.until(lambda: MAKES_ROOM in place.messages(job_id), job_id)
    assert place.starts(job_id) == 0
    lender.may_go.set()
    place.until(lambda: place.run(job_id).is_done, job_id)
    assert place.server
    assert isinstance(place.server.engine, FakeEngine)
    assert place.server.engine.requests == []
    assert place.job(job_id).status == "running"
    lender.may_return.set()
    assert place.wait(job_id).status == "succeeded"
    assert lender.told == ["lend", "lent", "back"]
    assert len(place.server.engine.requests) >= 1


def test_the_engine_learns_from_the_job_how_long_it_takes(place: JobPlace, lender: SlowLender) -> None:
    job_id = place.create(steps=400, step_s=0.02)
    told = place.until(
        lambda: (lease := lender.lease) and (remaining := lease.remaining_s()) is not None and (remaining,), job_id
    )
    assert 0 <= told[0] <= 4
    place.do(states.cancel, job_id)


@pytest.mark.parametrize("how", [states.cancel, states.pause])
def test_a_job_that_is_stopped_while_it_waits_never_trains_and_the_engine_goes_on(
    place: JobPlace, lender: SlowLender, how: object
) -> None:
    lender.may_go.clear()
    job_id = place.create()
    place.until(lambda: lender.told == ["lend"], job_id)
    place.do(how, job_id)  # type: ignore[arg-type]
    place.until(lambda: "back" in lender.told, job_id)
    place.wait(job_id, "cancelled", "paused")
    assert place.starts(job_id) == 0


def test_a_failed_job_gives_the_accelerator_back(place: JobPlace, lender: SlowLender) -> None:
    job_id = place.create(fails_at=3, failure={"code": "diverged", "message": "It diverged."})
    assert place.wait(job_id).status == "failed"
    place.until(lambda: lender.told == ["lend", "lent", "back"], job_id)


def test_two_jobs_share_one_loan_and_both_models_are_loaded_after_it(place: JobPlace, lender: SlowLender) -> None:
    long, short = place.create(steps=300, step_s=0.02), place.create(steps=5)
    place.until(lambda: place.run(short).is_done, short)
    place.until(lambda: any("release the accelerator" in message for message in place.messages(short)), short)
    assert place.job(short).status == "running"
    assert [place.wait(job_id).status for job_id in (short, long)] == ["succeeded"] * 2
    assert lender.told == ["lend", "lent", "back"]


def test_a_server_that_stops_lets_the_job_go_on_later_and_wakes_no_engine(place: JobPlace, lender: SlowLender) -> None:
    job_id = place.create(steps=400, step_s=0.02)
    place.until(lambda: 3 in place.steps_told(job_id), job_id)
    place.stop()
    assert lender.told == ["lend", "lent"]
    assert place.job(job_id).status == "running"
    place.serve()
    assert place.wait(job_id).status == "succeeded"
