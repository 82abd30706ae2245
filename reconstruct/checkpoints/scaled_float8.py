"""float8 weights with scales (one a tensor, a row or a block) as the bfloat16 weights that a model computes with.

    w[i, j] = bf16(float32(q[i, j]) * scale[i // rows, j // columns])

`weight_scale_inv` [ceil(n / 128), ceil(m / 128)] of DeepSeek and Qwen, `weight_scale` [], [1], [n, 1] or by block of
compressed-tensors: both are multiplied by, whatever the first one's name says. Experts may be stacked before the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import ByteSource, Catalog, DerivedTensor, TensorInfo
from reconstruct.kernels.formats import decode, encode_nearest, float_format

__all__ = ["Dequantised", "dequantised", "scale_of"]

_BLOCK = (128, 128)  # where the configuration says nothing
_SERVED = "BF16"
_EXPONENTS = "F8_E8M0"  # powers of two, 127 meaning 1; the kernels do not read them


@dataclass(frozen=True, slots=True)
class Dequantised(DerivedTensor):
    """`block`: rows and columns that share a scale; the scales form a grid [..., rows, columns]."""

    weight: TensorInfo
    scale: TensorInfo
    block: tuple[int, int]

    @property
    def note(self) -> str | None:
        """That its numbers are float8 times a scale, however they are served."""
        return f"dequantised from {self.weight.dtype} (its numbers are those of float8 times {self.scale.name})"

    @property
    def gapped(self) -> bool:
        """Sixteen numbers an octave, whatever the scales make of them."""
        return True

    def _scale_rows(self, start: int, stop: int) -> tuple[NDArray[np.int64], int]:
        """Row of the grid for every row that elements [start, stop) lie in, and the width of the grid."""
        height, width = self.shape[-2:]
        rows = np.arange(start // width, -(-stop // width))
        grid_height = -(-height // self.block[0])
        return rows // height * grid_height + rows % height // self.block[0], -(-width // self.block[1])

    def reads(self, start: int, stop: int) -> Sequence[tuple[TensorInfo, int, int]]:
        """See `DerivedTensor`."""
        if start == stop:
            return []
        rows, grid_width = self._scale_rows(start, stop)
        return [
            (self.weight, start, stop),
            (self.scale, int(rows[0]) * grid_width, (int(rows[-1]) + 1) * grid_width),
        ]

    def compute(self, source: ByteSource, start: int, stop: int) -> NDArray[np.generic]:
        """See `DerivedTensor`."""
        if start == stop:
            return np.empty(0, np.uint16)
        width = self.shape[-1]
        rows, grid_width = self._scale_rows(start, stop)
        first = start // width * width
        flat = np.zeros(len(rows) * width, np.float32)  # whole rows; what was not asked for stays 0
        flat[start - first : stop - first] = decode(source.read(self.weight, start, stop), self.weight.dtype)
        grid = _scales(source, self.reads(start, stop)[1]).reshape(-1, grid_width)[rows - rows[0]]
        weights = flat.reshape(len(rows), width)
        for column in range(grid_width):
            weights[:, column * self.block[1] : (column + 1) * self.block[1]] *= grid[:, column : column + 1]
        return encode_nearest(weights, _SERVED).reshape(-1)[start - first : stop - first]


def _scales(source: ByteSource, place: tuple[TensorInfo, int, int]) -> NDArray[np.float32]:
    """Scales in float32, flat."""
    info, start, stop = place
    if info.dtype != _EXPONENTS:
        return decode(source.read(info, start, stop), info.dtype)
    exponents = source.read(replace(info, dtype="F8_E5M2"), start, stop)  # any dtype of one byte: the bits are read
    with np.errstate(over="ignore"):
        return np.ldexp(np.float32(1), exponents.astype(np.int32) - 127)


def scale_of(info: TensorInfo, tensors: Mapping[str, TensorInfo]) -> TensorInfo | None:
    """The tensor of scales that belongs to a float8 tensor, if one does."""
    if not info.dtype.startswith("F8_E") or info.dtype == _EXPONENTS:
        return None
    return tensors.get(f"{info.name}_scale_inv") or tensors.get(f"{info.name}_scale")


def dequantised(info: TensorInfo, scale: TensorInfo, catalog: Catalog) -> TensorInfo | str:
    """The weights that a float8 tensor and its scales stand for, or the reason why they cannot be told."""
    block = _block(info.shape, scale.shape, catalog.configuration)
    if float_format(info.dtype) is None or (float_format(scale.dtype) is None and scale.dtype != _EXPONENTS):
        return f"quantised as {info.dtype} with scales in {scale.dtype}, which are not read"
    if block is None:
        return f"quantised: its scales {scale.name} {list(scale.shape)} fit no rows or blocks of {list(info.shape)}"
    place = DerivedTensor.place(info)
    return Dequantised(info.name, _SERVED, info.shape, place, 0, 2 * info.elements, info, scale, block)


def _block(weight: tuple[int, ...], scale: tuple[int, ...], configuration: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns that share a scale; None if the shapes do not say."""
    if len(weight) < 2:
        return None
    height, width = weight[-2:]
    stacked, count = math.prod(weight[:-2]), math.prod(scale)
    if not height or not width:
        return None
    if count == stacked:
        return height, width
    if count == stacked * height and scale[-1:] in {(1,), (height,)} and (scale[-1] == 1 or len(scale) < len(weight)):
        return 1, width
    said = (configuration.get("quantization_config") or {}).get("weight_block_size")
    stated = tuple(said) if isinstance(said, list) and len(said) == 2 and all(type(n) is int for n in said) else None
    if len(scale) < 2 or count != stacked * math.prod(scale[-2:]) or not all(scale[-2:]):
        return None
    even = (height // scale[-2], width // scale[-1])
    for rows, columns in (*([stated] if stated else []), _BLOCK, even):
        if rows > 0 < columns and (-(-height // rows), -(-width // columns)) == tuple(scale[-2:]):
            return rows, columns
    return None
