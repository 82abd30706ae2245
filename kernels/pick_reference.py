"""A seeded part of the informative elements: those whose hash is small, in plain numpy. Defines what `pick` means.

Informative: some source differs from the pivot, the suspect is not 0, and |s| >= |b| / 4 (where the sum cancels, the
suspect's spacing is far below the error of the arithmetic that made it). The hash of an element depends on its
position and the seed alone, so what is picked does not depend on blocks or threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.formats import decode
from reconstruct.kernels.results import View, check_views

__all__ = ["EVERY_HASH", "element_hash", "hash_key", "pick", "smallest_hashes"]

#: The largest hash: every element may be taken.
EVERY_HASH = 0xFFFFFFFF


def hash_key(high: int, seed: int) -> int:
    """What the 32 low bits of a position are combined with, from its high bits and the seed."""
    return _mixed((seed * 0x9E3779B1 + high * 0x85EBCA77 + 0x165667B1) & EVERY_HASH)


def _mixed(h: int) -> int:
    """The finaliser of MurmurHash3: a bijection of 32 bits in which every input bit moves every output bit."""
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & EVERY_HASH
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & EVERY_HASH
    return h ^ (h >> 16)


def element_hash(index: NDArray[np.int64], seed: int) -> NDArray[np.uint32]:
    """A 32-bit mix of position and seed: uint32 [same shape]. Multiplications of 32 bits: they vectorise anywhere."""
    h = index.astype(np.uint32)
    if not len(index):
        return h
    low, top = int(index.min()) >> 32, int(index.max()) >> 32
    for part in range(low, top + 1):
        inside = slice(None) if low == top else index >> 32 == part
        h[inside] ^= np.uint32(hash_key(part, seed))
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return np.asarray(h ^ (h >> np.uint32(16)), np.uint32)


def smallest_hashes(index: NDArray[np.int64], size: int, seed: int) -> NDArray[np.intp]:
    """Where the `size` positions with the smallest hashes stand in `index`, in ascending order: int64 [<= size]."""
    if not 0 < size < len(index):
        return np.arange(min(size, len(index)))
    hashes = element_hash(index, seed)
    last = np.partition(hashes, size - 1)[size - 1]
    keep = hashes < last
    # Equal hashes are ordered by position, so that the choice does not depend on how a tensor was cut into blocks.
    keep[np.flatnonzero(hashes == last)[: size - np.count_nonzero(keep)]] = True
    return np.flatnonzero(keep)


def pick(models: Sequence[View], *, seed: int, offset: int = 0, below: int = EVERY_HASH) -> NDArray[np.int64]:
    """Positions of informative elements with a hash up to `below`, int64 [n], ascending; `offset` is the position of
    the first element in its tensor.
    """
    check_views(models)
    values = np.stack([decode(m.bits, m.dtype) for m in models])
    suspect, pivot = values[0], values[1]
    with np.errstate(invalid="ignore"):
        informative = (values[2:] != pivot).any(axis=0) & (suspect != 0) & (np.abs(suspect) >= 0.25 * np.abs(pivot))
    informative &= np.isfinite(values).all(axis=0)
    candidates = np.flatnonzero(informative) + offset
    return candidates[element_hash(candidates, seed) <= below]
