"""Reads safetensors files without torch: the header, with bounds, and whether all numbers are usable.

Format: 8 bytes little-endian length, a JSON header of that length, then the tensors' bytes
(https://huggingface.co/docs/safetensors/index#format).
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from serving.errors import quote

MAX_HEADER_BYTES = 100_000_000
"""The bound of the safetensors library itself."""
MAX_DIMENSIONS = 8
MAX_LENGTH = 2**48
"""Maximum length of a tensor along one dimension: more bytes than any disk has."""
_SCAN_BYTES = 1 << 24
"""Bytes per read while scanning; a multiple of every item size."""

# Packed and rarer dtypes appear in quantised base models only; their sizes aren't checked.
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS: dict[str, tuple[Any, int, int, int]] = {
    # dtype: how to view its bits; mask of all bits but the sign; bits of the largest number up to 65504, float16's
    # largest; bits of infinity. Without the sign, the bits of floats are ordered by magnitude.
    "F64": (np.uint64, 0x7FFF_FFFF_FFFF_FFFF, 0x40EF_FC00_0000_0000, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7FFF_FFFF, 0x477F_E000, 0x7F80_0000),
    "F16": (np.uint16, 0x7FFF, 0x7BFF, 0x7C00),
    "BF16": (np.uint16, 0x7FFF, 0x477F, 0x7F80),
}


class SafetensorsError(Exception):
    """The file isn't a complete and valid safetensors file; the message says where it fails."""


@dataclass(frozen=True)
class Tensor:
    """Where one tensor is in its file."""

    dtype: str
    """As in safetensors: F32, BF16, …"""
    shape: tuple[int, ...]
    """As in torch."""
    start: int
    """Offset in the file, in bytes."""
    nbytes: int
    """Length in bytes."""


@dataclass(frozen=True)
class Excess:
    """A number that is too large, infinite or NaN."""

    tensor: str
    """The name of the first tensor that contains one."""
    is_finite: bool
    """Whether it is only too large for float16; else it is infinite or NaN."""


def read_header(path: Path, *, max_bytes: int = MAX_HEADER_BYTES) -> dict[str, Tensor]:
    """Return name → tensor for the whole file. Raises: SafetensorsError; OSError.

    max_bytes: of the header; parsing it takes some twenty times its length in memory.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        entries, tensors_start = _read_header_json(file, size, max_bytes)
    if not _is_text_map(entries.get("__metadata__", {})):
        raise SafetensorsError("its __metadata__ doesn't map strings to strings")
    tensors = {
        name: _parse_tensor(name, entry, tensors_start, size)
        for name, entry in entries.items()
        if name != "__metadata__"
    }
    _check_layout(tensors, tensors_start, size)
    return tensors


def find_excess(path: Path, tensors: Mapping[str, Tensor]) -> Excess | None:
    """Return the first infinity, NaN or number beyond ±65504, or None. Reads the whole file."""
    with path.open("rb") as file:
        for name, tensor in tensors.items():
            if tensor.dtype in _FLOATS:
                _, _, largest, infinity = _FLOATS[tensor.dtype]
                magnitude = _largest_magnitude(file, tensor)
                if magnitude > largest:
                    return Excess(name, magnitude < infinity)
    return None


def _read_header_json(file: BinaryIO, size: int, max_bytes: int) -> tuple[dict[str, Any], int]:
    if size < 8:
        raise SafetensorsError(f"it has {size} bytes, too few for a header")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > size - 8:
        raise SafetensorsError(f"its header claims {length} bytes, but the file has {size}")
    if length > max_bytes:
        raise SafetensorsError(f"its header has {length} bytes, more than {max_bytes}")
    try:
        entries = json.loads(file.read(length), object_pairs_hook=_refuse_duplicate_names)
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"its header isn't JSON ({type(error).__name__})") from error
    if not isinstance(entries, dict):
        raise SafetensorsError("its header isn't a JSON object")
    return entries, 8 + length


def _refuse_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the JSON object. A duplicate name could be one tensor to us and another to the engine."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise SafetensorsError("its header has a duplicate name")
    return entries


def _is_text_map(metadata: object) -> bool:
    return isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())


def _parse_tensor(name: str, entry: object, tensors_start: int, size: int) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise SafetensorsError(f"the header's entry for {quote(name)!r} lacks dtype, shape or data_offsets")
    if len(shape) > MAX_DIMENSIONS or not all(type(length) is int and 0 <= length <= MAX_LENGTH for length in shape):
        raise SafetensorsError(f"{quote(name)!r} has a shape that isn't a list of at most {MAX_DIMENSIONS} lengths")
    if not 0 <= start <= end <= size - tensors_start:
        raise SafetensorsError(f"{quote(name)!r} extends past the end of the file, which is truncated or damaged")
    if dtype in _ITEM_BYTES and end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise SafetensorsError(f"{quote(name)!r} has {end - start} bytes, which doesn't match {quote(dtype)} {shape}")
    return Tensor(dtype, tuple(shape), tensors_start + start, end - start)


def _check_layout(tensors: Mapping[str, Tensor], tensors_start: int, size: int) -> None:
    """Tensors must fill the file without overlap or holes: the format requires it, and a hole may hide anything."""
    position = tensors_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if tensor.start != position:
            raise SafetensorsError(f"{quote(name)!r} doesn't start where the previous tensor ends")
        position += tensor.nbytes
    if position != size:
        raise SafetensorsError(f"{size - position} bytes at its end belong to no tensor")


def _largest_magnitude(file: BinaryIO, tensor: Tensor) -> int:
    """Return the bits of the tensor's largest number, without its sign; NaNs count as larger than infinity."""
    view, unsigned, _, _ = _FLOATS[tensor.dtype]
    return max(
        (int(np.max(np.frombuffer(block, dtype=view) & view(unsigned))) for block in _blocks(file, tensor)), default=0
    )


def _blocks(file: BinaryIO, tensor: Tensor) -> Iterator[bytes]:
    file.seek(tensor.start)
    remaining = tensor.nbytes
    while remaining:
        block = file.read(min(_SCAN_BYTES, remaining))
        if not block:
            raise SafetensorsError("it was truncated while being read")
        remaining -= len(block)
        yield block
