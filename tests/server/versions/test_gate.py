"""By which bound adapters are judged: our engines' dtype is known, that of engines which others run isn't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from server.versions.parity import make_gate
from serving import AdapterHost, BaseModel, EngineError, VLLMSettings
from serving.engines.remote.client import RemoteAddress, RemoteClient
from serving.engines.remote.engine import RecordingClient, RemoteEngine
from serving.machine.device import Device
from serving.parity.gate import ParityGate
from tests.serving.adapters.adapters_on_disk import write_base
from tests.serving.parity.test_parity import BASE, TUNED, Saying, SpeakingEngine, check

pytestmark = pytest.mark.anyio
CPU = Device("cpu", (), 2**34, 2**34, 2, frozenset())


@pytest.fixture
def anyio_backend() -> str:
    """The engines' event loop is asyncio's."""
    return "asyncio"


@pytest.fixture
def gate(tmp_path: Path) -> ParityGate:
    """That of a server whose own engines compute in float32."""
    return make_gate(VLLMSettings(tmp_path, tmp_path / "log", device="cpu", dtype="float32"), CPU)


def rounded(said: Saying) -> Saying:
    """The same, as far off as bfloat16 may be and float32 may not."""
    return lambda ids, place: said(ids, place) + 0.05 * (-1) ** place


def remote(speaking: SpeakingEngine) -> AdapterHost:
    engine = RemoteEngine(RemoteAddress.parse("lab", "http://127.0.0.1:9/v1"), speaking.base)
    engine.request = speaking.request  # type: ignore[method-assign, assignment]
    return engine


def coming_up(speaking: SpeakingEngine) -> AdapterHost:
    return RecordingClient(cast("RemoteClient", speaking), set())


async def canary_of(
    gate: ParityGate, folder: Path, place_of: Callable[[SpeakingEngine], AdapterHost]
) -> dict[str, str]:
    base: BaseModel = write_base(folder / "tiny-base")
    (folder / "adapters").mkdir()
    adapter = await check(folder, base, TUNED)
    adapter.manifest["parity"]["engine_dtype"] = "float32"
    speaking = SpeakingEngine(base, {base.name: rounded(BASE), adapter.name: rounded(TUNED)})
    return await gate.run_canary(place_of(speaking), [adapter])


@pytest.mark.parametrize("place_of", [remote, coming_up])
async def test_an_engine_that_others_run_may_compute_in_any_dtype(
    gate: ParityGate, tmp_path: Path, place_of: Callable[[SpeakingEngine], AdapterHost]
) -> None:
    assert await canary_of(gate, tmp_path, place_of) == {}


async def test_an_engine_of_ours_is_held_to_its_dtype(gate: ParityGate, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="answers differently"):
        await canary_of(gate, tmp_path, lambda speaking: speaking)
