"""What `tuneloop doctor` and `tuneloop train` say on a machine with a GPU that can't be used as it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from server.cli import main
from tests.gpu.cards import RTX_4090, write_nvidia_smi


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["tuneloop", *arguments])
    with pytest.raises(SystemExit) as left:
        main.main()
    return int(left.value.code or 0)


@pytest.fixture(autouse=True)
def old_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{write_nvidia_smi(tmp_path / 'bin', RTX_4090, driver='550.54.14')}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TUNELOOP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "240")


def test_doctor_names_a_driver_that_is_too_old(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("serving.machine.device.read_torch_cuda", lambda: "13.0")
    assert run(monkeypatch, "doctor") == 1
    assert "The NVIDIA driver 550.54.14 is too old for CUDA 13.0" in capfd.readouterr().out


def test_doctor_says_that_an_installation_for_the_cpu_leaves_the_gpu_unused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for module in ("serving.machine.device", "server.cli.commands.doctor"):
        monkeypatch.setattr(f"{module}.read_torch_cuda", lambda: None)
    run(monkeypatch, "doctor")
    assert "not used: torch for GPUs isn't installed (`make install DEVICE=gpu`)" in capfd.readouterr().out


def test_train_does_not_fall_back_to_the_cpu_in_silence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("serving.machine.device.read_torch_cuda", lambda: "13.0")
    config = tmp_path / "run.yaml"
    config.write_text("base_model: org/base\ntraining_file: x.jsonl\n")
    assert run(monkeypatch, "train", str(config)) == 1
    assert "Install version 580 or newer. To train on the CPU, set CUDA_VISIBLE_DEVICES=''." in capfd.readouterr().err
    assert not (tmp_path / "data" / "runs").exists()
