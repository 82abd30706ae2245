"""One tensor of a suspect beside the one recomputed from a recipe: which bits agree, and by how much not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.kernels.device import storage_type
from reconstruct.kernels.formats import FLOAT_FORMATS, decode, float_format
from reconstruct.kernels.lattice import Lattice

__all__ = ["CheckState", "TensorCheck", "as_stored", "cannot_say", "compare"]

_BLOCK = 1 << 22
_STORED = {f.torch_name: f.name for f in FLOAT_FORMATS.values()}


class CheckState(StrEnum):
    """What a tensor says of the claim. ROUNDING: another arithmetic with the claimed numbers made these weights."""

    MATCH = "match"
    ROUNDING = "match up to rounding"
    MISMATCH = "mismatch"
    CANNOT_SAY = "cannot say"


@dataclass(frozen=True)
class TensorCheck:
    """`identical`: elements with the same bits (zeros of either sign are the same); `near`: within one spacing of the
    suspect's dtype; `farthest`: the largest distance in spacings; `worst`: the largest distance over the tensor's
    largest number; `apart`: elements in which the recomputed tensor differs from each of the sources that it was
    compared with; `detail`: what else there is to say.
    """

    name: str
    state: CheckState
    total: int
    identical: int
    near: int
    farthest: float
    worst: float
    detail: str = ""
    apart: tuple[int, ...] = ()

    @property
    def share(self) -> float:
        """Share of identical elements; 1 for a tensor without elements."""
        return self.identical / self.total if self.total else 1.0


def cannot_say(name: str, why: str, total: int = 0) -> TensorCheck:
    """A tensor that could not be compared."""
    return TensorCheck(name, CheckState.CANNOT_SAY, total, 0, 0, float("nan"), float("nan"), why)


def compare(
    catalog: Catalog, info: TensorInfo, recomputed: torch.Tensor, sources: Sequence[tuple[Catalog, TensorInfo]] = ()
) -> TensorCheck:
    """Compare the suspect's tensor with the recipe's; `sources`: the same tensor of the models it may come from, not
    smaller, for `apart` (empty without them). A mismatch of bits is a MISMATCH here; whether
    rounding explains it is decided from the fit, not from the size of the differences: a wrong coefficient moves
    lightly tuned weights by less than a spacing too.
    """
    total = info.elements
    if tuple(recomputed.shape) != info.shape:
        shape = list(recomputed.shape)
        return cannot_say(info.name, f"the recipe makes it {shape}, the suspect has {list(info.shape)}", total)
    if float_format(info.dtype) is None:
        return cannot_say(info.name, f"{info.dtype} is not compared", total)
    made = _STORED.get(str(recomputed.dtype).removeprefix("torch."))
    detail = "" if made == info.dtype else f"the recipe writes {made}, the suspect is stored as {info.dtype}"
    lattice = Lattice.of_dtype(info.dtype)
    flat = recomputed.detach().reshape(-1)
    identical = near = 0
    apart = np.zeros(len(sources), np.int64)
    farthest = gap = largest = 0.0
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        suspect = decode(catalog.source.read(info, start, stop), info.dtype).astype(np.float64)
        expected = as_stored(flat[start:stop], info.dtype)
        with np.errstate(invalid="ignore"):
            distance = np.abs(suspect - expected)
            steps = distance / np.maximum(lattice.spacing(suspect), lattice.spacing(expected))
        same = (suspect == expected) | (np.isnan(suspect) & np.isnan(expected))
        steps = np.where(same, 0.0, np.nan_to_num(steps, nan=np.inf))
        identical += int(np.count_nonzero(same))
        for position, (other, its) in enumerate(sources):
            apart[position] += np.count_nonzero(expected != decode(other.source.read(its, start, stop), its.dtype))
            other.source.release(its, start, stop)
        near += int(np.count_nonzero(steps <= 1))
        farthest = max(farthest, float(steps.max(initial=0.0)))
        gap = max(gap, float(np.where(same, 0.0, np.nan_to_num(distance, nan=np.inf)).max(initial=0.0)))
        largest = max(largest, float(np.nan_to_num(np.abs(expected), posinf=0.0).max(initial=0.0)))
        catalog.source.release(info, start, stop)
    state = CheckState.MATCH if identical == total else CheckState.MISMATCH
    worst = gap / largest if largest > 0 else (0.0 if gap == 0 else float("inf"))
    return TensorCheck(info.name, state, total, identical, near, farthest, worst, detail, tuple(apart.tolist()))


def as_stored(part: torch.Tensor, dtype: str) -> NDArray[np.float64]:
    """Numbers after rounding to the suspect's dtype, which is what saving them there does: float64 [n]."""
    rounded = part.to(getattr(torch, FLOAT_FORMATS[dtype].torch_name)).contiguous()
    carrier = storage_type(dtype)
    bits = rounded.view(carrier).numpy()
    if carrier is torch.int16:
        bits = bits.view(np.uint16)
    return decode(bits, dtype).astype(np.float64)
