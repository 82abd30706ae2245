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
from reconstruct.kernels.results import PickResult
from reconstruct.kernels.select import Kernels

__all__ = ["ElementSample"]

_PROBE = 1 << 15  # elements that tell what share is informative
_MARGIN = 1.2  # elements gathered over elements wanted, and six standard deviations more


class ElementSample:
    """Up to `size` of a tensor's `elements`. `take` every block; if it is `short` then, `restart` and do it again."""

    def __init__(self, elements: int, size: int, seed: int, kernels: Kernels) -> None:
        self._elements, self._size, self._seed, self._kernels = elements, size, seed, kernels
        self._known: int | None = None
        self._begin()

    def _begin(self) -> None:
        self.informative = self._seen = 0
        self._index: list[NDArray[np.int64]] = []
        self._hashes: list[NDArray[np.uint32]] = []
        self._values: list[NDArray[np.float32]] = []
        self._complete = EVERY_HASH  # every informative element seen with a hash up to this has been gathered

    def take(self, block: Block) -> None:
        """Gather from a block."""
        length = block.stop - block.start
        if self._known is not None:
            expected = float(self._known)
        else:
            expected = self._elements * (self.informative / self._seen if self._seen else 1.0)
        if not self._seen and self._known is None:  # nothing is known of the share of informative elements
            probe = self._pick(block, 0, min(length, _PROBE))
            expected = self._elements * max(probe.informative, 1) / min(length, _PROBE)
        bound = self._bound(expected)
        found = self._pick(block, bound, length)
        self._complete = min(self._complete, bound)
        self._seen += length
        self.informative += found.informative
        local = found.index - block.start
        self._index.append(found.index)
        self._hashes.append(element_hash(found.index, self._seed))
        self._values.append(np.stack([decode(view.bits[local], view.dtype) for view in block.host]))

    @property
    def short(self) -> bool:
        """Whether elements may be missing that belong to the sample."""
        gathered = sum(int(np.count_nonzero(hashes <= self._complete)) for hashes in self._hashes)
        return gathered < min(self._size, self.informative)

    def restart(self) -> None:
        """Forget what was gathered, but not how many elements are informative."""
        self._known = self.informative
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

    def _pick(self, block: Block, bound: int, length: int) -> PickResult:
        """From the first `length` elements of a block."""
        views = [view.first(length) for view in block.views]
        return self._kernels.pick(views, size=length, seed=self._seed, offset=block.start, below=bound)
