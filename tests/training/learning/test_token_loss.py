"""The loss of the learned tokens beside transformers' own, and packed rows beside rows of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteConfig, GraniteForCausalLM

from training.learning.batches import Padding
from training.learning.packing import pack
from training.learning.token_loss import LossFunction, has_plain_head

LENGTHS = (5, 17, 9, 3, 12, 30, 2)
PADDING = Padding(pad_token_id=0)


@pytest.fixture(scope="module")
def model(demo_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(demo_model, dtype=torch.float32)


def rows(learned_from: int = 1) -> list[dict[str, list[int]]]:
    made = torch.Generator().manual_seed(1)
    sequences = [torch.randint(1, 200, (length,), generator=made).tolist() for length in LENGTHS]
    return [{"input_ids": ids, "labels": [-100] * learned_from + ids[learned_from:]} for ids in sequences]


def test_loss_hits_and_gradients_are_those_of_the_models_own_forward(model: Any) -> None:
    batch = PADDING(rows(learned_from=2)[:-1])
    embedding = model.get_input_embeddings().weight
    model.get_output_embeddings().weight.requires_grad_(False)
    assert has_plain_head(model)
    ours = LossFunction(model)(batch)
    (gradient,) = torch.autograd.grad(ours.total, model.model.layers[0].mlp.up_proj.weight)
    own = model(**batch)
    (expected,) = torch.autograd.grad(own.loss * ours.learned, model.model.layers[0].mlp.up_proj.weight)
    targets = batch["labels"][:, 1:]
    assert ours.learned == int((targets != -100).sum()) == sum(length - 2 for length in LENGTHS[:-1])
    assert ours.hits == int((own.logits[:, :-1].argmax(-1) == targets).sum())
    assert ours.total.item() == pytest.approx(own.loss.item() * ours.learned, rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)
    assert embedding is model.get_input_embeddings().weight


def test_a_model_that_scales_its_logits_is_asked_for_them() -> None:
    torch.manual_seed(0)
    granite = GraniteForCausalLM(
        GraniteConfig(
            vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, logits_scaling=8.0,
        )
    )  # fmt: skip
    batch = PADDING(rows())
    assert not has_plain_head(granite)
    ours = LossFunction(granite)(batch)
    assert (ours.total / ours.learned).item() == pytest.approx(granite(**batch).loss.item(), rel=1e-5)


def test_packed_examples_do_not_see_each_other(model: Any) -> None:
    separate, packed = rows(), pack(rows(), max_length=40)
    loss_of = LossFunction(model)
    apart = [loss_of(PADDING([row])) for row in separate]
    together = loss_of(PADDING(packed))
    assert len(packed) == 2
    assert together.learned == sum(one.learned for one in apart)
    assert together.total.item() == pytest.approx(sum(one.total.item() for one in apart), rel=1e-5)
    assert together.hits == sum(one.hits for one in apart)


def test_packing_keeps_every_example_whole_and_no_row_too_long() -> None:
    packed = pack(rows(), max_length=40)
    starts = [place for row in packed for place, position in enumerate(row["position_ids"]) if position == 0]
    found = []
    for row in packed:
        assert len(row["input_ids"]) == len(row["labels"]) == len(row["position_ids"]) <= 40
        bounds = [place for place, position in enumerate(row["position_ids"]) if position == 0]
        found += [row["input_ids"][start:end] for start, end in zip(bounds, [*bounds[1:], None], strict=True)]
    assert len(starts) == len(LENGTHS)
    assert sorted(found) == sorted(row["input_ids"] for row in rows())
