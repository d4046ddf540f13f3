"""Engines and trainings share one accelerator by a policy, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from serving import GPU, BaseModel, Device, EngineStartError, EngineState, EngineUnavailableError, VLLMSettings
from serving.engines.accelerator import Accelerator, AcceleratorSlot, Policy
from serving.engines.accelerator_lease import AcceleratorLease
from serving.engines.vllm.arguments import plan_launch
from serving.machine.division import divide
from serving.machine.kept_process import KeptProcess
from tests.serving.engines.fake_vllm_process import FakeVLLM, until

GIB = 2**30
CPU = Device("cpu", (), 16 * GIB, 12 * GIB, 4, frozenset())
GPUS = Device("cuda", (GPU("H100", 80 * GIB, 79 * GIB),) * 4, 64 * GIB, 60 * GIB, 16, frozenset())
Story = Callable[[FakeVLLM, Accelerator], Awaitable[None]]


class FakeLender:
    """Says what it was asked, and makes room when it is let."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.lease: AcceleratorLease | None = None
        self.may_go, self.may_return = asyncio.Event(), asyncio.Event()
        self.may_go.set()
        self.may_return.set()
        self.faults: list[Exception] = []
        """What it meets when it is to come back, the last first."""

    async def lend_accelerator(self, lease: AcceleratorLease) -> None:
        self.lease = lease
        self.told.append(f"lend {lease.mode}")
        await self.may_go.wait()

    async def reclaim_accelerator(self) -> None:
        self.lease = None
        self.told.append("take back")
        await self.may_return.wait()
        if self.faults:
            raise self.faults.pop()
        self.told.append("back")


async def nobody(message: str) -> None:
    """For whom it doesn't matter what a job waits for."""


async def hold(accelerator: Accelerator, started: asyncio.Event, go_on: asyncio.Event) -> None:
    """A job: trains until it may go on, and then has its model loaded."""
    async with accelerator.slot(nobody) as turn:
        await turn.acquire_for_training()
        started.set()
        await go_on.wait()
        await turn.switch_to_serving()


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("split", []),
        ("separate", []),
        ("sleep", ["lend sleep", "take back", "back"]),
        ("stop", ["lend stop", "take back", "back"]),
    ],
)
def test_the_policy_decides_what_the_engine_does_for_a_training(policy: Policy, told: list[str]) -> None:
    engine = FakeLender()

    async def story() -> None:
        async with Accelerator(policy, [engine]).slot(nobody) as turn:
            await turn.acquire_for_training()
            assert engine.told == told[:1]
            await turn.switch_to_serving()
            assert engine.told == told

    asyncio.run(story())
    assert engine.told == told


def test_the_first_of_two_jobs_takes_it_and_the_last_gives_it_back() -> None:
    engine, waits = FakeLender(), list[str]()

    async def story() -> None:
        accelerator = Accelerator("stop", [engine])
        started, go_on = [asyncio.Event(), asyncio.Event()], [asyncio.Event(), asyncio.Event()]
        jobs = [asyncio.create_task(hold(accelerator, *events)) for events in zip(started, go_on, strict=True)]
        await asyncio.gather(*(event.wait() for event in started))
        assert engine.told == ["lend stop"]
        go_on[0].set()
        await asyncio.sleep(0.05)
        assert not jobs[0].done()  # its model can't be loaded yet
        assert engine.told == ["lend stop"]

        async def third() -> None:
            async def on_wait(message: str) -> None:
                waits.append(message)

            async with accelerator.slot(on_wait) as turn:
                await turn.acquire_for_training()
                waits.append("trains")

        later = asyncio.create_task(third())
        await asyncio.sleep(0.05)
        assert waits == ["The job is waiting for another job's model to load"]
        go_on[1].set()
        await asyncio.gather(*jobs, later)
        assert waits[-1] == "trains"

    asyncio.run(story())
    assert engine.told == ["lend stop", "take back", "back"] * 2


def test_a_job_that_is_cancelled_while_it_waits_leaves_the_engine_at_work() -> None:
    engine = FakeLender()

    async def story() -> None:
        accelerator = Accelerator("stop", [engine])
        engine.may_go.clear()
        job = asyncio.create_task(hold(accelerator, asyncio.Event(), asyncio.Event()))
        await until(lambda: engine.told == ["lend stop"])
        job.cancel()
        await asyncio.wait({job})
        assert engine.told == ["lend stop", "take back", "back"]
        engine.may_go.set()
        async with accelerator.slot(nobody) as turn:  # and the next one gets it
            await turn.acquire_for_training()
            assert engine.told[3:] == ["lend stop"]

    asyncio.run(story())


@pytest.mark.parametrize("where", ["its model is to be loaded", "it is over"])
def test_a_job_that_is_cancelled_while_the_engine_comes_back_leaves_it_to_the_next(where: str) -> None:
    engine = FakeLender()

    async def story() -> None:
        accelerator = Accelerator("stop", [engine])
        started, go_on = asyncio.Event(), asyncio.Event()
        job = asyncio.create_task(hold(accelerator, started, go_on))
        await started.wait()
        engine.may_return.clear()
        go_on.set() if where == "its model is to be loaded" else job.cancel()
        await until(lambda: engine.told == ["lend stop", "take back"])
        job.cancel()
        await asyncio.wait({job})
        async with asyncio.timeout(5), accelerator.slot(nobody) as turn:
            training = asyncio.create_task(turn.acquire_for_training())
            await asyncio.sleep(0.05)
            assert not training.done()  # the engine comes back before it is asked again
            engine.may_return.set()
            await training
            assert engine.told == ["lend stop", "take back", "back", "lend stop"]
            await turn.switch_to_serving()

    asyncio.run(story())


def test_an_engine_whose_return_meets_something_unforeseen_is_asked_by_the_next_job() -> None:
    engine, other = FakeLender(), FakeLender()
    engine.faults = [OSError("No space left on device")]

    async def story() -> None:
        accelerator = Accelerator("stop", [engine, other])
        for _ in range(2):
            async with asyncio.timeout(5), accelerator.slot(nobody) as turn:
                await turn.acquire_for_training()
                await turn.switch_to_serving()

    asyncio.run(story())
    assert engine.told == ["lend stop", "take back", "lend stop", "take back", "back"]
    assert other.told == ["lend stop", "take back", "back"] * 2


def test_a_server_that_stops_wakes_nobody() -> None:
    engine = FakeLender()

    async def story() -> None:
        accelerator = Accelerator("sleep", [engine])
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            accelerator.close()
        assert engine.told == ["lend sleep"]

    asyncio.run(story())


def test_the_longest_training_says_when_the_engine_is_back() -> None:
    engine = FakeLender()

    async def story() -> None:
        accelerator = Accelerator("stop", [engine])
        async with accelerator.slot(nobody) as first, accelerator.slot(nobody) as second:
            await first.acquire_for_training()
            await second.acquire_for_training()
            assert engine.lease
            first.expect(1000)
            unknown = engine.lease.refusal(45, 30)
            assert "isn't known yet" in unknown.message
            second.expect(30)
            known = engine.lease.refusal(45, 30)
            assert "for about 18 more minutes" in known.message
            assert 1000 < known.retry_after_s < 1046
            assert not known.worth_waiting

    asyncio.run(story())


# With a real process: an engine that speaks like vLLM.


def play(vllm: FakeVLLM, policy: Policy, story: Story) -> None:
    async def run() -> None:
        await vllm.engine.start()
        try:
            await story(vllm, Accelerator(policy, [vllm.engine]))
        finally:
            await vllm.engine.stop()

    asyncio.run(run())
    assert vllm.engine.session is None


def test_requests_are_told_how_long_the_training_takes_and_answered_after_it(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM, accelerator: Accelerator) -> None:
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            assert (vllm.engine.session, vllm.engine.state) == (None, EngineState.STOPPED)
            turn.expect(600)
            with pytest.raises(
                EngineUnavailableError, match="is using the accelerator for about 11 more minutes"
            ) as caught:
                await vllm.complete()
            assert 600 <= caught.value.retry_after_s < 620
            assert "11 more minutes" in (vllm.engine.lease_message or "")
            turn.expect(1)  # soon: it is worth waiting
            asking = asyncio.create_task(vllm.complete())
            await asyncio.sleep(0.1)
            await turn.switch_to_serving()
            assert await asking == 200
        assert vllm.engine.lease_message is None

    play(FakeVLLM.over(base, tmp_path), "stop", story)


def test_requests_in_flight_end_before_the_engine_makes_room(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM, accelerator: Accelerator) -> None:
        vllm.tell("slow", "1")
        asking = asyncio.create_task(vllm.complete())
        await until(lambda: vllm.engine.in_flight == 1)
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            assert asking.done()
            assert await asking == 200

    play(FakeVLLM.over(base, tmp_path), "stop", story)


def test_a_request_that_does_not_end_is_cut_after_the_bound(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM, accelerator: Accelerator) -> None:
        vllm.tell("slow", "60")
        asking = asyncio.create_task(vllm.complete())
        await until(lambda: vllm.engine.in_flight == 1)
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            with pytest.raises(EngineUnavailableError):
                await asking

    play(FakeVLLM.over(base, tmp_path, drain_s=0.3), "stop", story)


def test_a_job_cancelled_while_requests_are_drained_lets_them_go_on(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM, accelerator: Accelerator) -> None:
        vllm.tell("slow", "2")
        asking = asyncio.create_task(vllm.complete())
        await until(lambda: vllm.engine.in_flight == 1)
        job = asyncio.create_task(hold(accelerator, asyncio.Event(), asyncio.Event()))
        await until(lambda: vllm.engine.lease_message is not None)
        job.cancel()
        await asyncio.wait({job})
        assert not asking.done()
        vllm.tell("slow", "0")
        assert await vllm.complete() == 200
        assert await asking == 200
        assert vllm.engine.generation == 1

    play(FakeVLLM.over(base, tmp_path), "stop", story)


def test_a_sleeping_engine_wakes_and_gets_its_adapters_back_before_requests(base: BaseModel, tmp_path: Path) -> None:
    ups: list[int] = []

    async def story(vllm: FakeVLLM, accelerator: Accelerator) -> None:
        async def on_up(place: object) -> None:
            ups.append(vllm.engine.in_flight)

        vllm.engine.on_up = on_up
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            assert vllm.engine.session is not None
            assert vllm.asked == ["/sleep?level=1"]
            await turn.switch_to_serving()
            assert vllm.asked == ["/sleep?level=1", "/wake_up"]
            assert (ups, vllm.engine.generation, len(vllm.starts)) == ([0], 2, 1)
            assert await vllm.complete() == 200

    play(FakeVLLM.over(base, tmp_path), "sleep", story)


@pytest.mark.parametrize("fault", ["wake_fails", "canary", "unforeseen"])
def test_an_engine_that_does_not_wake_up_well_is_started_anew(base: BaseModel, tmp_path: Path, fault: str) -> None:
    faults = {
        "canary": EngineUnavailableError("The canary differs after the sleep.", 1),
        "unforeseen": KeyError("data"),
    }
    canary = [faults[fault]] if fault in faults else []

    async def story(vllm: FakeVLLM, accelerator: Accelerator) -> None:
        async def on_up(place: object) -> None:
            if canary:
                raise canary.pop()

        vllm.engine.on_up = on_up
        vllm.tell("wake_fails") if fault == "wake_fails" else None
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            await turn.switch_to_serving()
            assert await vllm.complete() == 200
        assert (len(vllm.starts), vllm.engine.restarts) == (2, 1)
        assert "didn't wake up correctly" in (vllm.engine.last_trouble or "")

    play(FakeVLLM.over(base, tmp_path), "sleep", story)


def test_an_engine_that_does_not_fall_asleep_is_stopped(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM, accelerator: Accelerator) -> None:
        vllm.tell("sleep_fails")
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            assert vllm.engine.session is None
            await turn.switch_to_serving()
            assert await vllm.complete() == 200

    play(FakeVLLM.over(base, tmp_path), "sleep", story)


def test_an_engine_that_dies_asleep_comes_back_after_the_training(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM, accelerator: Accelerator) -> None:
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            vllm.signal(vllm.server, signal.SIGKILL)
            await until(lambda: vllm.engine.state is EngineState.DEAD)
            await asyncio.sleep(0.5)
            assert len(vllm.starts) == 1  # the training has the accelerator
            await turn.switch_to_serving()
            assert await vllm.complete() == 200

    play(FakeVLLM.over(base, tmp_path), "sleep", story)


def test_a_server_that_stops_while_the_engine_sleeps_leaves_nothing(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM, accelerator: Accelerator) -> None:
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            accelerator.close()
            await vllm.engine.stop()
            assert vllm.engine.session is None
        await vllm.engine.start()  # and the next start is a fresh one
        assert await vllm.complete() == 200

    play(FakeVLLM.over(base, tmp_path), "sleep", story)


def test_an_engine_whose_start_comes_after_a_trainings_waits_for_it(base: BaseModel, tmp_path: Path) -> None:
    vllm, told = FakeVLLM.over(base, tmp_path), list[str]()

    async def run() -> None:
        accelerator = Accelerator("stop", [vllm.engine])
        async with accelerator.slot(nobody) as turn:
            await turn.acquire_for_training()
            starting = asyncio.create_task(vllm.engine.start(lambda stage, *_: told.append(stage)))
            await until(lambda: told == ["waiting for a fine-tuning job"])
            assert vllm.starts == []
            await turn.switch_to_serving()
            await starting
            assert await vllm.complete() == 200
        await vllm.engine.stop()

    asyncio.run(run())


# Who gets which devices, and how vLLM is told.


def test_separate_gives_each_half_of_the_gpus_and_both_are_told(base: BaseModel, tmp_path: Path) -> None:
    division = divide("separate", GPUS, on_cpu=False)
    assert (division.engine, division.training) == ((0, 1), (2, 3))
    assert division.training_environment == {"CUDA_VISIBLE_DEVICES": "2,3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert division.training_cores == ()
    settings = VLLMSettings(tmp_path, tmp_path / "log", device="cuda", devices=division.engine)
    plan = plan_launch(base, settings, GPUS, Path("/run/s"))
    assert plan.environment["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert plan.cores == ()


def test_the_memory_of_the_engines_own_gpu_counts(base: BaseModel, tmp_path: Path) -> None:
    gpus = (GPU("H100", 80 * GIB, GIB), GPU("H100", 80 * GIB, 79 * GIB))
    settings = VLLMSettings(tmp_path, tmp_path / "log", device="cuda", devices=(1,))
    assert plan_launch(base, settings, replace(GPUS, gpus=gpus), Path("/run/s"))
    with pytest.raises(EngineStartError, match="engine_devices lists GPU 7"):
        plan_launch(base, replace(settings, devices=(7,)), GPUS, Path("/run/s"))


def test_separate_on_a_processor_divides_cores_and_keeps_hyperthreads_together(base: BaseModel, tmp_path: Path) -> None:
    division = divide("separate", CPU, on_cpu=True, groups=[(0, 4), (1, 5), (2, 6), (3, 7)])
    assert (division.engine, division.training) == ((0, 1, 4, 5), (2, 3, 6, 7))
    assert (division.training_cores, division.training_environment) == ((2, 3, 6, 7), {})
    settings = VLLMSettings(tmp_path, tmp_path / "log", device="cpu", devices=division.engine)
    plan = plan_launch(base, settings, CPU, Path("/run/s"))
    assert plan.cores == (0, 1, 4, 5)
    assert plan.environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,1,4,5"


def test_a_process_keeps_to_the_cores_that_it_is_given(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    told = "import os; print(os.sched_getaffinity(0))"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {told!r}])"

    async def run() -> int:
        command = [sys.executable, "-c", code]
        return await (await KeptProcess.start(command, dict(os.environ), tmp_path / "log", 1.0, cores=(core,))).wait()

    assert asyncio.run(run()) == 0
    assert (tmp_path / "log").read_text().strip() == f"{{{core}}}"


def test_what_is_not_named_goes_to_the_other() -> None:
    groups = [(0,), (1,), (2,)]
    named = divide("separate", GPUS, on_cpu=False, groups=groups, training_devices=(0,))
    assert (named.engine, named.training) == ((1, 2), (0,))
    assert divide("separate", GPUS, on_cpu=False, groups=groups, engine_devices=(1,)).training == (0, 2)


@pytest.mark.parametrize(
    ("policy", "on_cpu", "devices", "words"),
    [
        ("sleep", True, {}, "can't sleep on a CPU. Use split, stop or separate"),
        ("stop", True, {"engine_devices": (0,)}, "require accelerator_policy separate, but it is stop"),
        ("separate", False, {"engine_devices": (9,)}, "list 9, but the available GPUs are 0, 1"),
        ("separate", True, {"engine_devices": (0,), "training_devices": (0, 1)}, "0 is in both engine_devices and"),
        ("separate", True, {"engine_devices": (0, 1)}, "aren't enough cores for both: 2 available"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_with_a_remedy(
    policy: str, on_cpu: bool, devices: dict[str, tuple[int, ...]], words: str
) -> None:
    with pytest.raises(EngineStartError, match=words):
        divide(policy, CPU, on_cpu=on_cpu, groups=[(0,), (1,)], **devices)  # type: ignore[arg-type]


def test_a_gpus_engine_that_may_sleep_is_started_so_and_no_other(base: BaseModel, tmp_path: Path) -> None:
    settings = VLLMSettings(tmp_path, tmp_path / "log", device="cuda", may_sleep=True)
    plan = plan_launch(base, settings, GPUS, Path("/run/s"))
    assert "--enable-sleep-mode" in plan.command
    assert plan.environment["VLLM_SERVER_DEV_MODE"] == "1"
    plain = plan_launch(base, replace(settings, may_sleep=False), GPUS, Path("/run/s"))
    assert "--enable-sleep-mode" not in plain.command
    assert "VLLM_SERVER_DEV_MODE" not in plain.environment
    with pytest.raises(EngineStartError, match="can't sleep on a CPU"):
        plan_launch(base, replace(settings, device="cpu"), CPU, Path("/run/s"))


def test_a_turn_that_never_trained_gives_nothing_back() -> None:
    engine = FakeLender()

    async def story() -> None:
        async with Accelerator("stop", [engine]).slot(nobody) as turn:
            assert isinstance(turn, AcceleratorSlot)

    asyncio.run(story())
    assert engine.told == []
