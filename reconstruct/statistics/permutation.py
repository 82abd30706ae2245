"""Seeded permutations, kept: drawing one takes longer than using it, and tensors come in few sizes."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

__all__ = ["permutation"]


@functools.lru_cache(maxsize=32)
def permutation(size: int, seed: int) -> NDArray[np.intp]:
    """The numbers below `size` in an order that depends on `seed` alone: read-only, int64 [size]."""
    order = np.random.default_rng(seed).permutation(size)
    order.flags.writeable = False
    return order
