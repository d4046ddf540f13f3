"""The products of adapters on a processor, beside a plain sum over rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from serving.engines.vllm.on_cpu import lora
from serving.engines.vllm.on_cpu.lora import (
    Plan,
    StackedA,
    StackedB,
    add_products,
    expand,
    expand_slice,
    make_finite,
    shrink,
)

ADAPTERS, R, IN, OUT = 4, 8, 24, 40
SLICES = (16, 8, 12)
BATCHES = {
    "one row": [2],
    "one adapter": [1] * 200,
    "the base alone": [-1] * 5,
    "each another": [0, 1, 2, 3, -1, 2, 0],
    "prompts beside each other": [3] * 40 + [-1] * 30 + [0] * 50,
    "a prompt among single rows": [0, 1, -1, 2] + [3] * 90,
    "few of many slots": [3, -1, 3, 3, -1],
    "few rows beside a prompt of the base": [0, 2, 1] + [-1] * 60,
    "few rows beside prompts": [0, 2, 1] + [-1] * 60 + [2] * 70 + [3, 0],
}


@pytest.mark.parametrize("small", [0, 2**19], ids=["a large layer", "a small layer"])
@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_layer_adds_each_rows_own_adapter(
    rows: list[int], dtype: torch.dtype, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "SMALL", small)
    a = [_random(ADAPTERS, 1, R, IN, seed=number).to(dtype) for number in range(len(SLICES))]
    b = [_random(ADAPTERS, 1, size, R).to(dtype) for size in SLICES]
    x, y = _random(len(rows), IN).to(dtype), _random(len(rows), OUT).to(dtype)
    wanted = y.float().clone()
    for number, adapter in enumerate(rows):
        if adapter >= 0:
            own = [
                0.5 * (two[adapter, 0].float() @ (one[adapter, 0].float() @ x[number].float()))
                for one, two in zip(a, b, strict=True)
            ]
            wanted[number, : sum(SLICES)] += torch.cat(own)
    held_a, held_b = StackedA.zeros_like(a), StackedB.zeros_like(b)
    _fill(held_a, a)
    _fill(held_b, b)
    assert (held_b.whole is None) == (small == 0)
    add_products(y, x, held_a, held_b, Plan(rows, ADAPTERS), 0.5)
    rough = dtype is torch.bfloat16
    torch.testing.assert_close(y.float(), wanted, atol=1.0 if rough else 1e-4, rtol=5e-2 if rough else 1e-4)
    for number, adapter in enumerate(rows):
        if adapter < 0:
            assert torch.equal(y[number].float(), wanted[number])
    assert torch.equal(y[:, sum(SLICES) :].float(), wanted[:, sum(SLICES) :])


def test_an_adapter_that_overflows_spoils_no_other_row() -> None:
    a, b = StackedA.zeros_like([_random(2, 1, R, IN)]), StackedB.zeros_like([_random(2, 1, OUT, R)])
    a[0][:] = 1.0
    a[0][1] = 1e38
    b[0][0] = 1.0
    b[0][1] = float("inf")
    make_finite(b, 1)
    y = torch.zeros(3, OUT)
    add_products(y, torch.full((3, IN), 10.0), a, b, Plan([0, 1, 0], 2))
    assert torch.equal(y[[0, 2]], torch.full((2, OUT), 10.0 * IN * R))
    assert not y[1].isfinite().any()


def test_matrices_may_be_of_another_dtype_than_the_layer() -> None:
    a, b = (
        StackedA.zeros_like([_random(2, 1, R, IN).bfloat16()]),
        StackedB.zeros_like([_random(2, 1, OUT, R).bfloat16()]),
    )
    a[0][:], b[0][:] = 1.0, 1.0
    y = torch.zeros(3, OUT)
    add_products(y, torch.ones(3, IN), a, b, Plan([0, -1, 1], 2))
    assert torch.equal(y, torch.tensor([[1.0], [0.0], [1.0]]).expand(3, OUT) * IN * R)


def test_before_the_first_adapter_nothing_is_added() -> None:
    y = _random(3, OUT)
    before = y.clone()
    add_products(
        y,
        _random(3, IN),
        StackedA.zeros_like([_random(2, 1, R, IN)]),
        StackedB.zeros_like([_random(2, 1, OUT, R)]),
        Plan((), 0),
    )
    assert torch.equal(y, before)


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_row_gets_its_own_adapter_and_the_base_none(rows: list[int], dtype: torch.dtype) -> None:
    a, b, x = _random(ADAPTERS, 1, R, IN), _random(ADAPTERS, 1, OUT, R), _random(len(rows), IN)
    hidden, indices = torch.zeros(len(rows), R), torch.tensor(rows)
    shrink(x.to(dtype), a.to(dtype), hidden, indices, 0.5)
    y = _random(len(rows), OUT).to(dtype)
    wanted = [
        before + (0 if adapter < 0 else 0.5 * b[adapter, 0] @ (a[adapter, 0] @ row))
        for before, adapter, row in zip(y.float(), rows, x, strict=True)
    ]
    expand(hidden, b.to(dtype), y, indices)
    rough = dtype is torch.bfloat16
    torch.testing.assert_close(
        y.float(), torch.stack(wanted), atol=1.0 if rough else 1e-4, rtol=5e-2 if rough else 1e-4
    )


def test_a_slice_changes_its_own_columns_alone() -> None:
    b, hidden, y = _random(ADAPTERS, 1, 16, R), _random(3, R), _random(3, OUT)
    before = y.clone()
    expand_slice(hidden, b, y, torch.tensor([1, -1, 2]), 8, 16)
    assert torch.equal(y[:, :8], before[:, :8])
    assert torch.equal(y[:, 24:], before[:, 24:])
    assert torch.equal(y[1], before[1])
    torch.testing.assert_close(y[0, 8:24], before[0, 8:24] + b[1, 0] @ hidden[0])


def test_a_single_number_stands_for_all_rows() -> None:
    a, x = _random(ADAPTERS, 1, R, IN), _random(5, IN)
    hidden = torch.zeros(5, R)
    shrink(x, a, hidden, torch.tensor([3]))
    torch.testing.assert_close(hidden, x @ a[3, 0].t())


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def _fill(held: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    """As vLLM writes an adapter: slot by slot, into the tensors that it was given."""
    for one, value in zip(held, values, strict=True):
        for slot in range(ADAPTERS):
            one[slot, 0].copy_(value[slot, 0])
