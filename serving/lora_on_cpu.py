"""A batch's low-rank products on a processor: y += scale · B(l) A(l) x, where each row has its own adapter l, or none.

vLLM 0.32 copies A and B once for every row before it multiplies (`vllm/lora/ops/torch_ops/lora_ops.py`): for a prompt
of 1,000 tokens that is 1,000 copies of one matrix. Here rows of one adapter that stand together, as a prompt's do, are
one product, and a batch of many single rows is multiplied with all adapters at once, of which each row keeps its own.
Only where rows are few are matrices copied here, too. The arguments are vLLM's. This runs in the engine's process
alone, which is why it may import torch.
"""

import itertools

import torch

WHOLE_SEGMENT = 16
"""Mean rows of a segment from which on a product for each segment is fastest."""
FEW_ROWS = 10
"""Single rows up to which copying each one's adapter costs less than multiplying with all adapters."""


def shrink(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, indices: torch.Tensor, scaling: float = 1.0
) -> None:
    """output = scaling · A x.

    inputs: float [rows, features]. weights: float [adapters, 1, r, features]. output: float32 [rows, r], zeros.
    indices: int64 [rows], the adapter of each row; -1 for none, whose output is left as it is.
    """
    adapters = _matrices(weights)
    count, r, features = adapters.shape
    inputs, indices, segments = inputs.to(output.dtype), *_rows(indices, inputs.shape[0])
    if _is_long(segments):
        for adapter, start, end in segments:
            if adapter >= 0:
                own = adapters[adapter].to(output.dtype)
                output[start:end, :r] = scaling * torch.mm(inputs[start:end], own.t())
        return
    if inputs.shape[0] <= FEW_ROWS:
        output[:, :r] += scaling * _copied(adapters, inputs, indices)
        return
    products = torch.mm(inputs, adapters.to(output.dtype).reshape(count * r, features).t()).view(-1, count, r)
    own = products[torch.arange(products.shape[0]), indices.clamp(min=0)]
    output[:, :r] += scaling * own.masked_fill_((indices < 0).unsqueeze(1), 0)


def expand(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    indices: torch.Tensor,
    add_inputs: bool = True,
) -> None:
    """output += B x, or output = B x with `add_inputs` off.

    inputs: float32 [rows, r]. weights: float [adapters, 1, features, r]. output: float [rows, ≥ features].
    """
    features = min(_matrices(weights).shape[1], output.shape[1])
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
    adapters = _matrices(weights)
    count, features, r = adapters.shape
    inputs, indices, segments = inputs[:, :r], *_rows(indices, inputs.shape[0])
    if _is_long(segments):
        for adapter, start, end in segments:
            if adapter >= 0:
                target[start:end].addmm_(inputs[start:end].to(output.dtype), adapters[adapter].to(output.dtype).t())
        return
    if inputs.shape[0] <= FEW_ROWS:
        target += _copied(adapters, inputs.to(output.dtype), indices)
        return
    apart = torch.zeros(inputs.shape[0], count, r, dtype=output.dtype)
    apart[torch.arange(apart.shape[0]), indices.clamp(min=0)] = inputs.to(output.dtype)
    apart.masked_fill_((indices < 0).view(-1, 1, 1), 0)
    together = adapters.to(output.dtype).permute(0, 2, 1).reshape(count * r, features)
    target.addmm_(apart.view(-1, count * r), together)


def _matrices(weights: torch.Tensor) -> torch.Tensor:
    return weights.squeeze(1) if weights.dim() == 4 else weights


def _rows(indices: torch.Tensor, rows: int) -> tuple[torch.Tensor, list[tuple[int, int, int]]]:
    """The adapter of each row, and (adapter, first row, row after the last) of each run of rows with the same."""
    if indices.shape[0] == 1 and rows > 1:  # one request's rows, told by a single number
        indices = indices.expand(rows)
    segments, start = [], 0
    for adapter, run in itertools.groupby(indices[:rows].tolist()):
        end = start + sum(1 for _ in run)
        segments.append((adapter, start, end))
        start = end
    return indices[:rows], segments


def _is_long(segments: list[tuple[int, int, int]]) -> bool:
    return len(segments) == 1 or segments[-1][2] >= WHOLE_SEGMENT * len(segments)


def _copied(adapters: torch.Tensor, inputs: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Each row's product with its own copy of its adapter, zeros for the base: float [rows, outputs]."""
    own = adapters[indices.clamp(min=0)].to(inputs.dtype)
    return torch.einsum("bi,boi->bo", inputs, own).masked_fill_((indices < 0).unsqueeze(1), 0)
