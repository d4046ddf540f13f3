"""Reads safetensors files without torch: the header, with bounds, and whether every number is finite.

Format: 8 bytes little-endian length, a JSON header of that length, then the tensors' bytes
(https://huggingface.co/docs/safetensors/index#format). It refuses to know what the tensors are for.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAX_HEADER_BYTES = 100_000_000
"""The bound that the safetensors library itself sets."""
_SCAN_BYTES = 1 << 24
"""Read at once while scanning; a multiple of every item size."""

# Packed and rarer dtypes appear in quantised base models only; their sizes aren't checked.
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS: dict[str, tuple[Any, int]] = {
    # dtype: how to view its bits, the exponent's bits, all of which are set in infinities and NaNs alone
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}


class SafetensorsError(Exception):
    """The file isn't a whole and sound safetensors file; the message says where it stops being one."""


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies in its file."""

    dtype: str
    """As safetensors writes it: F32, BF16, …"""
    shape: tuple[int, ...]
    """As torch has it."""
    start: int
    """Offset in the file, in bytes."""
    nbytes: int
    """Length in bytes."""


def read_header(path: Path) -> dict[str, Tensor]:
    """Name → tensor for everything in the file. Raises: SafetensorsError; OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        entries, tensors_start = _read_header_json(file, size)
    tensors = {
        name: _tensor(name, entry, tensors_start, size) for name, entry in entries.items() if name != "__metadata__"
    }
    _check_layout(tensors, tensors_start, size)
    return tensors


def non_finite_tensor(path: Path, tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds an infinity or NaN, or None. Reads the whole file."""
    with path.open("rb") as file:
        for name, tensor in tensors.items():
            if tensor.dtype in _FLOATS and not _is_finite(file, tensor):
                return name
    return None


def _read_header_json(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    if size < 8:
        raise SafetensorsError(f"it is {size} bytes long, less than a header's length field")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise SafetensorsError(f"its header claims {length} bytes, but the file has {size}")
    try:
        entries = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"its header isn't JSON ({type(error).__name__})") from error
    if not isinstance(entries, dict):
        raise SafetensorsError("its header isn't a JSON object")
    return entries, 8 + length


def _tensor(name: str, entry: object, tensors_start: int, size: int) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise SafetensorsError(f"the header's entry for {name!r} lacks dtype, shape or data_offsets")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise SafetensorsError(f"{name!r} has a shape that isn't a list of lengths")
    if not 0 <= start <= end <= size - tensors_start:
        raise SafetensorsError(f"{name!r} reaches beyond the end of the file, which was cut short or damaged")
    if dtype in _ITEM_BYTES and end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise SafetensorsError(f"{name!r} has {end - start} bytes, which isn't what {dtype} {shape} takes")
    return Tensor(dtype, tuple(shape), tensors_start + start, end - start)


def _check_layout(tensors: Mapping[str, Tensor], tensors_start: int, size: int) -> None:
    """Tensors must fill the file without overlap or holes: the format says so, and a hole may hide anything."""
    position = tensors_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if tensor.start != position:
            raise SafetensorsError(f"{name!r} doesn't start where the tensor before it ends")
        position += tensor.nbytes
    if position != size:
        raise SafetensorsError(f"{size - position} bytes at its end belong to no tensor")


def _is_finite(file: BinaryIO, tensor: Tensor) -> bool:
    view, exponent = _FLOATS[tensor.dtype]
    return all(
        not np.any((np.frombuffer(block, dtype=view) & view(exponent)) == view(exponent))
        for block in _blocks(file, tensor)
    )


def _blocks(file: BinaryIO, tensor: Tensor) -> Iterator[bytes]:
    file.seek(tensor.start)
    remaining = tensor.nbytes
    while remaining:
        block = file.read(min(_SCAN_BYTES, remaining))
        if not block:
            raise SafetensorsError("it was cut short while being read")
        remaining -= len(block)
        yield block
