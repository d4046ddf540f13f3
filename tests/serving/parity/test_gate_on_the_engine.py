"""On the real engine: the parity gate lets a good adapter through and catches each fault that was planted.

What the checks of an adapter's files catch before the gate (numbers that aren't finite, cut files) is shown, too.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapter_format.hashing import file_sha256
from adapter_format.names import new_adapter_id
from server.versions.parity import COMMAND, ParityProcess
from serving import (
    AdapterError,
    EngineError,
    ParityError,
    Registry,
    VLLMProcess,
    pool_of,
    read_adapter,
)
from serving.parity.gate import ParityGate
from tests.forking_python import ForkingPython, through
from tests.serving.conftest import LiveEngine
from tests.training.runs import make_run
from training.process.environment import prepare_environment
from training.result.parity import make_references

prepare_environment(offline=True)

pytestmark = pytest.mark.engine
T = TypeVar("T")
WEIGHTS, MANIFEST = "adapter_model.safetensors", "manifest.json"
STEPS = 20


@dataclass
class World:
    """The shared engine, a registry of its own with the gate in it, and adapters that were trained for it."""

    engine: VLLMProcess
    registry: Registry
    gate: ParityGate
    adapters_dir: Path
    good: Path
    """Trained in 4 bit on the engine's base; outside `adapters_dir`."""
    other: Path
    """As `good`, with other weights."""
    runner: asyncio.Runner = field(repr=False)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def put(self, source: Path, change: Callable[[Path], None] = lambda path: None, **manifest: object) -> str:
        """The name of a copy of `source` in the adapters directory, changed, its hashes done again."""
        adapter_id = new_adapter_id()
        partial = shutil.copytree(source, self.adapters_dir / f".partial-{adapter_id}")
        change(partial)
        told = json.loads((partial / MANIFEST).read_text())
        files = [path for path in partial.iterdir() if path.name != MANIFEST]
        name = f"ft:{self.engine.base.name}:gate::{adapter_id[-8:]}"
        told |= {"id": adapter_id, "name": name, "base_model_sha256": self.engine.base.sha256}
        told |= {"files": {path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size} for path in files}}
        (partial / MANIFEST).write_text(json.dumps(told | manifest))
        partial.rename(self.adapters_dir / adapter_id)
        return name

    def publish(self, name: str) -> dict[str, Any]:
        """The gate's verdict in the manifest. Raises: what the registry raises."""
        parity: dict[str, Any] = self.run(self.registry.publish(name)).manifest["parity"]
        return parity

    def refusal(self, name: str) -> str:
        """The gate's words; the adapter isn't offered, and its manifest holds the evidence."""
        with pytest.raises(ParityError) as refused:
            self.publish(name)
        assert name not in self.registry.names()
        parity = read_adapter(self.registry.get(name).path).manifest["parity"]
        assert parity["passed"] is False
        assert all(reason in str(refused.value) for reason in parity["reasons"])
        again = Registry(self.adapters_dir, [pool_of(self.engine)], gate=self.gate)
        with pytest.raises(ParityError):
            self.run(again.publish(name))  # after a restart it is refused by what its manifest says
        return str(refused.value)


def trained(place: Path, base: Path) -> Path:
    run = make_run(place, base, max_steps=STEPS)
    code, _, err = run.finish()
    assert code == 0, err
    return run.output_dir


def reference(base: Path, adapter: Path) -> dict[str, Any]:
    """What a training of this adapter on this base writes down."""
    (found,) = make_references(base, [adapter])
    assert isinstance(found, dict), found
    return found


def with_other_weights(adapter: Path, base: Path) -> Path:
    """A copy with its layers' ranks mixed, and its own reference."""
    other = Path(shutil.copytree(adapter, adapter.with_name("other")))
    changed_weights(lambda name, values: np.roll(values, 1, axis=0))(other)
    told = json.loads((other / MANIFEST).read_text()) | {"parity_reference": reference(base, other)}
    (other / MANIFEST).write_text(json.dumps(told))
    return other


@pytest.fixture(scope="module")
def world(
    live: LiveEngine, demo_model: Path, tmp_path_factory: pytest.TempPathFactory, forking_python: ForkingPython
) -> World:
    place = tmp_path_factory.mktemp("gate")
    good = trained(place / "good", demo_model)
    other = with_other_weights(good, demo_model)
    gate = ParityGate(ParityProcess(through(str(forking_python.path), COMMAND)))
    registry = Registry(place / "adapters", [pool_of(live.engine)], gate=gate)
    return World(live.engine, registry, gate, place / "adapters", good, other, live.runner)


def changed_weights(change: Callable[[str, Any], Any]) -> Callable[[Path], None]:
    def apply(adapter: Path) -> None:
        weights = load_file(adapter / WEIGHTS)
        save_file({name: change(name, values) for name, values in weights.items()}, adapter / WEIGHTS)

    return apply


def zero_b(name: str, values: Any) -> Any:
    return np.zeros_like(values) if "lora_B" in name else values


def test_good_adapter_trained_in_4_bit_passes_and_is_offered(world: World) -> None:
    name = world.put(world.good)
    assert name not in world.registry.names()
    parity = world.publish(name)
    assert name in world.registry.names()
    assert (parity["passed"], parity["token_ids_equal"], parity["reasons"]) == (True, True, [])
    assert parity["tuned"]["mean"] < parity["bound"] < parity["tuned_vs_base"]["mean"]
    assert 0.9 < parity["share"] < 1.1


def test_imported_adapter_passes_by_a_reference_made_for_it(world: World) -> None:
    parity = world.publish(world.put(world.good, parity_reference=None))
    assert (parity["passed"], parity["token_ids_equal"]) == (True, True)


def test_adapter_of_another_base_with_the_same_shapes_is_caught_behind_a_forged_hash(
    world: World, tmp_path: Path
) -> None:
    stranger = Path(shutil.copytree(world.engine.base.path, tmp_path / world.engine.base.name))
    numbers = np.random.default_rng(0)
    for file in stranger.glob("*.safetensors"):
        weights = {
            name: (values + 0.3 * values.std() * numbers.standard_normal(values.shape)).astype(values.dtype)
            for name, values in load_file(file).items()
        }
        save_file(weights, file, metadata={"format": "pt"})
    made_there = reference(stranger, world.good)
    assert made_there["base_model_sha256"] != world.engine.base.sha256
    assert "computed with different weights" in world.refusal(world.put(world.good, parity_reference=made_there))
    forged = made_there | {"base_model_sha256": world.engine.base.sha256}
    assert "For the base model itself" in world.refusal(world.put(world.good, parity_reference=forged))


def test_zeroed_b_matrices_are_caught_whether_before_or_after_the_reference_was_made(world: World) -> None:
    after = world.refusal(world.put(world.good, changed_weights(zero_b)))
    assert "more like the base model" in after
    before = world.refusal(world.put(world.good, changed_weights(zero_b), parity_reference=None))
    assert "no effect" in before


def test_changed_chat_template_is_caught(world: World, tmp_path: Path) -> None:
    base = Path(shutil.copytree(world.engine.base.path, tmp_path / world.engine.base.name))
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("'<|user|>'", "'<|user|> '"))
    refusal = world.refusal(world.put(world.good, parity_reference=reference(base, world.good)))
    assert "chat template or tokenizer" in refusal
    assert "log-probabilities" not in refusal, "the weights are what they should be"


def test_swapped_weights_are_caught(world: World) -> None:
    def from_(source: Path) -> Callable[[Path], None]:
        return lambda adapter: shutil.copyfile(source / WEIGHTS, adapter / WEIGHTS) and None

    assert "different weights than were trained" in world.refusal(world.put(world.good, from_(world.other)))
    assert "different weights than were trained" in world.refusal(world.put(world.other, from_(world.good)))


def test_truncated_file_is_refused_before_the_engine_sees_it(world: World) -> None:
    def cut(adapter: Path) -> None:
        (adapter / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes()[:-1000])

    refused_by_files(world, world.put(world.good, cut), WEIGHTS)


def test_nan_is_refused_before_the_engine_sees_it(world: World) -> None:
    def one_nan(name: str, values: Any) -> Any:
        values = values.copy()
        values.flat[0] = np.nan
        return values

    refused_by_files(world, world.put(world.good, changed_weights(one_nan)), "NaN")


def refused_by_files(world: World, name: str, word: str) -> None:
    with pytest.raises(AdapterError, match=word) as refused:
        world.publish(name)
    assert not isinstance(refused.value, ParityError)
    assert name not in world.registry.names()
    assert "parity" not in world.registry.get(name).manifest


def test_canary_is_quiet_for_what_is_served_and_names_what_was_exchanged(world: World) -> None:
    one, two = (world.put(source) for source in (world.good, world.other))
    world.publish(one)
    world.publish(two)
    adapters = [world.registry.get(name) for name in (one, two)]
    assert world.run(world.gate.run_canary(world.engine, adapters)) == {}

    async def exchanged() -> dict[str, str]:
        for adapter in adapters:
            await world.engine.unload_adapter(adapter.name)
        for adapter, wrong in zip(adapters, reversed(adapters), strict=True):
            await world.engine.load_adapter(adapter.name, wrong.path)
        return await world.gate.run_canary(world.engine, adapters)

    assert world.run(exchanged()).keys() == {one, two}


def test_canary_distrusts_an_engine_that_serves_another_base(world: World) -> None:
    name = world.put(world.good)
    world.publish(name)
    adapter = read_adapter(world.registry.get(name).path)
    for prompt in adapter.manifest["parity"]["served"]:
        prompt["base"] = [value - 1 for value in prompt["base"]]
    with pytest.raises(EngineError, match="base model answers differently"):
        world.run(world.gate.run_canary(world.engine, [adapter]))
