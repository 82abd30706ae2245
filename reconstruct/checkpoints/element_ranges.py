"""Elements of a tensor -> bytes of its file, and back."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import TensorInfo
from reconstruct.kernels.formats import FLOAT_FORMATS

__all__ = ["ElementRange", "element_range"]


@dataclass(frozen=True)
class ElementRange:
    """Bytes [begin, end) of a file; `storage`: the numpy dtype that holds the bits of an element."""

    begin: int
    end: int
    storage: np.dtype[np.generic]

    def view(self, data: bytes | memoryview | mmap.mmap, origin: int) -> NDArray[np.generic]:
        """The elements out of bytes that begin at position `origin` of the file: 1-D, read-only.

        A view where the bytes are aligned to the dtype, else a copy.
        """
        offset, length = self.begin - origin, self.end - self.begin
        array = np.frombuffer(memoryview(data)[offset : offset + length], self.storage)
        if not array.flags.aligned:
            array = array.copy()
        array.flags.writeable = False
        return array


def element_range(tensor: TensorInfo, start: int, stop: int) -> ElementRange:
    """Where elements [start, stop) lie. Raises ValueError for elements that the tensor has not."""
    if not 0 <= start <= stop <= tensor.elements:
        raise ValueError(f"elements {start} to {stop} of a tensor of {tensor.elements}")
    storage = np.dtype(FLOAT_FORMATS[tensor.dtype].storage)
    size = storage.itemsize
    return ElementRange(tensor.begin + start * size, tensor.begin + stop * size, storage)
