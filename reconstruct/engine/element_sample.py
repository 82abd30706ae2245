"""The sample of a tensor, gathered block by block: the informative elements with the smallest hashes of all of it.

A bound on the hash is set before a block is read, so that little more is gathered than is kept. It is a guess from the
share of informative elements so far; if it turns out too tight, the blocks are gone through once more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.engine.feed import Block
from reconstruct.kernels.formats import decode
from reconstruct.kernels.pick_reference import EVERY_HASH, element_hash, smallest_hashes
from reconstruct.kernels.select import Kernels

__all__ = ["ElementSample"]

_PROBE = 1 << 15  # elements that tell what share is informative
_COARSE = 1000  # gathered elements from which that share is known to a few per cent
_MARGIN = 1.2  # elements gathered over elements wanted, and six standard deviations more


class ElementSample:
    """Up to `size` of a tensor's `elements`. `take` every block; if it is `short` then, `restart` and do it again."""

    def __init__(self, elements: int, size: int, seed: int, kernels: Kernels) -> None:
        self._elements, self._size, self._seed, self._kernels = elements, size, seed, kernels
        self._known: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._seen, self._informative = 0, 0.0
        self._index: list[NDArray[np.int64]] = []
        self._hashes: list[NDArray[np.uint32]] = []
        self._values: list[NDArray[np.float32]] = []
        self._complete = EVERY_HASH  # every informative element seen with a hash up to this has been gathered

    def take(self, block: Block) -> None:
        """Gather from a block."""
        length = block.stop - block.start
        if self._known is not None:
            expected = self._known
        elif self._seen:
            expected = self._elements * self._informative / self._seen
        else:  # nothing is known of the share of informative elements
            probe = min(length, _PROBE)
            expected = self._elements * max(len(self._pick(block, EVERY_HASH, probe)), 1) / probe
        bound = self._bound(expected)
        found = self._pick(block, bound, length)
        self._complete = min(self._complete, bound)
        self._seen += length
        self._informative += len(found) / _share(bound)
        self._index.append(found)
        self._hashes.append(element_hash(found, self._seed))
        local = found - block.start
        self._values.append(np.stack([decode(view.bits[local], view.dtype) for view in block.host]))

    @property
    def informative(self) -> int:
        """How many elements are informative: exactly where all were gathered, else from the share that was."""
        return round(self._informative)

    @property
    def short(self) -> bool:
        """Whether elements may be missing that belong to the sample."""
        gathered = sum(int(np.count_nonzero(hashes <= self._complete)) for hashes in self._hashes)
        return self._complete < EVERY_HASH and gathered < self._size

    def restart(self) -> None:
        """Forget what was gathered, but not how many elements are informative."""
        # Where few were expected and fewer found, the estimate is coarse: then everything is gathered.
        gathered = sum(len(part) for part in self._index)
        self._known = self._informative if self._known is None and gathered > _COARSE else 0.0
        self._begin()

    def chosen(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions int64 [n], ascending, and values float32 [models, n]."""
        index = np.concatenate(self._index)
        keep = smallest_hashes(index, self._size, self._seed)
        return index[keep], np.ascontiguousarray(np.concatenate(self._values, axis=1)[:, keep])

    def _bound(self, expected: float) -> int:
        """The hash up to which a little more than `size` of so many informative elements lie."""
        wanted = _MARGIN * self._size + 6 * np.sqrt(self._size) + 50
        return int(min(1.0, wanted / max(expected, 1.0)) * EVERY_HASH)

    def _pick(self, block: Block, bound: int, length: int) -> NDArray[np.int64]:
        """From the first `length` elements of a block."""
        views = [view.first(length) for view in block.views]
        return self._kernels.pick(views, seed=self._seed, offset=block.start, below=bound)


def _share(bound: int) -> float:
    """The share of all elements whose hash is so small."""
    return (bound + 1) / (EVERY_HASH + 1)
