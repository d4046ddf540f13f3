"""Near duplicates of texts: MinHash signatures, an index of them, and clusters. Imports no torch.

MinHash estimates the Jaccard similarity of two sets of shingles (Broder 1997, "On the resemblance and containment of
documents"); `datasketch` computes it and chooses the bands. The index is ours: datasketch's own needs several kB per
row in dicts, this one up to 1 kB, so that a million rows fit. Nothing here depends on Python's hash seed.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast
from zlib import crc32

import numpy as np
import numpy.typing as npt

from training.data.duplicates.hash_table import RowTable

NUM_PERM = 128
"""Hash functions in a signature: the estimate's standard error is at most 0.044."""
SHINGLE = 3
"""Tokens per shingle. In running text a changed word changes three of them."""
_NO_MISS = (0.1, 0.9)
"""Weights of a false candidate, which the check of the whole signature removes, and of a missed one, which is lost."""
_BANDING_LIMIT = 0.9
"""Threshold beyond which bands would be so long that rows above it are missed; their check uses the real threshold."""
_CROWD = 32
"""Maximum rows per key of the index. If more agree, these represent them: else equal rows would cost quadratic time."""
_MAX_TOKENS = 20_000
"""Tokens of a text that are used; a book is identified by its beginning."""

Signature = npt.NDArray[np.uint32]
_Bytes = npt.NDArray[np.uint8]

# Words and numbers; each character of Chinese, Japanese, Thai, Lao, Burmese and Khmer, which are written without
# blanks; and the signs that distinguish formulas and code. Other punctuation is ignored.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[-+*/=<>^%&|~#@$\\{{}}\[\]]")


def compute_signature(text: str) -> Signature | None:
    """Return the MinHash of `text`: NUM_PERM numbers of 32 bits; None if it has no words. Case doesn't count."""
    tokens = _TOKEN.findall(text.lower())[:_MAX_TOKENS]
    if not tokens:
        return None
    new_sketch, permutations = _load_minhash()
    sketch = new_sketch(num_perm=NUM_PERM, permutations=permutations, scheme="affine32", hashfunc=int)
    sketch.update_batch(_shingles(tokens).tolist())
    return cast(Signature, sketch.hashvalues)


def _shingles(tokens: list[str]) -> npt.NDArray[np.uint32]:
    """Return a 32-bit hash of every SHINGLE consecutive tokens; of all of them if there are fewer."""
    encoded = "\n".join(tokens).encode("utf-8", "surrogatepass").split(b"\n")
    hashes = np.fromiter(map(crc32, encoded), dtype=np.uint32, count=len(tokens))
    size = min(SHINGLE, len(tokens))
    count = len(tokens) - size + 1
    mixed = np.full(count, size, dtype=np.uint32)
    for place in range(size):
        # Multiply and add, as in a polynomial rolling hash; datasketch mixes the bits again.
        mixed = mixed * np.uint32(0x9E3779B1) + hashes[place : place + count]
    return mixed


@cache
def _load_minhash() -> tuple[Any, npt.NDArray[np.uint32]]:
    """Return datasketch's MinHash and its fixed permutations; imported late, as that takes half a second."""
    from datasketch import MinHash

    return MinHash, MinHash(num_perm=NUM_PERM, scheme="affine32").permutations


@cache
def _choose_bands(threshold: float) -> tuple[int, int]:
    """Return (bands, hash values in each) that datasketch chooses for `threshold`."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=min(threshold, _BANDING_LIMIT), num_perm=NUM_PERM, weights=_NO_MISS)
    return index.b, index.r


class NearDuplicates:
    """An index of signatures that finds those with at least `threshold` similarity."""

    def __init__(self, threshold: float = 0.8) -> None:
        self._bands, self._per_band = _choose_bands(threshold)
        self._threshold = threshold
        self._buckets = RowTable()
        # Eight bits of each hash value are enough to compare two signatures (Li and König 2010, "b-bit minwise
        # hashing", arXiv 0910.3349), at a quarter of the memory.
        self._signatures: _Bytes = np.empty((1024, NUM_PERM), dtype=np.uint8)
        self._lines = array("Q")

    def find(self, found: Signature) -> tuple[int, float] | None:
        """Return the line of the signature most similar to `found`, and the similarity, 0 to 1; None if none is."""
        best = self._find_best(_low_bytes(found), self._keys(found))
        return best and (self._lines[best[0]], best[1])

    def find_all(self, found: Signature, skip: Callable[[int], bool]) -> Iterator[int]:
        """Yield the lines of all similar signatures, without those that `skip` excludes before the comparison."""
        short = _low_bytes(found)
        for row in sorted(self._candidates(self._keys(found))):
            if not skip(self._lines[row]) and self._similarity(short, row) >= self._threshold:
                yield self._lines[row]

    def add(self, found: Signature, line: int) -> None:
        """Add `found` as the signature of the row at `line`."""
        self._append(_low_bytes(found), self._keys(found), line)

    def find_or_add(self, found: Signature, line: int) -> tuple[int, float] | None:
        """Like `find`; if there is none, `found` is added for `line`."""
        short, keys = _low_bytes(found), self._keys(found)
        best = self._find_best(short, keys)
        if best is None:
            self._append(short, keys, line)
            return None
        return self._lines[best[0]], best[1]

    def _append(self, short: _Bytes, keys: list[int], line: int) -> None:
        row = len(self._lines)
        if row == len(self._signatures):
            grown = np.empty((2 * row, NUM_PERM), dtype=np.uint8)
            grown[:row] = self._signatures
            self._signatures = grown
        self._signatures[row] = short
        self._lines.append(line)
        for key in keys:
            self._buckets.add(key, row, most=_CROWD)

    def _find_best(self, short: _Bytes, keys: list[int]) -> tuple[int, float] | None:
        """Return (row, similarity) of the most similar row, the first of equals; None below the threshold."""
        best: tuple[int, float] | None = None
        for row in sorted(self._candidates(keys)):
            similarity = self._similarity(short, row)
            if similarity >= self._threshold and (best is None or similarity > best[1]):
                best = row, similarity
        return best

    def _candidates(self, keys: list[int]) -> set[int]:
        return {row for key in keys for row in self._buckets.rows(key)}

    def _similarity(self, short: _Bytes, row: int) -> float:
        """Estimate the Jaccard similarity; two different hash values agree in eight bits once in 256."""
        agreeing = int(np.count_nonzero(self._signatures[row] == short)) / NUM_PERM
        return max(0.0, (agreeing - 1 / 256) / (1 - 1 / 256))

    def _keys(self, found: Signature) -> list[int]:
        """Return a 64-bit key for each band of the signature."""
        bands = found[: self._bands * self._per_band].reshape(self._bands, self._per_band).astype(np.uint64)
        mixed = (bands * _odd_numbers(self._per_band)).sum(axis=1, dtype=np.uint64) + np.arange(
            self._bands, dtype=np.uint64
        )
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        return cast("list[int]", mixed.tolist())


def _low_bytes(found: Signature) -> _Bytes:
    return (found & np.uint32(0xFF)).astype(np.uint8)


@cache
def _odd_numbers(count: int) -> npt.NDArray[np.uint64]:
    """Return fixed random multipliers, odd so that no bit of a hash value is lost."""
    drawn = np.random.RandomState(7).randint(0, 1 << 63, count, dtype=np.uint64)
    return drawn * np.uint64(2) + np.uint64(1)


class Clusters:
    """Clusters of rows: a union-find forest, 4 bytes per row."""

    def __init__(self) -> None:
        self._parents = array("I")

    def add(self) -> int:
        """Add a row in a cluster of its own; return its number."""
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def root(self, row: int) -> int:
        """Return the first row of the cluster of `row`."""
        parents = self._parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    def join(self, row: int, other: int) -> None:
        """Merge the clusters of two rows."""
        first, second = sorted((self.root(row), self.root(other)))
        self._parents[second] = first

    def __len__(self) -> int:
        return len(self._parents)
