"""Adapters into the engine and out again: evicted, judged, brought back. Before an engine that does what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from serving import (
    Adapter,
    AdapterError,
    AdapterHost,
    BaseModel,
    ParityError,
    Registry,
    pool_of,
)
from tests.serving.fake_engine import FakeEngine
from tests.serving.place import Place


@pytest.fixture
def place(base: BaseModel, tmp_path: Path) -> Place:
    return Place(base, tmp_path / "adapters")


class ScriptedGate:
    """A gate that refuses the names that it is told to, and writes its verdict as the real one does."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.judged: list[str] = []
        self.faults: dict[str, str] = {}

    async def check(self, adapter: Adapter, engine: AdapterHost) -> None:
        assert isinstance(engine, FakeEngine)
        assert adapter.name in engine.loaded, "judged before it was loaded"
        self.judged.append(adapter.name)
        await asyncio.sleep(0.02)
        reason = self.refused.get(adapter.name)
        parity = {"passed": reason is None, "reasons": [reason] if reason else []}
        (adapter.path / "manifest.json").write_text(json.dumps({**adapter.manifest, "parity": parity}))
        if reason:
            raise ParityError(reason)

    async def run_canary(self, engine: AdapterHost, adapters: Sequence[Adapter]) -> dict[str, str]:
        return {name: fault for name, fault in self.faults.items() if name in {adapter.name for adapter in adapters}}


@pytest.fixture
def gated(place: Place) -> tuple[Place, ScriptedGate]:
    gate = ScriptedGate()
    place.registry = Registry(place.dir, [pool_of(place.engine)], gate=gate)
    return place, gate


def test_beyond_the_engines_memory_the_least_recently_used_adapter_is_unloaded(place: Place) -> None:
    names = [place.add() for _ in range(5)]  # LIMITS hold 4

    async def play() -> None:
        for name in [*names[:4], names[0], names[4]]:
            await place.registry.resolve(name)
        assert list(place.engine.loaded) == [names[0], names[2], names[3], names[4]]
        await place.registry.resolve(names[1])

    asyncio.run(play())
    assert list(place.engine.loaded) == [names[0], names[3], names[4], names[1]]


def test_an_adapter_in_use_is_never_evicted(place: Place) -> None:
    names = [place.add() for _ in range(6)]

    async def play() -> None:
        async with place.registry.lease(names[0]), place.registry.lease(names[1]):
            for name in names[2:]:
                await place.registry.resolve(name)
            assert {names[0], names[1]} < set(place.engine.loaded)
            assert len(place.engine.loaded) == 4

    asyncio.run(play())


def test_where_all_are_in_use_one_more_is_loaded_all_the_same(place: Place) -> None:
    names = [place.add() for _ in range(5)]

    async def play() -> None:
        async with AsyncExitStack() as held:
            for name in names:
                await held.enter_async_context(place.registry.lease(name))
            assert set(place.engine.loaded) == set(names)

    asyncio.run(play())


def test_the_gate_judges_once_before_anyone_is_answered(gated: tuple[Place, ScriptedGate]) -> None:
    place, gate = gated
    name = place.add()
    assert name not in place.registry.names()
    assert [adapter.name for adapter in place.registry.awaiting_gate()] == [name]

    async def ask() -> list[str]:
        return await asyncio.gather(*(place.registry.resolve(name) for _ in range(20)))

    assert set(asyncio.run(ask())) == {name}
    assert gate.judged == [name]
    assert name in place.registry.names()
    assert place.registry.awaiting_gate() == []


def test_what_the_gate_refuses_stays_unpublished_also_after_a_restart(gated: tuple[Place, ScriptedGate]) -> None:
    place, gate = gated
    name = place.add()
    gate.refused[name] = "it answers otherwise"
    with pytest.raises(ParityError, match="it answers otherwise"):
        asyncio.run(place.registry.publish(name))
    assert name not in place.registry.names()
    assert place.engine.loaded == {}
    again = Registry(place.dir, [pool_of(place.engine)], gate=gate)
    with pytest.raises(ParityError, match="it answers otherwise"):
        asyncio.run(again.resolve(name))
    assert gate.judged == [name]
    assert name not in again.names()
    assert "it answers otherwise" in again.broken()[place.registry.get(name).path.name]


def test_a_started_engine_gets_back_what_was_used_last(gated: tuple[Place, ScriptedGate]) -> None:
    place, _ = gated
    names = [place.add() for _ in range(5)]

    async def play() -> None:
        for name in names:
            await place.registry.resolve(name)
        await place.registry.resolve(names[1])
        place.engine.restart()
        await place.registry.restore_adapters(place.registry.replicas[0], place.engine)

    asyncio.run(play())
    assert list(place.engine.loaded) == [names[2], names[3], names[4], names[1]]
    place.engine.loads.clear()
    asyncio.run(place.registry.resolve(names[4]))
    assert place.engine.loads == []


def test_an_adapter_that_fails_the_canary_is_taken_out(gated: tuple[Place, ScriptedGate]) -> None:
    place, gate = gated
    good, bad = place.add(), place.add()

    async def play() -> None:
        await place.registry.resolve(good)
        await place.registry.resolve(bad)
        place.engine.restart()
        gate.faults[bad] = "other words than before"
        await place.registry.restore_adapters(place.registry.replicas[0], place.engine)
        with pytest.raises(ParityError, match="other words than before"):
            await place.registry.resolve(bad)

    asyncio.run(play())
    assert list(place.engine.loaded) == [good]
    assert place.registry.names() == ["tiny-base", good]


def test_a_caller_who_leaves_during_the_load_leaves_nothing_that_a_removal_overlooks(place: Place) -> None:
    name = place.add()

    async def play() -> None:
        asking = asyncio.create_task(place.registry.resolve(name))
        await asyncio.sleep(0.02)
        place.engine.loaded[name] = place.registry.get(name).path  # the engine goes on with what it was asked for
        asking.cancel()
        await asyncio.wait({asking})
        await place.registry.remove(name)

    asyncio.run(play())
    assert place.engine.loaded == {}


def test_what_is_being_removed_is_not_brought_back(place: Place) -> None:
    kept, going = place.add(), place.add()

    async def play() -> None:
        await place.registry.resolve(kept)
        await place.registry.resolve(going)
        async with place.registry.lease(going):
            removal = asyncio.create_task(place.registry.remove(going, drain_timeout_s=5))
            await asyncio.sleep(0.02)
            place.engine.restart()
            await place.registry.restore_adapters(place.registry.replicas[0], place.engine)
        await removal

    asyncio.run(play())
    assert list(place.engine.loaded) == [kept]


def test_an_adapter_that_cannot_be_judged_now_is_not_tried_by_every_caller(gated: tuple[Place, ScriptedGate]) -> None:
    place, gate = gated
    name = place.add()

    async def no_memory(adapter: Adapter, engine: AdapterHost) -> None:
        gate.judged.append(adapter.name)
        raise AdapterError("there is no memory for the reference")

    gate.check = no_memory  # type: ignore[method-assign]

    async def ask() -> list[str | BaseException]:
        return await asyncio.gather(*(place.registry.resolve(name) for _ in range(20)), return_exceptions=True)

    answers = asyncio.run(ask())
    assert {str(answer) for answer in answers} == {"there is no memory for the reference"}
    assert gate.judged == [name]
    assert name not in place.registry.broken().values()
