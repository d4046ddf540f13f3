"""Which engine gets the next request: the one with the least to do, unless another has the adapter already."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serving import BaseModel, EngineState, Registry
from serving.adapters.adapter import read_adapter
from serving.registry.pool import MAX_IMBALANCE, Pool, Replica, choose, pool_of
from tests.serving.adapters.adapters_on_disk import write_adapter
from tests.serving.fake_engine import FakeEngine


@pytest.fixture
def pool(base: BaseModel) -> Pool:
    """Three engines of one base."""
    return pool_of(FakeEngine(base), FakeEngine(base), FakeEngine(base))


def busy(replica: Replica, requests: int) -> None:
    replica.leases["model"] = requests


def test_the_engine_with_the_least_to_do_is_chosen(pool: Pool) -> None:
    busy(pool.replicas[0], 2)
    busy(pool.replicas[2], 1)
    assert pool.choose() is pool.replicas[1]


def test_an_engine_that_has_the_adapter_is_preferred_up_to_the_spread(pool: Pool) -> None:
    holder = pool.replicas[2]
    holder.mark_loaded("adapter")
    busy(holder, MAX_IMBALANCE)
    assert pool.choose("adapter") is holder
    assert pool.choose("other") is pool.replicas[0]
    busy(holder, MAX_IMBALANCE + 1)
    assert pool.choose("adapter") is pool.replicas[0]


def test_the_idlest_of_several_holders_is_chosen(pool: Pool) -> None:
    for replica in pool.replicas[1:]:
        replica.mark_loaded("adapter")
    busy(pool.replicas[1], 3)
    assert pool.choose("adapter") is pool.replicas[2]


def test_what_an_engine_knew_before_its_restart_does_not_count(pool: Pool) -> None:
    holder = pool.replicas[2]
    holder.mark_loaded("adapter")
    assert isinstance(holder.engine, FakeEngine)
    holder.engine.restart()
    assert pool.choose("adapter") is pool.replicas[0]


@pytest.mark.parametrize("state", [EngineState.DEAD, EngineState.STARTING, EngineState.STOPPED])
def test_an_engine_that_is_down_is_avoided_whatever_it_has(pool: Pool, state: EngineState) -> None:
    down = pool.replicas[0]
    down.mark_loaded("adapter")
    assert isinstance(down.engine, FakeEngine)
    down.engine.state = state
    assert pool.choose("adapter") is pool.replicas[1]


def test_an_engine_that_is_drained_is_avoided(pool: Pool) -> None:
    pool.replicas[0].admits.clear()
    assert pool.choose() is pool.replicas[1]


def test_where_all_are_down_one_is_chosen_that_says_how_long_to_wait(pool: Pool) -> None:
    for replica in pool.replicas:
        assert isinstance(replica.engine, FakeEngine)
        replica.engine.state = EngineState.DEAD
    assert choose(pool.replicas) in pool.replicas


def test_requests_wait_while_their_only_engine_is_drained(base: BaseModel, tmp_path: Path) -> None:
    pool = pool_of(FakeEngine(base))
    registry = Registry(tmp_path / "adapters", [pool])

    async def play() -> None:
        pool.replicas[0].admits.clear()
        asking = asyncio.create_task(registry.resolve(base.name))
        await asyncio.sleep(0.05)
        assert not asking.done()
        pool.replicas[0].admits.set()
        assert await asking == base.name

    asyncio.run(play())


def test_many_requests_for_one_adapter_spread_over_the_engines(base: BaseModel, tmp_path: Path) -> None:
    pool = pool_of(FakeEngine(base), FakeEngine(base))
    registry = Registry(tmp_path / "adapters", [pool])
    name = read_adapter(write_adapter(registry_dir := tmp_path / "adapters", base)).name
    assert registry_dir.is_dir()

    async def play() -> list[int]:
        inside, leave = asyncio.Semaphore(0), asyncio.Event()

        async def ask() -> None:
            async with registry.lease(name):
                inside.release()
                await leave.wait()

        async with asyncio.TaskGroup() as group:
            for _ in range(2 * MAX_IMBALANCE + 8):
                group.create_task(ask())
            for _ in range(2 * MAX_IMBALANCE + 8):
                await inside.acquire()
            counts = [replica.in_flight for replica in pool.replicas]
            leave.set()
        return counts

    first, second = asyncio.run(play())
    assert abs(first - second) <= MAX_IMBALANCE + 1
    assert all(name in replica.engine.loaded for replica in pool.replicas if isinstance(replica.engine, FakeEngine))
