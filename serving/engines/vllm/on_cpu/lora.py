"""Low-rank products of a batch on a CPU: y += scale · B(l) A(l) x, where each row has its own adapter l, or none.

vLLM 0.32 goes through the slices of every layer one by one and copies A and B once for every row before it multiplies
(`vllm/lora/ops/torch_ops/lora_ops.py`). On a small model that took longer than the model. Here, as in S-LoRA's batches
(https://arxiv.org/abs/2311.03285), nothing is copied per row:

- Which row has which adapter is determined once per step (`Plan`), not in every layer.
- A layer keeps the matrices of all its slots side by side (`StackedA`, `StackedB`), so that one product has all slices
  of all adapters. A row's products with other adapters are set to 0, which is cheaper than splitting the rows.
- Consecutive rows of one adapter, such as a prompt's, are multiplied with its matrices alone.

This runs only in the engine's process, and therefore may import torch.
"""

import itertools
import math
from collections.abc import Sequence

import torch

LONG_RUN = 16
"""Rows of a run from which on it is multiplied with its own adapter only."""
SMALL = 2**19
"""Numbers in a layer's B up to which all slices form one matrix."""
FEW_SLOTS = 3
"""If a batch has fewer adapters than one slot in this many, their matrices are gathered first."""
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a number → the integer type of that size."""


class Plan:
    """Which rows of a batch have which adapter."""

    def __init__(self, row_slots: Sequence[int], slot_count: int) -> None:
        """`row_slots`: for each row the slot of its adapter, -1 for none. `slot_count`: slots of the engine."""
        runs = find_runs(row_slots)
        short = sum(end - start < LONG_RUN for _, start, end in runs)
        self.alone = [run for run in runs if short < 2 or run[2] - run[1] >= LONG_RUN]
        """(slot, first row, row after the last) of each run that is multiplied separately."""
        self.mixed: Mixed | None = None
        """All other rows that have an adapter."""
        if short > 1:
            rest = list(row_slots)
            for _, start, end in self.alone:
                rest[start:end] = [-1] * (end - start)
            self.mixed = Mixed(rest, slot_count)


class Mixed:
    """Rows that are multiplied with several adapters at once, of which each keeps its own result."""

    rows: torch.Tensor | None = None
    """int64 [rows], their indices in the batch; None: all rows, if few are without an adapter."""
    slots: torch.Tensor | None = None
    """int64 [adapters], the slots of the adapters; None: all slots."""

    def __init__(self, row_slots: Sequence[int], slot_count: int) -> None:
        """row_slots: for each row of the batch the slot of its adapter, or -1. slot_count: slots of the engine."""
        self.count = len(row_slots)
        adapted = [row for row, slot in enumerate(row_slots) if slot >= 0]
        if 2 * len(adapted) < len(row_slots):
            self.rows, row_slots = torch.tensor(adapted), [row_slots[row] for row in adapted]
        slots = sorted(set(row_slots) - {-1})
        if FEW_SLOTS * len(slots) < slot_count:
            self.slots = torch.tensor(slots)
        else:
            slots = list(range(slot_count))
        self._is_own = torch.tensor(row_slots).view(-1, 1, 1, 1) == torch.tensor(slots).view(-1, 1)
        self._masks: dict[tuple[int, int, torch.dtype], torch.Tensor] = {}

    def mask(self, slices: int, r: int, bits: torch.dtype) -> torch.Tensor:
        """Return all ones where the row has the slot's adapter, else zeros: `bits` [rows, slices · slots · r]."""
        kind = (slices, r, bits)
        if kind not in self._masks:
            own = self._is_own.to(bits).neg_()
            self._masks[kind] = own.expand(-1, slices, -1, r).reshape(own.shape[0], -1)
        return self._masks[kind]


class StackedA(tuple[torch.Tensor, ...]):
    """A layer's A as vLLM expects it, for each slice [slots, 1, r, features], on storage laid out for the products."""

    whole: torch.Tensor
    """[slices, slots, r, features]"""

    @classmethod
    def zeros_like(cls, stacked: Sequence[torch.Tensor]) -> "StackedA":
        """Return zeros to replace vLLM's own."""
        slots, _, r, features = stacked[0].shape
        whole = stacked[0].new_zeros(len(stacked), slots, r, features)
        stacked_a = cls(part.unsqueeze(1) for part in whole)
        stacked_a.whole = whole
        return stacked_a


class StackedB(tuple[torch.Tensor, ...]):
    """A layer's B as vLLM expects it, for each slice [slots, 1, features, r], on storage laid out for the products."""

    whole: torch.Tensor | None
    """[slices, slots, r, features of all slices], where a slice fills only its own columns: then one product computes
    all slices, and starting a product costs more than the zeros. None for a large layer, where it is the reverse."""
    parts: tuple[torch.Tensor, ...]
    """For each slice [slots, r, features]."""
    columns: list[slice]
    """The columns of each slice in the output."""

    @classmethod
    def zeros_like(cls, stacked: Sequence[torch.Tensor]) -> "StackedB":
        """Return zeros to replace vLLM's own."""
        slots, _, _, r = stacked[0].shape
        sizes = [part.shape[2] for part in stacked]
        columns = [slice(end - size, end) for size, end in zip(sizes, itertools.accumulate(sizes), strict=True)]
        joined = (len(stacked), slots, r, sum(sizes))
        whole = stacked[0].new_zeros(joined) if math.prod(joined) <= SMALL else None
        if whole is None:
            parts = tuple(stacked[0].new_zeros(slots, r, size) for size in sizes)
        else:
            parts = tuple(part[..., own] for part, own in zip(whole, columns, strict=True))
        stacked_b = cls(part.transpose(1, 2).unsqueeze(1) for part in parts)
        stacked_b.whole, stacked_b.parts, stacked_b.columns = whole, parts, columns
        return stacked_b


def make_finite(b: StackedB, slot: int) -> None:
    """Replace overflows in the adapter of this slot by the largest number: 0 times infinity is NaN, and rows of other
    adapters are multiplied with it, too."""
    for part in b.parts:
        part[slot].nan_to_num_()


def add_products(y: torch.Tensor, x: torch.Tensor, a: StackedA, b: StackedB, plan: Plan, scale: float = 1.0) -> None:
    """Compute y += scale · B A x, each slice of y's columns with its own A and B.

    y: float [rows, ≥ features of all slices]. x: float [rows, features]. a, b: a layer's.
    """
    for slot, start, end in plan.alone:
        _expand(y[start:end], _hidden(x[start:end], a, slot), b, slot, None, scale)
    if plan.mixed is not None:
        mixed = plan.mixed
        rows = x[: mixed.count] if mixed.rows is None else x.index_select(0, mixed.rows)
        hidden = _hidden(rows, a, mixed.slots)
        # Not a product with 0: if one adapter's numbers overflow, other rows must not become NaN.
        # Filling with 0 takes five times as long as masking bits.
        bits = hidden.view(BITS[hidden.element_size()])
        bits.bitwise_and_(mixed.mask(len(a), a.whole.shape[2], bits.dtype))
        _expand(y[: mixed.count], hidden, b, mixed.slots, mixed.rows, scale)


def _hidden(rows: torch.Tensor, a: StackedA, slots: torch.Tensor | int | None) -> torch.Tensor:
    """Return A · rows with the adapters in these slots: float [rows, slices · slots · r], of A's dtype."""
    own = _select_slots(a.whole, slots, 1).reshape(-1, rows.shape[1])
    return torch.mm(rows.to(own.dtype), own.t())


def _expand(
    y: torch.Tensor,
    hidden: torch.Tensor,
    b: StackedB,
    slots: torch.Tensor | int | None,
    rows: torch.Tensor | None,
    scale: float,
) -> None:
    """Add B · hidden to these rows of y: float [rows, slices · slots · r] of `hidden`, its adapters in these slots."""
    hidden = hidden.to(y.dtype)
    if b.whole is not None:
        _add(y[:, : b.whole.shape[-1]], hidden, _select_slots(b.whole, slots, 1), rows, scale)
        return
    own = hidden.view(hidden.shape[0], len(b), -1)
    for number, (part, columns) in enumerate(zip(b.parts, b.columns, strict=True)):
        _add(y[:, columns], own[:, number], _select_slots(part, slots, 0), rows, scale)


def _add(
    target: torch.Tensor, hidden: torch.Tensor, matrices: torch.Tensor, rows: torch.Tensor | None, scale: float
) -> None:
    together = matrices.reshape(hidden.shape[1], -1).to(target.dtype)
    if rows is None:
        target.addmm_(hidden, together, alpha=scale)
    else:
        target.index_add_(0, rows, torch.mm(hidden, together), alpha=scale)


def _select_slots(held: torch.Tensor, slots: torch.Tensor | int | None, dimension: int) -> torch.Tensor:
    """Return the entries of `held` for these slots along this dimension; None: all."""
    if slots is None:
        return held
    return held.select(dimension, slots) if isinstance(slots, int) else held.index_select(dimension, slots)


def shrink(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, indices: torch.Tensor, scaling: float = 1.0
) -> None:
    """output += scaling · A x, a replacement for vLLM's operation with the same arguments.

    inputs: float [rows, features]. weights: float [slots, 1, r, features]. output: float [rows, ≥ r].
    indices: int64 [rows], the slot of each row; -1 for none, whose output is left unchanged.
    """
    for slot, start, end in _index_runs(indices, inputs):
        matrix = weights[slot].squeeze(0)
        products = torch.mm(inputs[start:end].to(output.dtype), matrix.to(output.dtype).t())
        output[start:end, : matrix.shape[0]].add_(products, alpha=scaling)


def expand(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, indices: torch.Tensor, add_inputs: bool = True
) -> None:
    """output += B x, or output = B x with `add_inputs` off.

    inputs: float [rows, ≥ r]. weights: float [slots, 1, features, r]. output: float [rows, ≥ features].
    """
    features = min(weights.shape[-2], output.shape[1])
    expand_slice(inputs, weights[..., :features, :], output, indices, 0, features, add_inputs)


def expand_slice(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    indices: torch.Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """Like `expand`, for the columns from `slice_offset` on."""
    target = output[:, slice_offset : slice_offset + slice_size]
    if not add_inputs:
        target.zero_()
    for slot, start, end in _index_runs(indices, inputs):
        matrix = weights[slot].squeeze(0)
        rows = inputs[start:end, : matrix.shape[1]].to(output.dtype)
        target[start:end].addmm_(rows, matrix.to(output.dtype).t())


def find_runs(row_slots: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (slot, first row, row after the last) of each run of rows with one adapter; rows without are left out."""
    runs, start = [], 0
    for slot, run in itertools.groupby(row_slots):
        end = start + sum(1 for _ in run)
        if slot >= 0:
            runs.append((slot, start, end))
        start = end
    return runs


def _index_runs(indices: torch.Tensor, inputs: torch.Tensor) -> list[tuple[int, int, int]]:
    slots = indices.tolist()
    if len(slots) == 1:  # one request's rows, given as a single number
        slots *= inputs.shape[0]
    return find_runs(slots[: inputs.shape[0]])
