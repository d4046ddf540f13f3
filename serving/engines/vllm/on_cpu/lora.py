"""Low-rank products of a batch on a processor: y += scale · B(l) A(l) x, where each row has its own adapter l, or none.

vLLM 0.32 goes through the slices of every layer one by one and copies A and B once for every row before it multiplies
(`vllm/lora/ops/torch_ops/lora_ops.py`). On a small model that took longer than the model. Here, as in S-LoRA's batches
(https://arxiv.org/abs/2311.03285), nothing is copied for a row:

- Which row has which adapter is worked out once a step (`Plan`), not in every layer.
- A layer keeps the matrices of all its slots side by side (`A`, `B`), so that one product has all slices of all
  adapters. A row's products with adapters that aren't its own are set to 0: that is cheaper than to part the rows.
- Rows of one adapter that stand together, as a prompt's do, are multiplied with its matrices alone.

This runs in the engine's process alone, which is why it may import torch.
"""

import itertools
import math
from collections.abc import Sequence

import torch

LONG_RUN = 16
"""Rows of a run from which on it is multiplied with its own adapter alone."""
SMALL = 2**19
"""Numbers in a layer's B up to which all slices are one matrix."""
FEW_SLOTS = 3
"""Where a batch's adapters are fewer than one slot in so many, their matrices are copied together first."""
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a number → the whole numbers of as many."""


class Plan:
    """Which rows of a batch have which adapter."""

    def __init__(self, row_slots: Sequence[int], slot_count: int) -> None:
        """`row_slots`: for each row the slot of its adapter, -1 for none. `slot_count`: how many the engine has."""
        runs = runs_of(row_slots)
        short = sum(end - start < LONG_RUN for _, start, end in runs)
        self.alone = [run for run in runs if short < 2 or run[2] - run[1] >= LONG_RUN]
        """(slot, first row, row after the last) of each run that is multiplied by itself."""
        self.mixed: Mixed | None = None
        """All other rows that have an adapter."""
        if short > 1:
            rest = list(row_slots)
            for _, start, end in self.alone:
                rest[start:end] = [-1] * (end - start)
            self.mixed = Mixed(rest, slot_count)


class Mixed:
    """Rows that are multiplied with several adapters at once, of which each keeps its own."""

    rows: torch.Tensor | None = None
    """int64 [rows], their numbers in the batch; None stands for all rows, as few are without an adapter."""
    slots: torch.Tensor | None = None
    """int64 [adapters], the slots of the adapters; None stands for all slots."""

    def __init__(self, row_slots: Sequence[int], slot_count: int) -> None:
        """For each row of the batch the slot of its adapter, or -1; and how many slots the engine has."""
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
        """All bits where the row has the slot's adapter, none elsewhere: `bits` [rows, slices · slots · r]."""
        kind = (slices, r, bits)
        if kind not in self._masks:
            own = self._is_own.to(bits).neg_()
            self._masks[kind] = own.expand(-1, slices, -1, r).reshape(own.shape[0], -1)
        return self._masks[kind]


class A(tuple[torch.Tensor, ...]):
    """A layer's A as vLLM wants it, for each slice [slots, 1, r, features], over storage as the products want it."""

    whole: torch.Tensor
    """[slices, slots, r, features]"""

    @classmethod
    def like(cls, stacked: Sequence[torch.Tensor]) -> "A":
        """Zeros in place of what vLLM made."""
        slots, _, r, features = stacked[0].shape
        whole = stacked[0].new_zeros(len(stacked), slots, r, features)
        made = cls(one.unsqueeze(1) for one in whole)
        made.whole = whole
        return made


class B(tuple[torch.Tensor, ...]):
    """A layer's B as vLLM wants it, for each slice [slots, 1, features, r], over storage as the products want it."""

    whole: torch.Tensor | None
    """[slices, slots, r, features of all slices], where a slice fills its own columns alone: one product then does all
    slices, and to start one costs more than the zeros do. None for a large layer, where it's the other way round."""
    parts: tuple[torch.Tensor, ...]
    """For each slice [slots, r, features]."""
    columns: list[slice]
    """Of each slice in the output."""

    @classmethod
    def like(cls, stacked: Sequence[torch.Tensor]) -> "B":
        """Zeros in place of what vLLM made."""
        slots, _, _, r = stacked[0].shape
        sizes = [one.shape[2] for one in stacked]
        columns = [slice(end - size, end) for size, end in zip(sizes, itertools.accumulate(sizes), strict=True)]
        joined = (len(stacked), slots, r, sum(sizes))
        whole = stacked[0].new_zeros(joined) if math.prod(joined) <= SMALL else None
        if whole is None:
            parts = tuple(stacked[0].new_zeros(slots, r, size) for size in sizes)
        else:
            parts = tuple(one[..., own] for one, own in zip(whole, columns, strict=True))
        made = cls(part.transpose(1, 2).unsqueeze(1) for part in parts)
        made.whole, made.parts, made.columns = whole, parts, columns
        return made


def make_finite(b: B, slot: int) -> None:
    """What overflowed when an adapter came into its slot becomes the largest number: 0 times infinity is NaN, and rows
    of other adapters are multiplied with it, too."""
    for part in b.parts:
        part[slot].nan_to_num_()


def add_products(y: torch.Tensor, x: torch.Tensor, a: A, b: B, plan: Plan, scale: float = 1.0) -> None:
    """y += scale · B A x, each slice of y's columns with its own A and B.

    y: float [rows, ≥ features of all slices]. x: float [rows, features]. a, b: a layer's.
    """
    for slot, start, end in plan.alone:
        _expand(y[start:end], _hidden(x[start:end], a, slot), b, slot, None, scale)
    if plan.mixed is not None:
        mixed = plan.mixed
        rows = x[: mixed.count] if mixed.rows is None else x.index_select(0, mixed.rows)
        hidden = _hidden(rows, a, mixed.slots)
        # Not a product with 0: where one adapter's numbers overflow, the rows of others must not become NaN.
        # To fill with 0 takes five times as long as to drop bits.
        bits = hidden.view(BITS[hidden.element_size()])
        bits.bitwise_and_(mixed.mask(len(a), a.whole.shape[2], bits.dtype))
        _expand(y[: mixed.count], hidden, b, mixed.slots, mixed.rows, scale)


def _hidden(rows: torch.Tensor, a: A, slots: torch.Tensor | int | None) -> torch.Tensor:
    """A · rows with the adapters in these slots: float [rows, slices · slots · r], of A's dtype."""
    own = _of(a.whole, slots, 1).reshape(-1, rows.shape[1])
    return torch.mm(rows.to(own.dtype), own.t())


def _expand(
    y: torch.Tensor,
    hidden: torch.Tensor,
    b: B,
    slots: torch.Tensor | int | None,
    rows: torch.Tensor | None,
    scale: float,
) -> None:
    """Adds B · hidden to these rows of y: float [rows, slices · slots · r] of `hidden`, its adapters in these slots."""
    hidden = hidden.to(y.dtype)
    if b.whole is not None:
        _add(y[:, : b.whole.shape[-1]], hidden, _of(b.whole, slots, 1), rows, scale)
        return
    own = hidden.view(hidden.shape[0], len(b), -1)
    for number, (part, columns) in enumerate(zip(b.parts, b.columns, strict=True)):
        _add(y[:, columns], own[:, number], _of(part, slots, 0), rows, scale)


def _add(
    target: torch.Tensor, hidden: torch.Tensor, matrices: torch.Tensor, rows: torch.Tensor | None, scale: float
) -> None:
    together = matrices.reshape(hidden.shape[1], -1).to(target.dtype)
    if rows is None:
        target.addmm_(hidden, together, alpha=scale)
    else:
        target.index_add_(0, rows, torch.mm(hidden, together), alpha=scale)


def _of(held: torch.Tensor, slots: torch.Tensor | int | None, dimension: int) -> torch.Tensor:
    """What `held` has for these slots, which are counted in that dimension; None stands for all."""
    if slots is None:
        return held
    return held.select(dimension, slots) if isinstance(slots, int) else held.index_select(dimension, slots)


def shrink(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, indices: torch.Tensor, scaling: float = 1.0
) -> None:
    """output += scaling · A x, in place of vLLM's operation of the same arguments.

    inputs: float [rows, features]. weights: float [slots, 1, r, features]. output: float [rows, ≥ r].
    indices: int64 [rows], the slot of each row; -1 for none, whose output is left as it is.
    """
    for slot, start, end in _runs(indices, inputs):
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
    """As `expand`, for the columns from `slice_offset` on."""
    target = output[:, slice_offset : slice_offset + slice_size]
    if not add_inputs:
        target.zero_()
    for slot, start, end in _runs(indices, inputs):
        matrix = weights[slot].squeeze(0)
        rows = inputs[start:end, : matrix.shape[1]].to(output.dtype)
        target[start:end].addmm_(rows, matrix.to(output.dtype).t())


def runs_of(row_slots: Sequence[int]) -> list[tuple[int, int, int]]:
    """(slot, first row, row after the last) of each run of rows with one adapter; rows without are left out."""
    runs, start = [], 0
    for slot, run in itertools.groupby(row_slots):
        end = start + sum(1 for _ in run)
        if slot >= 0:
            runs.append((slot, start, end))
        start = end
    return runs


def _runs(indices: torch.Tensor, inputs: torch.Tensor) -> list[tuple[int, int, int]]:
    slots = indices.tolist()
    if len(slots) == 1:  # one request's rows, told by a single number
        slots *= inputs.shape[0]
    return runs_of(slots[: inputs.shape[0]])
