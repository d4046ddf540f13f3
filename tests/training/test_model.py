"""The 4-bit base under its adapter: what an evaluation must not change."""

from __future__ import annotations

from pathlib import Path

import torch

from training.config import TrainingConfig
from training.model import Base, load_base

IDS = torch.arange(40, 72).reshape(2, 16)


def lora_gradients(base: Base) -> dict[str, torch.Tensor]:
    """The gradient of each adapter matrix for one fixed batch; dropout is off in the configuration."""
    base.model.train()
    base.model.zero_grad()
    base.model(input_ids=IDS, labels=IDS).loss.backward()
    return {
        name: matrix.grad.clone() for name, matrix in base.model.named_parameters() if matrix.grad is not None
    }  # fmt: skip


def test_gradients_are_the_same_before_and_after_an_evaluation(demo_model: Path, tmp_path: Path) -> None:
    config = TrainingConfig.from_dict(
        {
            "base_model": str(demo_model), "training_file": __file__, "output_dir": str(tmp_path / "adapter"),
            "lora_dropout": 0.0,
        }
    )  # fmt: skip
    base = load_base(config)
    before = lora_gradients(base)
    base.model.eval()
    with torch.no_grad():
        base.model(input_ids=IDS)
    after = lora_gradients(base)
    assert before.keys() == after.keys()
    assert any(gradient.abs().sum() > 0 for gradient in before.values())
    for name, gradient in before.items():
        assert torch.equal(gradient, after[name]), name
