"""The m informative elements with the smallest hash, in plain numpy. Defines what `pick` means.

Informative: some source differs from the pivot, the suspect is not 0, and |s| >= |b| / 4 (where the sum cancels, the
suspect's spacing is far below the error of the arithmetic that made it). The hash of an element depends on its
position and the seed alone, so the sample does not depend on blocks or threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.formats import decode
from reconstruct.kernels.results import PickResult, View, check_views

__all__ = ["EVERY_HASH", "element_hash", "pick", "smallest_hashes"]

#: The largest hash: every element may be taken.
EVERY_HASH = 0xFFFFFFFF


def element_hash(index: NDArray[np.int64], seed: int) -> NDArray[np.uint32]:
    """A 32-bit mix (the finaliser of splitmix64) of position and seed: uint32 [same shape]."""
    with np.errstate(over="ignore"):
        z = index.astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)


def smallest_hashes(index: NDArray[np.int64], size: int, seed: int) -> NDArray[np.intp]:
    """Where the `size` positions with the smallest hashes stand in `index`, in ascending order: int64 [<= size]."""
    if len(index) <= size:
        return np.arange(len(index))
    # Equal hashes are ordered by position, so that the choice does not depend on how a tensor was cut into blocks.
    keys = (element_hash(index, seed).astype(np.uint64) << np.uint64(32)) | index.astype(np.uint32)
    return np.sort(np.argpartition(keys, size)[:size])


def pick(models: Sequence[View], *, size: int, seed: int, offset: int = 0, below: int = EVERY_HASH) -> PickResult:
    """Sample up to `size` informative elements; `offset` is the position of the first element in its tensor, `below`
    the largest hash that is still of interest (what a full sample of earlier blocks holds).
    """
    check_views(models)
    values = np.stack([decode(m.bits, m.dtype) for m in models])
    suspect, pivot = values[0], values[1]
    with np.errstate(invalid="ignore"):
        informative = (values[2:] != pivot).any(axis=0) & (suspect != 0) & (np.abs(suspect) >= 0.25 * np.abs(pivot))
    informative &= np.isfinite(values).all(axis=0)
    candidates = np.flatnonzero(informative) + offset
    wanted = candidates[element_hash(candidates, seed) <= below]
    return PickResult(wanted[smallest_hashes(wanted, size, seed)], len(candidates))
