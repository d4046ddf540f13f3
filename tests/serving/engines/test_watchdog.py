"""An engine that is stuck is a dead one, and one that is at work isn't. With the real vLLM: test_engine_faults."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from serving import AdapterError, BaseModel, EngineLimits, EngineStartError, EngineState, EngineUnavailableError
from serving.engines.accelerator_lease import AcceleratorLease
from serving.engines.engine import AdapterHost
from serving.engines.vllm.watchdog import LoopClock
from tests.serving.engines.fake_vllm_process import FakeVLLM, until

FAST = {"stall_timeout_s": 1.5}
Story = Callable[[FakeVLLM], Awaitable[None]]


@pytest.fixture
def vllm(base: BaseModel, tmp_path: Path) -> FakeVLLM:
    return FakeVLLM.over(base, tmp_path, **FAST)


def play(vllm: FakeVLLM, story: Story, *, start: bool = True, run: Callable[..., None] = asyncio.run) -> None:
    """The story, with the engine up; nothing of it is left afterwards."""

    async def whole() -> None:
        try:
            if start:
                await vllm.engine.start()
            await story(vllm)
        finally:
            await vllm.engine.stop()

    run(whole())
    assert vllm.engine.session is None


async def stall(seconds: float, times: int) -> None:
    """Blocks the event loop each time that it turns, as bytes do that come one after another and take long to parse."""
    for _ in range(times):
        time.sleep(seconds)  # noqa: ASYNC251 (that it blocks is the point)
        await asyncio.sleep(0)


def test_an_engine_is_not_dead_because_our_own_loop_is_late(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        asking = asyncio.create_task(vllm.complete())
        await stall(0.6, times=5)
        await stall(2.5, times=1)
        assert await asking == 200
        await asyncio.sleep(0.6)  # more than one look
        assert (vllm.engine.generation, vllm.engine.last_trouble) == (1, None)

    play(vllm, story, run=uvloop.run)  # as the server: it runs timers before it looks at what has come


@pytest.mark.parametrize("how", ["stopped", "refuses"])
def test_a_dead_engine_is_found_though_our_own_loop_is_late(base: BaseModel, tmp_path: Path, how: str) -> None:
    words = {"stopped": "hasn't answered its health check", "refuses": "no longer accepts connections"}

    async def story(vllm: FakeVLLM) -> None:
        if how == "stopped":
            vllm.signal(vllm.server, signal.SIGSTOP)
        else:
            vllm.socket.unlink()
        for _ in range(40):
            if vllm.engine.last_trouble:
                break
            await stall(0.5, times=1)
            await asyncio.sleep(0.02)
        assert words[how] in (vllm.engine.last_trouble or "")

    play(FakeVLLM.over(base, tmp_path, stall_timeout_s=1.5 if how == "stopped" else 6), story, run=uvloop.run)


def test_time_stands_still_while_the_loop_does() -> None:
    async def run() -> tuple[float, float]:
        clock = LoopClock()
        async with clock.running():
            await asyncio.sleep(0.6)
            turned_s = clock.now()
            await stall(1.5, times=1)
            return turned_s, clock.now() - turned_s

    turned_s, stalled_s = asyncio.run(run())
    assert turned_s > 0.4
    assert stalled_s < 0.9


def test_a_stopped_engine_core_is_killed_and_the_request_can_be_sent_again(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.signal(vllm.core, signal.SIGSTOP)
        with pytest.raises(EngineUnavailableError) as caught:
            await vllm.complete()
        assert caught.value.before_answer
        assert vllm.engine.state is not EngineState.READY
        assert await vllm.complete() == 200
        assert (vllm.engine.generation, vllm.engine.restarts) == (2, 1)
        assert "has made no progress" in (vllm.engine.last_trouble or "")

    play(vllm, story)


def test_a_stopped_http_server_is_killed_though_nobody_asks(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.signal(vllm.server, signal.SIGSTOP)
        await until(lambda: vllm.engine.generation == 2)
        assert "hasn't answered its health check" in (vllm.engine.last_trouble or "")
        assert await vllm.complete() == 200

    play(vllm, story)


def test_an_engine_core_that_computes_for_long_is_left_alone(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.tell("busy")
        asking = asyncio.create_task(vllm.complete())
        await asyncio.sleep(4)  # more than twice the bound
        assert not asking.done()
        vllm.untell("busy")
        assert await asking == 200
        assert vllm.engine.generation == 1

    play(vllm, story)


def test_a_slow_answer_is_no_stuck_engine_where_a_token_of_our_own_comes(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.tell("slow", "1.2")  # the token of our own takes as long
        await asyncio.gather(*(vllm.complete() for _ in range(3)))
        vllm.tell("slow", "0")
        async with vllm.engine.request("GET", "/v1/models"):  # a reader that takes its time
            await asyncio.sleep(4)
        assert vllm.engine.generation == 1
        assert "/v1/completions" in vllm.asked[3:]

    play(vllm, story)


def test_an_idle_engine_is_asked_nothing_of_our_own(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        await asyncio.sleep(3)
        assert (vllm.asked, vllm.engine.generation) == ([], 1)

    play(vllm, story)


def test_a_request_whose_engine_died_can_be_sent_again_at_once(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.signal(vllm.core, signal.SIGKILL)
        with pytest.raises(EngineUnavailableError) as caught:
            await vllm.complete()
        assert caught.value.before_answer
        assert await vllm.complete() == 200  # though the next regular look is seconds away
        assert "engine core has died" in (vllm.engine.last_trouble or "")

    play(FakeVLLM.over(base, tmp_path), story)


def test_requests_wait_while_a_dead_engine_comes_back(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.signal(vllm.server, signal.SIGKILL)
        await until(lambda: vllm.engine.state is not EngineState.READY)
        assert await asyncio.gather(*(vllm.complete() for _ in range(20))) == [200] * 20
        assert vllm.engine.generation == 2
        assert "exit code 137" in (vllm.engine.last_trouble or "")

    play(vllm, story)


def test_a_request_that_waited_in_vain_is_told_when_to_come_again(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.tell("refuse_start", "no memory")
        vllm.signal(vllm.server, signal.SIGKILL)
        await until(lambda: vllm.engine.state is not EngineState.READY)
        with pytest.raises(EngineUnavailableError, match="being restarted") as caught:
            await vllm.complete()
        assert 0 < caught.value.retry_after_s <= 60

    play(FakeVLLM.over(base, tmp_path, wait_s=0.3), story)


def test_an_engine_that_cannot_come_back_is_given_up_and_says_so_at_once(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.tell("refuse_start", "no memory")
        vllm.signal(vllm.server, signal.SIGKILL)
        await until(lambda: len(vllm.starts) == 3)
        await until(lambda: vllm.engine.session is None)
        with pytest.raises(
            EngineUnavailableError, match=r"crashed 3 times in a row and stays down\. The server's operator"
        ):
            async with asyncio.timeout(5):
                await vllm.complete()
        assert "no memory" in (vllm.engine.last_trouble or "")
        vllm.untell("refuse_start")
        await vllm.engine.restart()
        assert await vllm.complete() == 200

    play(FakeVLLM.over(base, tmp_path, max_restarts=2, wait_s=60), story)


def test_an_engine_that_lacks_memory_is_tried_again_until_there_is_some(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.tell("no_memory", "")
        vllm.signal(vllm.server, signal.SIGKILL)
        await until(lambda: (tmp_path / "no_memory").read_text().count("refused") > 3)  # a training takes it, say
        assert vllm.engine.last_trouble == "Not enough memory for the engine."
        vllm.untell("no_memory")
        vllm.tell("refuse_start", "once")  # not the last straw, either: waiting for memory used up no restart
        await until(lambda: len(vllm.starts) == 2)
        vllm.untell("refuse_start")
        assert await vllm.complete() == 200

    play(FakeVLLM.over(base, tmp_path, max_restarts=2, wait_s=60), story)


@pytest.mark.parametrize(
    ("words", "others", "is_given_up"),
    [
        ("No available memory for the cache blocks.", True, False),
        ("CUDA out of memory.", True, False),
        ("CUDA out of memory.", False, True),  # all is its own: waiting would change nothing
        ("Unknown kernel.", True, True),
    ],
)
def test_a_start_that_lacks_what_others_use_now_is_tried_again(
    base: BaseModel, tmp_path: Path, words: str, others: bool, is_given_up: bool
) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.tell("refuse_start", words)
        if others:
            vllm.tell("others")
        vllm.signal(vllm.server, signal.SIGKILL)
        await until(lambda: len(vllm.starts) == 3)
        await until(lambda: vllm.engine.session is None)
        if is_given_up:
            with pytest.raises(EngineUnavailableError, match="stays down"):
                await vllm.complete()
        vllm.untell("refuse_start")
        if not is_given_up:
            assert await vllm.complete() == 200

    play(FakeVLLM.over(base, tmp_path, max_restarts=2, wait_s=60), story)


def test_adapters_are_brought_back_before_anybody_is_let_in(vllm: FakeVLLM, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    async def story(vllm: FakeVLLM) -> None:
        async def on_up(place: object) -> None:
            await place.load_adapter("ft:a", tmp_path)  # type: ignore[attr-defined]
            await asyncio.sleep(0.2)
            seen.append((vllm.engine.generation, vllm.engine.in_flight))

        vllm.engine.on_up = on_up
        await vllm.engine.start()
        vllm.signal(vllm.server, signal.SIGKILL)
        await until(lambda: vllm.engine.state is not EngineState.READY)
        assert await vllm.complete() == 200
        assert seen == [(1, 0), (2, 0)]
        assert vllm.asked == ["/v1/load_lora_adapter", "/v1/load_lora_adapter", "/v1/completions"]

    play(vllm, story, start=False)


def test_an_engine_whose_canary_fails_is_started_again(vllm: FakeVLLM) -> None:
    failures = [EngineUnavailableError("The canary differs.", 1)]

    async def story(vllm: FakeVLLM) -> None:
        async def on_up(place: object) -> None:
            if vllm.engine.generation > 1 and failures:
                raise failures.pop()

        vllm.engine.on_up = on_up
        await vllm.engine.start()
        vllm.signal(vllm.core, signal.SIGKILL)
        vllm.signal(vllm.server, signal.SIGKILL)
        await until(lambda: vllm.engine.generation == 3)
        assert await vllm.complete() == 200
        assert "The canary differs." in (vllm.engine.last_trouble or "")

    play(vllm, story, start=False)


@pytest.mark.parametrize("how", ["death", "restart", "loan"])
def test_an_engine_that_meets_something_unforeseen_on_its_way_up_is_started_again(vllm: FakeVLLM, how: str) -> None:
    faults = list[Exception]()

    async def story(vllm: FakeVLLM) -> None:
        async def on_up(place: object) -> None:
            if faults:
                raise faults.pop()

        vllm.engine.on_up = on_up
        await vllm.engine.start()
        faults.append(OSError(28, "No space left on device"))
        if how == "death":
            vllm.signal(vllm.server, signal.SIGKILL)
        elif how == "restart":
            with pytest.raises(EngineStartError, match="No space left on device"):
                await vllm.engine.restart()
        else:
            await vllm.engine.lend_accelerator(AcceleratorLease("stop", lambda: None))
            with pytest.raises(EngineStartError, match="No space left on device"):
                await vllm.engine.reclaim_accelerator()
        await until(lambda: vllm.engine.generation == 3)
        assert await vllm.complete() == 200
        assert "No space left on device" in (vllm.engine.last_trouble or "")

    play(vllm, story, start=False)


def test_an_engine_that_cannot_be_written_down_is_killed_and_started_again(vllm: FakeVLLM, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM) -> None:
        blocked = tmp_path / "state" / "engine.json"
        blocked.unlink()
        blocked.mkdir()  # as a full disk does, it keeps the record from being written
        vllm.signal(vllm.server, signal.SIGKILL)
        await until(lambda: "IsADirectoryError" in (vllm.engine.last_trouble or ""))
        blocked.rmdir()
        assert await vllm.complete() == 200
        assert vllm.engine.generation == 2  # none of those that couldn't be written down came up

    play(vllm, story)


def test_what_the_first_start_meets_is_raised_and_not_tried_again(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        vllm.tell("refuse_start", "out of luck")
        with pytest.raises(EngineStartError, match="out of luck"):
            await vllm.engine.start()
        await asyncio.sleep(1)
        assert (vllm.engine.state, len(vllm.starts)) == (EngineState.STOPPED, 1)

    play(vllm, story, start=False)


def test_a_restart_takes_new_limits_and_requests_wait_for_it(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        wider = EngineLimits(64, 4, 16, 128)
        restarting = asyncio.create_task(vllm.engine.restart(wider))
        await until(lambda: vllm.engine.state is EngineState.STARTING)
        assert await vllm.complete() == 200
        await restarting
        assert vllm.engine.limits == wider
        assert vllm.starts == ["rank=8", "rank=64"]

    play(vllm, story)


def test_the_context_length_is_the_one_that_the_engine_found(base: BaseModel, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM) -> None:
        seen: list[int | None] = []

        async def on_up(place: AdapterHost) -> None:
            seen.append(place.limits.max_model_len)

        vllm.engine.on_up = on_up
        assert vllm.engine.limits.max_model_len == 128  # the model's own
        vllm.tell("length", "96")
        await vllm.engine.start()
        assert vllm.engine.limits.max_model_len == 96
        vllm.tell("length", "80")  # less is left with room for more adapters
        await vllm.engine.restart(replace(vllm.engine.limits, max_loras=8))
        assert vllm.engine.limits.max_model_len == 80
        assert seen == [96, 80]

    play(FakeVLLM.over(base, tmp_path), story, start=False)


def test_limits_with_which_it_does_not_start_are_taken_back(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        before = vllm.engine.limits
        with pytest.raises(EngineStartError, match="max_lora_rank is 20"):
            await vllm.engine.restart(EngineLimits(20, 4, 16, 128))
        assert len(vllm.starts) == 1
        vllm.tell("refuse_start", "no memory")
        restarting = asyncio.create_task(vllm.engine.restart(EngineLimits(64, 4, 16, 128)))
        await until(lambda: len(vllm.starts) == 2)
        vllm.untell("refuse_start")
        with pytest.raises(EngineStartError, match=r"previous limits.*no memory"):
            await restarting
        assert vllm.engine.limits == before
        assert await vllm.complete() == 200

    play(vllm, story)


def test_an_adapters_fault_is_no_death(vllm: FakeVLLM, tmp_path: Path) -> None:
    async def story(vllm: FakeVLLM) -> None:
        with pytest.raises(AdapterError):
            async with vllm.engine.request("GET", "/v1/models"):
                raise AdapterError("unfit")
        assert (vllm.engine.state, vllm.engine.in_flight) == (EngineState.READY, 0)

    play(vllm, story)


def test_stopping_in_the_middle_of_a_restart_leaves_nothing_and_tells_who_waits(vllm: FakeVLLM) -> None:
    async def story(vllm: FakeVLLM) -> None:
        restarting = asyncio.create_task(vllm.engine.restart())
        await until(lambda: len(vllm.starts) == 2)
        await vllm.engine.stop()
        with pytest.raises(EngineUnavailableError, match="stopped in the meantime"):
            await restarting
        assert vllm.engine.session is None

    play(vllm, story)
