"""Names to adapters, before an engine that does what the test says. With the real engine: test_vllm_process."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from serving import (
    AdapterError,
    AdapterInUseError,
    BaseModel,
    EngineUnavailableError,
    ModelNotFoundError,
    Registry,
    pool_of,
)
from serving.adapters.adapter import read_adapter
from serving.registry.pool import MAX_IMBALANCE
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base
from tests.serving.fake_engine import FakeEngine
from tests.serving.place import Place


@pytest.fixture
def place(base: BaseModel, tmp_path: Path) -> Place:
    return Place(base, tmp_path / "adapters")


def test_the_base_models_name_stands_for_itself(place: Place) -> None:
    assert asyncio.run(place.registry.resolve("tiny-base")) == "tiny-base"
    assert place.engine.loads == []


def test_an_adapter_renamed_into_place_is_served_without_restart(place: Place) -> None:
    assert place.registry.names() == ["tiny-base"]
    names = [place.add() for _ in range(3)]
    assert sorted(place.registry.names()) == sorted(["tiny-base", *names])
    assert asyncio.run(place.registry.resolve(names[0])) == names[0]
    assert list(place.engine.loaded) == [names[0]]


def test_an_adapter_added_within_one_tick_of_the_time_stamp_is_noticed(place: Place) -> None:
    place.add()
    before = place.dir.stat()
    assert len(place.registry.names()) == 2
    name = place.add()
    os.utime(place.dir, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if the clock hadn't moved
    assert name in place.registry.names()


def test_what_is_still_being_written_is_not_offered(place: Place) -> None:
    path = place.registry.get(place.add()).path
    path.rename(path.with_name(f".partial-{path.name}"))
    assert place.registry.names() == ["tiny-base"]
    assert place.registry.broken() == {}


def test_a_hundred_callers_cause_one_load(place: Place) -> None:
    name = place.add()

    async def ask() -> list[str]:
        return await asyncio.gather(*(place.registry.resolve(name) for _ in range(100)))

    assert asyncio.run(ask()) == [name] * 100
    assert place.engine.loads == [name]


def test_adapters_load_beside_each_other(place: Place) -> None:
    names = [place.add() for _ in range(10)]

    async def ask() -> float:
        started = time.monotonic()
        await asyncio.gather(*map(place.registry.resolve, names))
        return time.monotonic() - started

    assert asyncio.run(ask()) < 10 * 0.05
    assert sorted(place.engine.loads) == sorted(names)


def test_after_a_restart_of_the_engine_an_adapter_is_loaded_again(place: Place) -> None:
    name = place.add()
    asyncio.run(place.registry.resolve(name))
    place.engine.restart()
    asyncio.run(place.registry.resolve(name))
    assert place.engine.loads == [name, name]
    assert name in place.engine.loaded


def test_a_first_caller_who_leaves_does_not_spoil_it_for_the_second(place: Place) -> None:
    name = place.add()

    async def ask() -> str:
        first = asyncio.create_task(place.registry.resolve(name))
        second = asyncio.create_task(place.registry.resolve(name))
        await asyncio.sleep(0.03)
        first.cancel()
        return await second

    assert asyncio.run(ask()) == name
    assert name in place.engine.loaded


def test_an_unknown_name_is_refused_with_the_names_there_are(place: Place) -> None:
    name = place.add()
    with pytest.raises(ModelNotFoundError) as caught:
        asyncio.run(place.registry.resolve("ft:nobody"))
    assert caught.value.available == ("tiny-base", name)


@pytest.mark.parametrize("name", ["../adapters", "/etc", ".", "", "adapter-0/../x"])
def test_a_path_is_no_name(place: Place, name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        asyncio.run(place.registry.resolve(name))


def test_broken_directories_are_listed_and_stand_in_nobodys_way(place: Place) -> None:
    good = place.add()
    (place.dir / "adapter-empty").mkdir()
    renamed = place.registry.get(place.add()).path
    renamed.rename(place.dir / "adapter-other")
    (place.dir / "stray.txt").write_text("x")
    assert set(place.registry.broken()) == {"adapter-empty", "adapter-other", "stray.txt"}
    assert place.registry.names() == ["tiny-base", good]


def test_a_damaged_adapter_is_refused_once_and_for_all_before_the_engine_sees_it(place: Place) -> None:
    good, bad = place.add(), place.add()
    adapter = place.registry.get(bad)
    weights = adapter.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    for _ in range(2):
        with pytest.raises(AdapterError, match="sha256 differs"):
            asyncio.run(place.registry.resolve(bad))
    assert "sha256 differs" in place.registry.broken()[adapter.id]
    assert place.registry.names() == ["tiny-base", good]
    assert place.engine.loads == []


def test_an_adapter_of_another_base_is_not_found_and_the_reason_said(place: Place, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other" / "tiny-base", seed=1)
    adapter = read_adapter(write_adapter(place.dir, other))
    with pytest.raises(ModelNotFoundError, match="trained on 'tiny-base' with different weights"):
        asyncio.run(place.registry.resolve(adapter.name))
    assert adapter.id in place.registry.broken()


def test_what_the_engine_refuses_is_not_asked_again(place: Place) -> None:
    name = place.add()
    place.engine.refuse = "no"

    async def ask() -> list[BaseException | str]:
        return await asyncio.gather(*(place.registry.resolve(name) for _ in range(20)), return_exceptions=True)

    assert {type(answer) for answer in asyncio.run(ask())} == {AdapterError}
    assert place.engine.loads == [name]


def test_an_engine_that_is_away_is_no_fault_of_the_adapter(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    name = place.add()

    async def away(name: str, path: Path) -> None:
        raise EngineUnavailableError("restarting", 1)

    with monkeypatch.context() as patch:
        patch.setattr(place.engine, "load_adapter", away)
        with pytest.raises(EngineUnavailableError):
            asyncio.run(place.registry.resolve(name))
    assert asyncio.run(place.registry.resolve(name)) == name


def test_removal_unloads_first_and_then_deletes(place: Place) -> None:
    name = place.add()

    async def use_and_remove() -> None:
        await place.registry.resolve(name)
        removed = await place.registry.remove(place.registry.get(name).id)
        assert removed.name == name

    asyncio.run(use_and_remove())
    assert place.engine.loaded == {}
    assert [path for path in place.dir.iterdir() if path.is_dir()] == []
    with pytest.raises(ModelNotFoundError):
        place.registry.get(name)


def test_removal_waits_for_requests_in_flight_and_refuses_new_ones(place: Place) -> None:
    name = place.add()
    path = place.registry.get(name).path

    async def play() -> None:
        async with place.registry.lease(name):
            removal = asyncio.create_task(place.registry.remove(name))
            await asyncio.sleep(0.1)
            with pytest.raises(ModelNotFoundError):
                await place.registry.resolve(name)
            assert name not in place.registry.names()
            assert path.is_dir()
        await removal
        assert not path.exists()

    asyncio.run(play())


def test_an_adapter_in_use_beyond_the_timeout_is_kept_and_goes_on_being_served(place: Place) -> None:
    name = place.add()

    async def play() -> None:
        async with place.registry.lease(name):
            with pytest.raises(AdapterInUseError, match="still used by 1 requests"):
                await place.registry.remove(name, drain_timeout_s=0.05)
        assert await place.registry.resolve(name) == name

    asyncio.run(play())
    assert name in place.engine.loaded


def test_a_lease_that_ends_in_an_error_is_given_back(place: Place) -> None:
    name = place.add()

    async def play() -> None:
        with pytest.raises(RuntimeError):
            async with place.registry.lease(name):
                raise RuntimeError
        await place.registry.remove(name, drain_timeout_s=0.05)

    asyncio.run(play())


def test_half_removed_directories_are_cleared_at_start(place: Place) -> None:
    half = place.registry.get(place.add()).path
    half.rename(place.dir / f".removed-{half.name}")
    Registry(place.dir, [pool_of(place.engine)])
    assert list(place.dir.iterdir()) == []


def test_a_directory_deleted_behind_its_back_is_not_offered(place: Place) -> None:
    name = place.add()
    shutil.rmtree(place.registry.get(name).path)
    with pytest.raises(ModelNotFoundError):
        place.registry.get(name)


def test_an_alias_is_the_version_it_stands_for_at_the_moment_of_asking(place: Place) -> None:
    first, second = place.add(), place.add()
    aliases = {"support": first}
    registry = Registry(place.dir, [pool_of(place.engine)], aliases=aliases)

    async def play() -> None:
        async with registry.lease("support") as before:
            aliases["support"] = second
            async with registry.lease("support") as after:
                assert (before.name, after.name) == (first, second)

    asyncio.run(play())
    assert "support" in registry.names()


def test_an_adapter_goes_to_the_engine_that_has_it_until_that_one_is_much_busier(place: Place) -> None:
    other = FakeEngine(place.base)
    registry = Registry(place.dir, [pool_of(place.engine, other)])
    name = place.add()

    async def play() -> None:
        async with AsyncExitStack() as held:
            engines = [(await held.enter_async_context(registry.lease(name))).engine for _ in range(MAX_IMBALANCE + 2)]
        assert engines == [place.engine] * (MAX_IMBALANCE + 1) + [other]

    asyncio.run(play())
    assert (place.engine.loads, other.loads) == ([name], [name])


def test_a_lease_tells_when_its_engine_was_restarted_and_no_longer_knows_the_adapter(place: Place) -> None:
    name = place.add()

    async def play() -> None:
        async with place.registry.lease(name) as lease:
            assert lease.is_known()
            place.engine.restart()
            assert not lease.is_known()

    asyncio.run(play())
