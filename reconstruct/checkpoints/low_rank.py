"""A low-rank adapter applied to a weight:  W + scale * (B @ A), or scale * (B @ A)^T where W is stored [input, output].

Product and sum in float32, one rounding to the dtype of W: what peft's merge_and_unload does. (Of an embedding it
rounds the update by itself, before it is added.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import ByteSource, DerivedTensor, TensorInfo
from reconstruct.kernels.formats import decode, encode_nearest

__all__ = ["LowRankUpdate"]

#: Elements of the float32 product formed at once. Its rows are always those of the same tiles: results must not depend
#: on which elements are asked for.
_TILE = 1 << 20


@dataclass(frozen=True, slots=True)
class LowRankUpdate(DerivedTensor):
    """`base` W [n, m]; `down` A [r, m] and `up` B [n, r] (`transposed`: A [r, n] and B [m, r])."""

    base: TensorInfo
    down: TensorInfo
    up: TensorInfo
    scale: float
    transposed: bool
    of_embedding: bool
    base_name: str

    @property
    def note(self) -> str | None:
        """Base, rank and scale."""
        return f"{self.base_name} with an adapter of rank {self.down.shape[0]}, scale {self.scale:g}"

    def _tiles(self, start: int, stop: int) -> tuple[int, int, int]:
        """First and last row (exclusive) of the tiles that hold elements [start, stop), and the rows of a tile."""
        height, width = self.shape
        rows = max(_TILE // max(width, 1), 1)
        return start // width // rows * rows, min(((stop - 1) // width // rows + 1) * rows, height), rows

    def reads(self, start: int, stop: int) -> Sequence[tuple[TensorInfo, int, int]]:
        """See `DerivedTensor`."""
        if start == stop:
            return []
        first, last, _ = self._tiles(start, stop)
        rank = self.down.shape[0]
        by_rows = self.up if not self.transposed else self.down
        whole = self.down if not self.transposed else self.up
        # Rows of B are contiguous; columns of A are not.
        rows = (by_rows, first * rank, last * rank) if not self.transposed else (by_rows, 0, by_rows.elements)
        return [(self.base, start, stop), rows, (whole, 0, whole.elements)]

    def compute(self, source: ByteSource, start: int, stop: int) -> NDArray[np.generic]:
        """See `DerivedTensor`."""
        if start == stop:
            return encode_nearest(np.empty(0, np.float32), self.dtype)
        width, rank = self.shape[1], self.down.shape[0]
        first, last, rows = self._tiles(start, stop)
        weights = decode(source.read(self.base, start, stop), self.base.dtype)
        (_, (rowwise, *range_), (whole, *all_)) = self.reads(start, stop)
        some = decode(source.read(rowwise, *range_), rowwise.dtype)
        other = decode(source.read(whole, *all_), whole.dtype)
        if self.transposed:
            some, other = some.reshape(rank, -1)[:, first:last], other.reshape(width, rank)
        else:
            some, other = some.reshape(-1, rank), other.reshape(rank, width)
        for row in range(first, last, rows):
            tile = slice(row - first, min(row + rows, last) - first)
            product = (other @ some[:, tile]).T if self.transposed else some[tile] @ other
            low, high = max(row * width, start), min((row + rows) * width, stop)
            update = (product * np.float32(self.scale)).reshape(-1)[low - row * width : high - row * width]
            if self.of_embedding:
                update = decode(encode_nearest(update, self.dtype), self.dtype)
            weights[low - start : high - start] += update
        return encode_nearest(weights, self.dtype)
