"""Merging: the whole model answers as base and adapter did, or there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed

from adapter_format.files import WEIGHTS_FILE
from tests.training.tiny_models import make_tiny_model
from training.config.config import TrainingConfig
from training.model.adapter_dir import base_model_sha256, file_sha256, save_adapter
from training.model.base import Base, load_base
from training.result.export import main
from training.result.merging import ParityError, save_model

IDS = torch.arange(40, 72).reshape(2, 16)
Adapt = Callable[..., Base]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    base = make_tiny_model(tmp_path / "base")
    (base / "LICENSE").write_text("mine")
    (base / "modeling_tiny.py").write_text("raise SystemExit")
    return base


@pytest.fixture
def adapt(tiny: Path, tmp_path: Path) -> Adapt:
    """A base whose adapter says something else than the base, also written to `adapter`."""

    def make(change: float = 0.02, **settings: Any) -> Base:
        fixed = {"base_model": str(tiny), "training_file": __file__, "output_dir": str(tmp_path / "result")}
        set_seed(0)
        base = load_base(TrainingConfig.from_dict({**fixed, "compute_dtype": "float32", **settings}))
        with torch.no_grad():
            for weight in base.model.parameters():
                if weight.requires_grad:
                    weight += change * torch.randn_like(weight)
        save_adapter(base.model, tmp_path / "adapter")
        return base

    return make


def merge(tmp_path: Path, *more: str, base: str = "base", adapter: str = "adapter") -> int:
    folders = ["--base-model", str(tmp_path / base), "--adapter", str(tmp_path / adapter)]
    return main(["merge", *folders, "--output", str(tmp_path / "merged"), *more])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return torch.as_tensor(model.eval()(input_ids=IDS).logits.float())


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mixtral"])
@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_the_merged_model_answers_as_base_and_adapter(
    adapt: Adapt, tmp_path: Path, architecture: str, settings: dict[str, Any]
) -> None:
    base = make_tiny_model(tmp_path / "other", architecture)  # Qwen's output layer is tied to its embeddings
    adapt(base_model=str(base), **settings)
    assert merge(tmp_path, base="other") == 0
    both = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (logits(merged) - logits(both)).abs().max() < 1e-3
    assert (logits(merged) - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 1e-2


def test_the_folder_holds_what_an_engine_needs_and_where_it_comes_from(
    adapt: Adapt, tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapt()
    assert merge(tmp_path, "--dtype", "bfloat16") == 0
    merged = tmp_path / "merged"
    assert {file.name for file in merged.iterdir()} == {
        "LICENSE", "chat_template.jinja", "config.json", "generation_config.json", "manifest.json",
        "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert json.loads((merged / "config.json").read_text())["dtype"] == "bfloat16"
    assert AutoTokenizer.from_pretrained(merged).get_vocab() == AutoTokenizer.from_pretrained(tiny).get_vocab()
    manifest = json.loads((merged / "manifest.json").read_text())
    assert manifest["base_model_sha256"] == base_model_sha256(tiny)
    assert manifest["adapter_sha256"] == file_sha256(tmp_path / "adapter" / WEIGHTS_FILE)
    assert 0 < manifest["parity"]["divergence"] < manifest["parity"]["effect"]
    assert f"{manifest['parity']['divergence']:.2g} nats per token" in capsys.readouterr().out


def test_an_adapter_trained_in_4_bit_is_merged_into_the_base_as_it_is_stored(
    adapt: Adapt, tmp_path: Path, tiny: Path
) -> None:
    base = adapt(quantization="nf4")
    (tmp_path / "model").mkdir()
    parity = save_model(base, tmp_path / "model")
    assert parity is not None
    assert parity.divergence < 1e-6 < parity.effect
    both = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), tmp_path / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert (logits(merged) - logits(both)).abs().max() < 1e-3
    assert not (tmp_path / "model" / ".adapter").exists()


def test_what_rounding_loses_is_told_and_nothing_is_left(
    adapt: Adapt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapt(change=1e-4)
    assert merge(tmp_path, "--dtype", "bfloat16") == 1
    assert "lost what the adapter learned" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / ".partial-merged").exists()
    assert merge(tmp_path) == 0


def test_a_job_whose_merge_loses_what_was_learned_fails(tmp_path: Path, adapt: Adapt) -> None:
    base = make_tiny_model(tmp_path / "other", dtype=torch.bfloat16)
    adapted = adapt(change=1e-4, base_model=str(base))
    (tmp_path / "model").mkdir()
    with pytest.raises(ParityError, match=r"lost what the adapter learned"):
        save_model(adapted, tmp_path / "model")


def _existing(tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()


def _of_another_base(tmp_path: Path) -> None:
    (tmp_path / "adapter" / "manifest.json").write_text(json.dumps({"base_model_sha256": "0" * 64}))


def _without_weights(tmp_path: Path) -> None:
    (tmp_path / "adapter" / WEIGHTS_FILE).unlink()


def _without_base(tmp_path: Path) -> None:
    (tmp_path / "base" / "model.safetensors").unlink()


def _unknown_base(tmp_path: Path) -> None:
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "model_type": "nothing known"}))


def _quantised_base(tmp_path: Path) -> None:
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    four_bit = BitsAndBytesConfig(load_in_4bit=True).to_dict()
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "quantization_config": four_bit}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_existing, "already exists"),
        (_of_another_base, "by their hash"),
        (_without_weights, "it needs adapter_config.json and adapter_model.safetensors"),
        (_without_base, "can't be used"),
        (_unknown_base, "can't be used"),
        (_quantised_base, "it is quantized"),
    ],
)
def test_folders_that_cannot_be_merged_are_refused_with_the_reason(
    adapt: Adapt, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], said: str
) -> None:
    adapt()
    spoil(tmp_path)
    assert merge(tmp_path) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / ".partial-merged").exists()


@pytest.mark.parametrize("finetuning_type", ["prefix_tuning", "p_tuning"])
def test_virtual_tokens_cannot_be_merged(
    adapt: Adapt, tmp_path: Path, capsys: pytest.CaptureFixture[str], finetuning_type: str
) -> None:
    adapt(finetuning_type=finetuning_type)
    assert merge(tmp_path) == 2
    assert "only LoRA can be merged" in capsys.readouterr().err
