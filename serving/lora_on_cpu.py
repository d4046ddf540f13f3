"""Low-rank products of a batch on a processor: y += scale · B(l) A(l) x, where each row has its own adapter l, or none.

vLLM 0.32 goes through the slices of every layer one by one and copies A and B once for every row before it multiplies
(`vllm/lora/ops/torch_ops/lora_ops.py`). On a small model that took longer than the model. Here, as in S-LoRA's batches
(https://arxiv.org/abs/2311.03285), nothing is copied:

- Which row has which adapter is worked out once a step (`Plan`), not in every layer.
- A layer keeps the matrices of all its slots side by side (`Matrices`), so that one product has all slices of all
  adapters. A row's products with adapters that aren't its own are set to 0: that is cheaper than to part the rows.
- Rows of one adapter that stand together, as a prompt's do, are multiplied with its matrices alone.

This runs in the engine's process alone, which is why it may import torch.
"""

import itertools
from collections.abc import Sequence

import torch

LONG_RUN = 16
"""Mean rows of a run from which on each run is multiplied with its own adapter alone."""
FEW_SLOTS = 3
"""Where the batch's adapters are fewer than one slot in so many, their matrices are copied together first."""


class Plan:
    """Which rows of a batch have which adapter."""

    def __init__(self, row_slots: Sequence[int], slot_count: int) -> None:
        """`row_slots`: for each row the slot of its adapter, -1 for none. `slot_count`: how many the engine has."""
        self.rows = len(row_slots)
        self.runs: list[tuple[int, int, int]] = []
        """(slot, first row, row after the last) of each run of rows with one adapter; rows of the base are left out."""
        start = 0
        for slot, run in itertools.groupby(row_slots):
            end = start + sum(1 for _ in run)
            if slot >= 0:
                self.runs.append((slot, start, end))
            start = end
        adapted = sum(end - start for _, start, end in self.runs)
        self.is_parted = len(self.runs) == 1 or adapted >= LONG_RUN * len(self.runs)
        """Whether each run is multiplied by itself."""
        self.chosen: torch.Tensor | None = None
        """int64 [adapters of the batch], their slots; None stands for all slots."""
        if self.runs and not self.is_parted:
            self._choose(row_slots, slot_count)

    def _choose(self, row_slots: Sequence[int], slot_count: int) -> None:
        slots = sorted({slot for slot, _, _ in self.runs})
        if FEW_SLOTS * len(slots) < slot_count:
            self.chosen = torch.tensor(slots)
        else:
            slots = list(range(slot_count))
        self._is_own = torch.tensor(row_slots).view(-1, 1) == torch.tensor(slots)
        self._masks: dict[torch.dtype, torch.Tensor] = {}

    def mask(self, dtype: torch.dtype) -> torch.Tensor:
        """1 where the row has the slot's adapter, else 0: `dtype` [rows, 1, slots, 1]."""
        if dtype not in self._masks:
            self._masks[dtype] = self._is_own.to(dtype).view(self.rows, 1, -1, 1)
        return self._masks[dtype]


class Matrices(tuple[torch.Tensor, ...]):
    """A layer's matrices as vLLM wants them, one tensor for each slice, over storage as the products want it."""

    wholes: tuple[torch.Tensor, ...]

    @classmethod
    def a(cls, stacked: Sequence[torch.Tensor]) -> "Matrices":
        """Zeros in place of `stacked`, each [slots, 1, r, features]. `wholes`: one [slices, slots, r, features]."""
        slots, _, r, features = stacked[0].shape
        whole = stacked[0].new_zeros(len(stacked), slots, r, features)
        made = cls(one.unsqueeze(1) for one in whole)
        made.wholes = (whole,)
        return made

    @classmethod
    def b(cls, stacked: Sequence[torch.Tensor]) -> "Matrices":
        """Zeros in place of `stacked`, each [slots, 1, features, r]. `wholes`: for each slice [slots, r, features]."""
        wholes = tuple(one.new_zeros(one.shape[0], one.shape[3], one.shape[2]) for one in stacked)
        made = cls(whole.transpose(1, 2).unsqueeze(1) for whole in wholes)
        made.wholes = wholes
        return made


def add_products(
    y: torch.Tensor,
    x: torch.Tensor,
    a: Sequence[torch.Tensor],
    b: Sequence[torch.Tensor],
    slice_sizes: Sequence[int],
    plan: Plan,
    scale: float = 1.0,
) -> None:
    """y += scale · B A x, each slice of y's columns with its own A and B.

    y: float [rows, ≥ sum of slice_sizes]. x: float [rows, features]. a: for each slice float [slots, 1, r, features];
    b: for each slice float [slots, 1, slice size, r]; both `Matrices` where speed matters.
    """
    if not plan.runs:
        return
    whole_a = a.wholes[0] if isinstance(a, Matrices) else torch.stack([one.squeeze(1) for one in a])
    wholes_b = b.wholes if isinstance(b, Matrices) else [one.squeeze(1).transpose(1, 2) for one in b]
    targets = [y[:, end - size : end] for size, end in zip(slice_sizes, itertools.accumulate(slice_sizes), strict=True)]
    if plan.is_parted:
        for slot, start, end in plan.runs:
            rows = x[start:end]
            for one_a, whole_b, target in zip(whole_a, wholes_b, targets, strict=True):
                hidden = torch.mm(rows, one_a[slot].t())
                target[start:end].addmm_(hidden, whole_b[slot], alpha=scale)
        return
    if plan.chosen is not None:
        whole_a = whole_a.index_select(1, plan.chosen)
        wholes_b = [whole_b.index_select(0, plan.chosen) for whole_b in wholes_b]
    slices, slots, r, features = whole_a.shape
    products = torch.mm(x[: plan.rows], whole_a.reshape(-1, features).t()).view(-1, slices, slots, r)
    own = products.mul_(plan.mask(products.dtype)).view(-1, slices, slots * r)
    for number, (whole_b, target) in enumerate(zip(wholes_b, targets, strict=True)):
        target[: plan.rows].addmm_(own[:, number], whole_b.reshape(slots * r, -1), alpha=scale)


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


def _runs(indices: torch.Tensor, inputs: torch.Tensor) -> list[tuple[int, int, int]]:
    slots = indices.tolist()
    if len(slots) == 1:  # one request's rows, told by a single number
        slots *= inputs.shape[0]
    return Plan(slots[: inputs.shape[0]], 0).runs
