"""How engines and trainings share GPUs that aren't here, for bases without their weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.app.engines import build_engine_settings, end_leftover_engines
from server.app.sharing import share_accelerator
from server.jobs.run.queue import Runner
from server.settings import Settings
from serving import GPU, BaseModel, Device, EngineStartError, VLLMSettings
from serving.engines.accelerator import Accelerator
from serving.engines.vllm.arguments import least_gpu_bytes, plan_launch
from serving.errors import EngineMemoryError
from serving.machine.division import Division
from serving.machine.leftovers import hold_engine_lock
from tests.gpu.bases import BASES, write_base
from tests.gpu.cards import A100_40, DESKTOP_4090, H100, RTX_3060, RTX_3070, RTX_4090, T4, Card, write_nvidia_smi
from tests.server.conftest import StartGateway
from tests.server.inspection.test_preflight import asleep, use_files_of
from tests.server.jobs.test_fine_tuning_api import add_file, create

GIB = 2**30
SLICE = Card("NVIDIA A100 MIG 1g.10gb", 9728, (8, 0))
QUADRO = Card("NVIDIA T400 4GB", 4096, (7, 5))
SHORT = {
    "0.5B": "Qwen2.5-0.5B-Instruct", "1.5B": "Qwen2.5-1.5B-Instruct", "3B": "Qwen2.5-3B-Instruct",
    "7B": "Qwen2.5-7B-Instruct", "8B": "Llama-3.1-8B-Instruct", "14B": "Qwen2.5-14B-Instruct",
    "32B": "Qwen2.5-32B-Instruct", "70B": "Llama-3.1-70B-Instruct",
}  # fmt: skip
TABLE: Mapping[str, tuple[tuple[Card, ...], dict[str, str]]] = {
    # machine: its cards; policy → the bases that it is chosen for. Those left out have no engine there.
    "8 GB": ((RTX_3070,), {"split": "0.5B", "stop": "1.5B 3B"}),
    "MIG slice": ((SLICE,), {"split": "0.5B", "stop": "1.5B 3B"}),
    "12 GB": ((RTX_3060,), {"split": "0.5B 1.5B", "stop": "3B"}),
    "16 GB": ((T4,), {"split": "0.5B 1.5B", "stop": "3B"}),
    "24 GB": ((RTX_4090,), {"split": "0.5B 1.5B 3B", "stop": "7B 8B"}),
    "24 GB with a desktop": ((DESKTOP_4090,), {"split": "0.5B 1.5B 3B", "stop": "7B 8B"}),
    "40 GB": ((A100_40,), {"split": "0.5B 1.5B 3B 7B 8B", "stop": "14B"}),
    "80 GB": ((H100,), {"split": "0.5B 1.5B 3B 7B 8B 14B", "stop": "32B"}),
    "2 × 24 GB": ((RTX_4090, RTX_4090), {"separate": "0.5B 1.5B 3B 7B 8B", "stop": "14B"}),
    "8 × 80 GB": ((H100,) * 8, {"separate": "0.5B 1.5B 3B 7B 8B 14B 32B 70B"}),
    "24 GB and a small one": ((QUADRO, RTX_4090), {"split": "0.5B 1.5B 3B", "stop": "7B 8B"}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModel]:
    folder = tmp_path_factory.mktemp("bases")
    paths = {name: write_base(folder, name) for name in BASES}
    return {
        name: BaseModel(name, path, "0" * 64, json.loads((path / "config.json").read_text()))
        for name, path in paths.items()
    }


def machine(*cards: Card, host_gib: int = 64) -> Device:
    gpus = tuple(
        GPU(card.name, card.memory_mib * 2**20, (card.free_mib or card.memory_mib - 500) * 2**20, str(number))
        for number, card in enumerate(cards)
    )
    return Device("cuda", gpus, host_gib * GIB, host_gib * GIB, 16, frozenset())


def share(device: Device, *bases: BaseModel, **settings: Any) -> tuple[Division, VLLMSettings]:
    chosen = Settings(**settings)
    return share_accelerator(chosen, bases, replace(build_engine_settings(chosen), device="cuda"), device)


@pytest.mark.parametrize("name", TABLE)
def test_each_machine_gets_the_policy_that_its_memory_allows(bases: dict[str, BaseModel], name: str) -> None:
    cards, expected = TABLE[name]
    device, found = machine(*cards), dict.fromkeys(expected, "")
    for short, full in SHORT.items():
        division, common = share(device, bases[full])
        try:
            plan = plan_launch(bases[full], common, device, Path("/run/s"))
        except EngineMemoryError:
            continue
        found[division.policy] = f"{found[division.policy]} {short}".strip()
        engine = device.gpus[common.devices[0] if common.devices else device.main_gpu]
        if division.policy == "split":
            assert division.training_bytes
            share_bytes = int(common.gpu_memory_utilization * engine.memory_total_bytes)
            assert share_bytes + division.training_bytes <= engine.memory_free_bytes
            assert share_bytes >= 0.999 * least_gpu_bytes(bases[full], common)
        if division.policy == "separate":
            assert not {*division.engine} & {*division.training}
            assert len(division.engine) == common.tensor_parallel
        if common.tensor_parallel > 1:
            at = plan.command.index("--tensor-parallel-size")
            assert plan.command[at + 1] == str(common.tensor_parallel)
            visible = plan.environment["CUDA_VISIBLE_DEVICES"].split(",")
            assert len(visible) == common.tensor_parallel
    assert found == expected


def test_what_is_set_is_kept(bases: dict[str, BaseModel]) -> None:
    device, base = machine(RTX_4090), bases[SHORT["7B"]]
    division, common = share(device, base, accelerator_policy="split", gpu_memory_utilization=0.8)
    assert (division.policy, common.gpu_memory_utilization) == ("split", 0.8)
    assert division.training_bytes == device.gpus[0].memory_free_bytes - int(0.8 * device.gpus[0].memory_total_bytes)
    two = machine(RTX_4090, RTX_4090)
    division, common = share(two, base, accelerator_policy="stop")
    assert (division.policy, division.engine, common.devices) == ("stop", (), ())
    division, common = share(two, base, engine_devices="1")
    assert (division.policy, division.engine, division.training) == ("separate", (1,), (0,))
    division, common = share(two, base, tensor_parallel=2)
    assert (division.policy, common.devices, common.tensor_parallel) == ("stop", (0, 1), 2)
    for arguments in (["--tensor-parallel-size", "2"], ["--tensor-parallel-size=2"], ["-tp=2"]):
        division, common = share(two, base, engine_args=arguments)
        assert (division.policy, common.devices, common.tensor_parallel) == ("stop", (0, 1), 2)


def test_several_bases_are_counted_together(bases: dict[str, BaseModel]) -> None:
    device = machine(RTX_4090)
    assert share(device, bases[SHORT["1.5B"]])[0].policy == "split"
    assert share(device, bases[SHORT["1.5B"]], bases[SHORT["3B"]], replicas=2)[0].policy == "stop"


def test_more_gpus_than_there_are_and_sleep_without_room_for_the_weights_are_refused(
    bases: dict[str, BaseModel],
) -> None:
    base, device = bases[SHORT["7B"]], machine(RTX_4090, host_gib=12)
    with pytest.raises(EngineStartError, match=r"takes 14\.2 GiB, and 12\.0 GiB is free\. Use stop or auto"):
        share(device, base, accelerator_policy="sleep")
    _, common = share(device, base, tensor_parallel=2)
    with pytest.raises(EngineStartError, match=r"tensor_parallel is 2, but the engine has 1 GPU"):
        plan_launch(base, common, device, Path("/run/s"))
    _, common = share(machine(RTX_4090, RTX_4090), bases[SHORT["32B"]])
    with pytest.raises(EngineStartError, match=r"more GPUs with tensor_parallel, here up to 2"):
        plan_launch(bases[SHORT["32B"]], common, machine(RTX_4090, RTX_4090), Path("/run/s"))


def test_a_job_is_judged_by_what_the_policy_leaves_and_the_refusal_says_so(
    start_gateway: StartGateway, bases: dict[str, BaseModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", f"{write_nvidia_smi(tmp_path / 'bin', RTX_4090)}:{os.environ['PATH']}")
    monkeypatch.setattr(Runner, "start", asleep)
    base = bases[SHORT["7B"]]
    for policy, status in (("split", 400), ("auto", 200)):
        division, _ = share(machine(RTX_4090), base, accelerator_policy=policy)
        gateway = start_gateway(accelerator=Accelerator(division.policy, (), division))
        use_files_of(gateway, base.path)
        response = create(gateway, training_file=add_file(gateway))
        assert response.status_code == status, response.text
        if status == 400:
            message = gateway.error(response)["message"]
            assert "of the 25.76 GB of NVIDIA GeForce RTX 4090 are left beside the engine" in message
            assert "(accelerator_policy split)" in message
            assert "sets `accelerator_policy` to stop: then about 26 GB are there" in message


def test_an_engine_of_another_server_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "engine.json").write_text("{}")
    with hold_engine_lock(tmp_path / "engine"), pytest.raises(EngineStartError, match="Another server"):
        end_leftover_engines(tmp_path)
    assert end_leftover_engines(tmp_path) == 0
