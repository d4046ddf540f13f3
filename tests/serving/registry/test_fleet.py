"""All engines of a server together: what they are started for, and a restart in which requests only wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from serving import (
    AdapterMisfitError,
    BaseModel,
    EngineError,
    EngineLimits,
    EngineStartError,
    EngineState,
    Registry,
    Replica,
    pool_of,
)
from serving.adapters.adapter import read_adapter
from serving.engines.remote.client import RemoteAddress
from serving.engines.remote.engine import RemoteEngine
from serving.registry.derived_limits import LimitSettings
from serving.registry.fleet import Fleet, RestartRefusedError
from serving.registry.pool import Pool
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base
from tests.serving.fake_engine import FakeEngine


class RestartableEngine(FakeEngine):
    """A fake that restarts as `VLLMProcess` does: new generation, adapters brought back before anybody is let in."""

    def __init__(self, base: BaseModel, limits: EngineLimits | None = None) -> None:
        super().__init__(base)
        self.limits = limits or self.limits
        self.given: list[EngineLimits] = []
        self.fault: str | None = None
        self.on_up = None

    async def restart(self, limits: EngineLimits | None = None) -> None:  # type: ignore[override]
        assert limits
        self.given.append(limits)
        self.state = EngineState.STARTING
        await asyncio.sleep(0.05)
        self.loaded.clear()
        self.generation += 1
        if self.fault is None:
            self.limits = limits
        if self.on_up:
            await self.on_up(self)
        self.state = EngineState.READY
        if self.fault:
            raise EngineStartError(self.fault)


class Place:
    """An adapters directory, one base with two engines, and the fleet."""

    def __init__(self, base: BaseModel, adapters_dir: Path, engines: int = 2) -> None:
        self.base, self.dir = base, adapters_dir
        self.engines = [RestartableEngine(base) for _ in range(engines)]
        self.pool = pool_of(*self.engines)
        self.registry = Registry(adapters_dir, [self.pool])
        self.fleet = Fleet(self.registry)

    def add(self, r: int = 2) -> str:
        """A new adapter's name."""
        return read_adapter(write_adapter(self.dir, self.base, r=r)).name


@pytest.fixture
def place(base: BaseModel, tmp_path: Path) -> Place:
    return Place(base, tmp_path / "adapters")


def test_limits_follow_from_the_adapters_that_there_are(place: Place) -> None:
    replica = place.pool.replicas[0]
    assert place.fleet.wanted_limits(replica) == EngineLimits(32, 4, 32, place.engines[0].limits.max_model_len)
    place.add(r=33)
    for _ in range(5):
        place.add()
    wanted = place.fleet.wanted_limits(replica)
    assert (wanted.max_lora_rank, wanted.max_loras) == (64, 6)
    for _ in range(5):
        place.add()
    assert place.fleet.wanted_limits(replica).max_loras == 8


def test_a_rank_pattern_counts_as_a_rank(place: Place) -> None:
    write_adapter(place.dir, place.base, rank_pattern={"q_proj": 100})
    assert place.fleet.wanted_limits(place.pool.replicas[0]).max_lora_rank == 128


def test_what_is_set_is_not_derived(place: Place) -> None:
    place.add(r=64)
    fleet = Fleet(place.registry, LimitSettings(16, 2, 1))
    wanted = fleet.wanted_limits(place.pool.replicas[0])
    assert (wanted.max_lora_rank, wanted.max_loras, wanted.max_cpu_loras) == (16, 2, 2)


def test_adapters_of_another_base_do_not_count(base: BaseModel, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other-base", seed=1)
    engines = [RestartableEngine(base), RestartableEngine(other)]
    pools = [Pool(engine.base, (Replica(f"engine-{n}", engine),)) for n, engine in enumerate(engines)]
    write_adapter(tmp_path / "adapters", other, r=64)
    fleet = Fleet(Registry(tmp_path / "adapters", pools))
    assert [fleet.wanted_limits(pool.replicas[0]).max_lora_rank for pool in pools] == [32, 64]


def test_an_adapter_that_does_not_fit_is_served_after_a_restart(place: Place) -> None:
    name = place.add(r=16)

    async def play() -> None:
        with pytest.raises(AdapterMisfitError):
            await place.registry.resolve(name)
        await place.fleet.restart(place.fleet.local)
        assert await place.registry.resolve(name) == name

    asyncio.run(play())
    assert [engine.limits.max_lora_rank for engine in place.engines] == [32, 32]


def test_adapters_are_back_before_the_restarted_engine_lets_anybody_in(place: Place) -> None:
    name = place.add()

    async def play() -> None:
        await place.registry.resolve(name)
        await place.fleet.restart(place.fleet.local)

    asyncio.run(play())
    assert all(name in engine.loaded for engine in place.engines)


def test_no_request_fails_while_all_engines_restart_one_after_another(place: Place) -> None:
    name = place.add()

    async def play() -> int:
        done, stop = 0, asyncio.Event()

        async def ask_again_and_again() -> None:
            nonlocal done
            while not stop.is_set():
                async with place.registry.lease(name) as lease:
                    assert lease.engine.state is EngineState.READY
                    await asyncio.sleep(0.02)
                    assert lease.engine.state is EngineState.READY
                done += 1

        asking = [asyncio.create_task(ask_again_and_again()) for _ in range(20)]
        await asyncio.sleep(0.1)
        await place.fleet.restart(place.fleet.local)
        stop.set()
        await asyncio.gather(*asking)
        return done

    assert asyncio.run(play()) > 20
    assert [engine.generation for engine in place.engines] == [2, 2]


def test_requests_wait_for_an_only_engine(base: BaseModel, tmp_path: Path) -> None:
    place = Place(base, tmp_path / "adapters", engines=1)

    async def play() -> None:
        restarting = place.fleet.restart(place.fleet.local)
        await asyncio.sleep(0.02)
        async with place.registry.lease(base.name) as lease:
            assert lease.engine.state is EngineState.READY
            assert lease.engine.generation == 2
        await restarting

    asyncio.run(play())


def test_a_restart_is_called_off_where_requests_do_not_end_and_with_force_they_are_cut(place: Place) -> None:
    async def play() -> None:
        async with place.registry.lease(place.base.name):
            with pytest.raises(RestartRefusedError, match="still has 1 requests in flight"):
                await place.fleet.restart(place.fleet.local, drain_timeout_s=0.1)
            assert all(replica.admits.is_set() for replica in place.pool.replicas)
            assert [engine.generation for engine in place.engines] == [1, 1]
            await place.fleet.restart(place.fleet.local, drain_timeout_s=0.1, force=True)
        assert [engine.generation for engine in place.engines] == [2, 2]

    asyncio.run(play())


def test_an_engine_that_does_not_start_with_new_limits_ends_the_roll_and_serves_on(place: Place) -> None:
    place.engines[0].fault = "no memory"

    async def play() -> None:
        with pytest.raises(EngineError, match="no memory"):
            await place.fleet.restart(place.fleet.local)
        assert await place.registry.resolve(place.base.name) == place.base.name

    asyncio.run(play())
    assert [engine.generation for engine in place.engines] == [2, 1]
    assert all(replica.is_up for replica in place.pool.replicas)


def test_one_restart_at_a_time_and_none_of_what_is_not_ours(base: BaseModel, tmp_path: Path) -> None:
    engine = RestartableEngine(base)
    remote = Replica("lab", RemoteEngine(RemoteAddress.parse("lab", "http://127.0.0.1:9")))
    fleet = Fleet(Registry(tmp_path / "adapters", [pool_of(engine)], remotes=[remote]))

    async def play() -> None:
        with pytest.raises(RestartRefusedError, match="lab is a remote engine"):
            fleet.restart([remote])
        first = fleet.restart(fleet.local)
        with pytest.raises(RestartRefusedError, match="already"):
            fleet.restart(fleet.local)
        await first
        await fleet.restart(fleet.local)

    asyncio.run(play())
    assert engine.generation == 3


def test_a_stopping_server_ends_a_restart(place: Place) -> None:
    async def play() -> None:
        async with place.registry.lease(place.base.name):
            restarting = place.fleet.restart(place.fleet.local)
            await asyncio.sleep(0.02)
            async with asyncio.timeout(5):
                await place.fleet.stop()
        assert restarting.cancelled()

    asyncio.run(play())


def test_the_status_tells_state_load_and_what_a_restart_would_change(place: Place) -> None:
    name = place.add(r=16)
    small = place.add()

    async def play() -> None:
        async with place.registry.lease(small):
            place.pool.replicas[1].admits.clear()
            first, second = await place.fleet.statuses()
        assert (first.id, first.kind, first.base_model, first.state) == ("engine-0", "vllm", place.base.name, "ready")
        assert (first.in_flight, first.adapters_loaded, second.state) == (1, (small,), "draining")
        assert (first.limits, first.wanted_limits) == (
            place.engines[0].limits,
            replace(place.engines[0].limits, max_lora_rank=32, max_loras=4, max_cpu_loras=32),
        )

    asyncio.run(play())
    assert name in place.registry.names()


def test_each_base_that_no_engine_answers_for_is_named(base: BaseModel, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other-base", seed=1)
    engines = [RestartableEngine(one) for one in (base, base, other)]
    pools = [pool_of(*engines[:2]), Pool(other, (Replica("engine-2", engines[2]),))]
    fleet = Fleet(Registry(tmp_path / "adapters", pools))
    engines[0].state = EngineState.DEAD
    assert asyncio.run(fleet.bases_down()) == {}
    engines[2].state = EngineState.STARTING
    assert asyncio.run(fleet.bases_down()) == {other.name: "starting"}
