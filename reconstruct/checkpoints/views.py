"""Other forms of tensors as tensors: contiguous ranges, matrices read along columns, rows in another order, another
dtype. Nothing is copied before it is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import ByteSource, DerivedTensor, TensorInfo
from reconstruct.kernels.formats import FLOAT_FORMATS, decode, encode_nearest

__all__ = ["Part", "Reordered", "Rounded", "Strided", "part", "reordered", "rounded", "strided"]


def part(whole: TensorInfo, first: int, shape: tuple[int, ...], name: str) -> TensorInfo:
    """The contiguous elements of `whole` from `first` on, as a tensor of `shape`: of a stored tensor a byte range."""
    size = _itemsize(whole)
    count = math.prod(shape)
    if isinstance(whole, DerivedTensor):
        return Part(name, whole.dtype, shape, DerivedTensor.place(whole), 0, count * size, whole, first)
    begin = whole.begin + first * size
    return TensorInfo(name, whole.dtype, shape, whole.shard, begin, begin + count * size)


def strided(whole: TensorInfo, first: int, steps: tuple[int, int], shape: tuple[int, ...], name: str) -> TensorInfo:
    """Element [i, j] is element `first` + i * `steps[0]` + j * `steps[1]` of `whole`; `shape` of one or two axes."""
    if steps == (math.prod(shape[1:]), 1):
        return part(whole, first, shape, name)
    size = math.prod(shape) * _itemsize(whole)
    return Strided(name, whole.dtype, shape, DerivedTensor.place(whole), 0, size, whole, first, steps)


def reordered(whole: TensorInfo, order: tuple[int, ...]) -> TensorInfo:
    """Row i is row `order[i]` of `whole`, under its own name."""
    size = whole.elements * _itemsize(whole)
    return Reordered(whole.name, whole.dtype, whole.shape, DerivedTensor.place(whole), 0, size, whole, order)


def rounded(whole: TensorInfo, dtype: str, name: str) -> TensorInfo:
    """`whole` under another name, its elements rounded to the nearest of `dtype` (of 16 bits or more). Its source is
    asked for it by the name that it has there.
    """
    size = whole.elements * np.dtype(FLOAT_FORMATS[dtype].storage).itemsize
    return Rounded(name, dtype, whole.shape, DerivedTensor.place(whole), 0, size, whole)


def _itemsize(info: TensorInfo) -> int:
    return np.dtype(FLOAT_FORMATS[info.dtype].storage).itemsize


@dataclass(frozen=True, slots=True)
class _View(DerivedTensor):
    """Elements of another tensor, with all that is to be said of it."""

    whole: TensorInfo

    @property
    def note(self) -> str | None:
        """That of the whole."""
        return self.whole.note if isinstance(self.whole, DerivedTensor) else None

    @property
    def gapped(self) -> bool:
        """As the whole."""
        return isinstance(self.whole, DerivedTensor) and self.whole.gapped


@dataclass(frozen=True, slots=True)
class Part(_View):
    """Contiguous elements of a derived tensor, from `first` on."""

    first: int

    def reads(self, start: int, stop: int) -> Sequence[tuple[TensorInfo, int, int]]:
        """See `DerivedTensor`."""
        return [(self.whole, self.first + start, self.first + stop)]

    def compute(self, source: ByteSource, start: int, stop: int) -> NDArray[np.generic]:
        """See `DerivedTensor`."""
        return source.read(self.whole, self.first + start, self.first + stop)


@dataclass(frozen=True, slots=True)
class Strided(_View):
    """A matrix (or vector) whose rows are no rows of the stored tensor: gathered from the span that holds them."""

    first: int
    steps: tuple[int, int]

    def reads(self, start: int, stop: int) -> Sequence[tuple[TensorInfo, int, int]]:
        """See `DerivedTensor`."""
        if start == stop:
            return []
        width = math.prod(self.shape[1:])
        low = self.first + start // width * self.steps[0]
        last = self.first + (stop - 1) // width * self.steps[0] + (width - 1) * self.steps[1]
        return [(self.whole, low, last + 1)]

    def compute(self, source: ByteSource, start: int, stop: int) -> NDArray[np.generic]:
        """See `DerivedTensor`."""
        if start == stop:
            return np.empty(0, FLOAT_FORMATS[self.dtype].storage)
        width = math.prod(self.shape[1:])
        row, end = start // width, (stop - 1) // width + 1
        span = source.read(*self.reads(start, stop)[0])
        size = span.itemsize
        matrix = as_strided(span, (end - row, width), (self.steps[0] * size, self.steps[1] * size), writeable=False)
        return np.ascontiguousarray(matrix).reshape(-1)[start - row * width : stop - row * width]


@dataclass(frozen=True, slots=True)
class Reordered(_View):
    """The rows of another tensor in the order `order`; the few that a router has are read in one piece."""

    order: tuple[int, ...]

    def _rows(self, start: int, stop: int) -> tuple[int, tuple[int, ...]]:
        width = math.prod(self.shape[1:])
        row = start // width
        return row, self.order[row : -(-stop // width)]

    def reads(self, start: int, stop: int) -> Sequence[tuple[TensorInfo, int, int]]:
        """See `DerivedTensor`."""
        if start == stop:
            return []
        width = math.prod(self.shape[1:])
        _, rows = self._rows(start, stop)
        return [(self.whole, min(rows) * width, (max(rows) + 1) * width)]

    def compute(self, source: ByteSource, start: int, stop: int) -> NDArray[np.generic]:
        """See `DerivedTensor`."""
        if start == stop:
            return np.empty(0, FLOAT_FORMATS[self.dtype].storage)
        width = math.prod(self.shape[1:])
        first, rows = self._rows(start, stop)
        span = source.read(*self.reads(start, stop)[0]).reshape(-1, width)
        chosen: NDArray[np.generic] = span[np.asarray(rows) - min(rows)].reshape(-1)
        return chosen[start - first * width : stop - first * width]


@dataclass(frozen=True, slots=True)
class Rounded(_View):
    """The elements of another tensor in another dtype."""

    def reads(self, start: int, stop: int) -> Sequence[tuple[TensorInfo, int, int]]:
        """See `DerivedTensor`."""
        return [(self.whole, start, stop)]

    def compute(self, source: ByteSource, start: int, stop: int) -> NDArray[np.generic]:
        """See `DerivedTensor`."""
        stored = source.read(self.whole, start, stop)
        if self.whole.dtype == self.dtype:
            return stored
        return encode_nearest(decode(stored, self.whole.dtype), self.dtype)
