"""A hash table from 64-bit keys to row numbers that takes 12 bytes per entry, where a dict takes some 170."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

_FREE = 0xFFFF_FFFF
_MAX_LOAD = 0.66
"""Maximum load factor: beyond it linear probing becomes slow."""


class RowTable:
    """Row numbers, 0 to 2³²-2, by 64-bit keys that are hashes already; a key may have several rows."""

    def __init__(self) -> None:
        self._taken = 0
        self._allocate(1 << 10)

    def rows(self, key: int) -> Iterator[int]:
        """Yield the rows that were added under `key`, oldest first unless the table has grown in between."""
        keys, rows, mask = self._keys, self._rows, self._mask
        slot = key & mask
        while (row := rows[slot]) != _FREE:
            if keys[slot] == key:
                yield row
            slot = (slot + 1) & mask

    def add(self, key: int, row: int, most: int = _FREE) -> None:
        """Add `row` under `key`, unless it has `most` rows already."""
        if self._taken > _MAX_LOAD * (self._mask + 1):
            self._grow()
        self._taken += self._insert(key, row, most)

    def _insert(self, key: int, row: int, most: int = _FREE) -> bool:
        keys, rows, mask = self._keys, self._rows, self._mask
        slot, there = key & mask, 0
        while rows[slot] != _FREE:
            there += keys[slot] == key
            slot = (slot + 1) & mask
        if there >= most:
            return False
        keys[slot], rows[slot] = key, row
        return True

    def _grow(self) -> None:
        keys, rows = self._keys, self._rows
        self._allocate(2 * len(rows))
        for key, row in zip(keys, rows, strict=True):
            if row != _FREE:
                self._insert(key, row)

    def _allocate(self, slots: int) -> None:
        self._mask = slots - 1
        self._keys = array("Q", bytes(8 * slots))
        self._rows = array("I", b"\xff" * (4 * slots))
