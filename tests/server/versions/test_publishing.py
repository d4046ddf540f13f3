"""What comes into the adapters directory beside a running server is judged, and only then there for anybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from server.versions.publisher import Publisher
from serving import Adapter, AdapterHost, EngineUnavailableError, ParityError, Registry, pool_of
from serving.adapters.adapter import read_adapter
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base
from tests.serving.fake_engine import FakeEngine


class Gate:
    """Lets through what `verdict` doesn't refuse."""

    def __init__(self, verdict: Callable[[Adapter], None]) -> None:
        self.verdict = verdict
        self.judged: list[str] = []

    async def check(self, adapter: Adapter, engine: AdapterHost) -> None:
        self.judged.append(adapter.name)
        parity = {"passed": True, "reasons": []}
        try:
            self.verdict(adapter)
        except ParityError as error:
            parity = {"passed": False, "reasons": [str(error)]}
            raise
        finally:
            manifest = adapter.path / "manifest.json"
            manifest.write_text(json.dumps({**adapter.manifest, "parity": parity}))

    async def run_canary(self, engine: AdapterHost, adapters: Sequence[Adapter]) -> dict[str, str]:
        return {}


def publish(tmp_path: Path, gate: Gate, done: Callable[[Registry], bool]) -> tuple[Registry, str]:
    """The registry once `done` holds of it, and the name of an adapter that came while the publisher ran."""
    base = write_base(tmp_path / "base")
    registry = Registry(tmp_path / "adapters", [pool_of(FakeEngine(base))], gate=gate)

    async def play() -> str:
        publisher = Publisher(registry, pause_s=0.02, retry_after_s=0.05)
        await publisher.start()
        name = read_adapter(write_adapter(tmp_path / "adapters", base)).name
        assert name not in registry.names()
        async with asyncio.timeout(20):
            while not done(registry):  # noqa: ASYNC110 (what is awaited is a state, not an event)
                await asyncio.sleep(0.02)
        await publisher.stop()
        return name

    return registry, asyncio.run(play())


def test_an_adapter_put_in_place_is_published_once_the_gate_let_it_through(tmp_path: Path) -> None:
    gate = Gate(lambda adapter: None)
    _, name = publish(tmp_path, gate, lambda registry: len(registry.names()) == 2)
    assert gate.judged == [name]


def test_one_that_the_gate_refuses_is_told_as_broken_and_judged_once(tmp_path: Path) -> None:
    def refuse(adapter: Adapter) -> None:
        raise ParityError("it changes nothing")

    gate = Gate(refuse)
    registry, name = publish(tmp_path, gate, lambda registry: bool(registry.broken()))
    assert gate.judged == [name]
    assert ["it changes nothing" in reason for reason in registry.broken().values()] == [True]
    assert name not in registry.names()


def test_a_gate_that_cannot_judge_now_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = [1, 1]

    def away_at_first(adapter: Adapter) -> None:
        if left:
            left.pop()
            raise EngineUnavailableError("The engine is starting.", 1)

    class Patient(Gate):
        async def check(self, adapter: Adapter, engine: AdapterHost) -> None:
            self.judged.append(adapter.name)
            away_at_first(adapter)
            (adapter.path / "manifest.json").write_text(json.dumps({**adapter.manifest, "parity": {"passed": True}}))

    gate = Patient(away_at_first)
    _, name = publish(tmp_path, gate, lambda registry: len(registry.names()) == 2)
    assert gate.judged == [name] * 3
    assert "Can't publish" in caplog.text
