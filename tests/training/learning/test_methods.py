"""Every way to fine-tune: it learns, what is written is what was trained, and plain PEFT or transformers load it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments, set_seed

from tests.training.tiny_models import make_tiny_model
from training.config.auto import make_plan
from training.config.config import TrainingConfig
from training.learning.trainer import make_trainer
from training.model.adapter_dir import AdapterWriteError, reload_adapter, save_adapter
from training.model.base import Base, load_base
from training.result.merging import save_model

ROWS = [{"input_ids": [1, 40 + row, 41, 42, 43, 44], "labels": [-100, -100, 41, 42, 43, 44]} for row in range(8)]
IDS = torch.tensor([row["input_ids"] for row in ROWS])
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "prefix_tuning": {"finetuning_type": "prefix_tuning", "learning_rate": 0.3},
    "prefix_tuning with a network": {
        "finetuning_type": "prefix_tuning", "encoder_hidden_size": 32, "learning_rate": 0.02,
    },
    "p_tuning": {"finetuning_type": "p_tuning", "learning_rate": 0.02},
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("llama") / "tiny")


def configure(tiny: Path, folder: Path, **settings: Any) -> TrainingConfig:
    return TrainingConfig.from_dict(
        {
            "base_model": str(tiny), "training_file": __file__, "output_dir": str(folder / "result"),
            "compute_dtype": "float32", "n_epochs": 3, "batch_size": 4, "learning_rate": 0.01, "warmup_ratio": 0.0,
            **settings,
        }
    )  # fmt: skip


def untrained(tiny: Path, folder: Path, **settings: Any) -> Base:
    return load_base(configure(tiny, folder, **settings))


def trained(tiny: Path, folder: Path, **settings: Any) -> tuple[Base, list[float]]:
    """A base after six steps, and the loss of each step."""
    config = configure(tiny, folder, **settings)
    set_seed(config.seed)
    base = load_base(config)
    plan = make_plan(config, n_rows=len(ROWS), mean_tokens=6, n_parameters=base.n_parameters, on_gpu=False)
    trainer = make_trainer(config, plan, base, ROWS, folder / "checkpoints")
    trainer.train()
    return base, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def see_four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up = TrainingArguments._setup_devices.func

    def find(arguments: TrainingArguments) -> torch.device:
        device: torch.device = set_up(arguments)
        arguments._n_gpu = 4
        return device

    found = cached_property(find)
    found.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", found)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found = model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    return torch.as_tensor(found[:, -IDS.shape[1] :])


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_and_what_is_read_back_is_what_was_trained(
    tiny: Path, tmp_path: Path, kind: str, quantization: str
) -> None:
    base, losses = trained(tiny, tmp_path, quantization=quantization, **KINDS[kind])
    assert losses[-1] < losses[0] - 0.1
    wanted = logits(base.model)
    save_adapter(base.model, tmp_path / "adapter", base.start)
    reload_adapter(base.model, tmp_path / "adapter")
    assert torch.equal(logits(base.model), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_peft_loads_the_same(tiny: Path, tmp_path: Path, kind: str) -> None:
    base, _ = trained(tiny, tmp_path, quantization="none", **KINDS[kind])
    save_adapter(base.model, tmp_path / "adapter", base.start)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), tmp_path / "adapter")
    assert torch.equal(logits(plain), logits(base.model))
    names = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}


def test_other_gpus_in_sight_get_no_rows(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    see_four_gpus(monkeypatch)
    base, config = untrained(tiny, tmp_path), configure(tiny, tmp_path)
    plan = make_plan(config, n_rows=len(ROWS), mean_tokens=6, n_parameters=base.n_parameters, on_gpu=False)
    trainer = make_trainer(config, plan, base, ROWS, tmp_path / "checkpoints")
    batches = list(trainer.get_train_dataloader())
    assert [len(batch["input_ids"]) for batch in batches] == [4, 4]
    assert trainer.args.train_batch_size == plan.batch_size == 4


def test_a_full_fine_tune_is_a_model_that_transformers_load(tiny: Path, tmp_path: Path) -> None:
    base, losses = trained(tiny, tmp_path, quantization="none", finetuning_type="full", learning_rate=1e-3)
    assert losses[-1] < losses[0] - 0.1
    (tmp_path / "model").mkdir()
    assert save_model(base, tmp_path / "model") is None
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(logits(plain), logits(base.model))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny).chat_template


def test_a_full_fine_tune_is_stored_as_its_base_was(tmp_path: Path) -> None:
    tiny = make_tiny_model(tmp_path / "tiny", dtype=torch.bfloat16)
    base, _ = trained(tiny, tmp_path, quantization="none", finetuning_type="full", learning_rate=1e-3)
    (tmp_path / "model").mkdir()
    save_model(base, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert plain.dtype == torch.bfloat16
    assert torch.equal(logits(plain.float()), logits(base.model))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_that_learned_nothing_is_refused(tiny: Path, tmp_path: Path, kind: str) -> None:
    base = untrained(tiny, tmp_path, **KINDS[kind])
    with pytest.raises(AdapterWriteError, match=r"nothing was learned"):
        save_adapter(base.model, tmp_path / "adapter", base.start)


def test_a_model_that_learned_nothing_is_refused(tiny: Path, tmp_path: Path) -> None:
    base = untrained(tiny, tmp_path, quantization="none", finetuning_type="full")
    with pytest.raises(AdapterWriteError, match=r"Nothing was learned"):
        save_model(base, tmp_path / "model")


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_with_values_that_are_not_finite_is_refused(tiny: Path, tmp_path: Path, kind: str) -> None:
    base = untrained(tiny, tmp_path, **KINDS[kind])
    next(weight for weight in base.model.parameters() if weight.requires_grad).data[0] = float("nan")
    with pytest.raises(AdapterWriteError, match=r"aren't finite"):
        save_adapter(base.model, tmp_path / "adapter", base.start)
