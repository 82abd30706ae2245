"""The lattice a tensor really uses: bf16 weights in a float32 file, fp8 values in a bf16 file, or none that is regular.

On a coarser lattice than the dtype's, histograms of differences have gaps and every relation between models looks
like a spike. Three facts are read off a few thousand elements: the mantissa bits in use, the smallest step, and
whether the numbers fill that lattice. Values of a scaled format (int4 or fp8 times a scale per block) fill it with
gaps: then the tensor must not testify by its histogram.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.lattice import Lattice

__all__ = ["EffectiveLattice", "effective_lattice"]

_MOSTLY = 0.999  # share of elements that must lie on a coarser lattice
_STRAY = 0.005  # share of the elements to which a smallest step matters that may be finer
_GROUP = 128  # contiguous elements in which repeated values are counted


@dataclass(frozen=True)
class EffectiveLattice:
    """`occupancy`: distinct values found over those expected if the lattice were filled smoothly, 1 if regular;
    `repetition`: distinct values among neighbours over those among random elements, 1 if there is no block scale.
    """

    lattice: Lattice
    coarser: bool
    occupancy: float
    repetition: float

    @property
    def regular(self) -> bool:
        """Whether the histogram of differences means what it seems to."""
        return self.occupancy >= 0.5 and self.repetition >= 0.7


def effective_lattice(
    values: NDArray[np.float32], dtype: str, seed: int = 0, columns: NDArray[np.float32] | None = None
) -> EffectiveLattice:
    """Examine contiguous runs of elements, float32 [runs, length], of a tensor stored as `dtype`; `columns` float32
    [columns, rows]: elements of a matrix along its first axis, where scales may run too.
    """
    nominal = Lattice.of_dtype(dtype)
    flat = values[np.isfinite(values) & (values != 0)].ravel()
    if len(flat) < 64:
        return EffectiveLattice(nominal, coarser=False, occupancy=1.0, repetition=1.0)
    bits = flat.view(np.uint32)
    fraction = (bits & 0x7FFFFF) | 0x800000
    lowest = fraction & -fraction.astype(np.int64)
    used = 23 - np.log2(lowest.astype(np.float64)).astype(int)
    exponent = (bits >> 23).astype(int) & 0xFF
    exponent = np.where(exponent == 0, -126, exponent - 127)
    mantissa = min(int(np.quantile(used, _MOSTLY, method="higher")), nominal.mantissa)
    step = int(np.quantile(exponent - used, 1 - _MOSTLY, method="lower"))
    # A smallest step matters only if it is coarser than the floating spacing for more than stray elements, and it is
    # one only if these keep to it: of full-precision weights, too, the finest thousandth lies below all others.
    below, finer = step > exponent - mantissa, step > exponent - used
    quantum = step if below.mean() > 0.01 and finer.sum() <= _STRAY * below.sum() else nominal.quantum
    lattice = Lattice(mantissa, max(quantum, nominal.quantum))
    coarser = lattice.mantissa < nominal.mantissa or lattice.quantum > nominal.quantum
    length = values.shape[1] // _GROUP * _GROUP
    repetition = _repetition(values[:, :length].reshape(-1, _GROUP), seed) if length else 1.0
    if columns is not None:
        repetition = min(repetition, _repetition(columns, seed))
    return EffectiveLattice(lattice, coarser, _occupancy(flat, lattice), repetition)


def _occupancy(flat: NDArray[np.float32], lattice: Lattice) -> float:
    """Distinct magnitudes in the middle half of the distribution over those expected of a smooth density there."""
    magnitude = np.abs(flat)
    low, high = np.quantile(magnitude, [0.25, 0.75])
    inside = magnitude[(magnitude >= low) & (magnitude <= high)]
    edges = np.exp2(np.arange(np.floor(np.log2(low)), np.ceil(np.log2(high)) + 1))
    edges = np.unique(np.clip(np.r_[low, edges, high], low, high))
    expected = 0.0
    for begin, end in pairwise(edges):
        points = max((end - begin) / float(lattice.spacing(np.array([begin]))[0]), 1e-9)
        found = ((inside >= begin) & (inside < end)).sum()
        expected += points * -np.expm1(-found / points)
    return float(len(np.unique(inside)) / max(expected, 1.0))


def _repetition(groups: NDArray[np.float32], seed: int) -> float:
    """Distinct values in groups of neighbours [groups, size], relative to as many elements drawn from all of them."""
    groups = groups[(groups != 0).mean(axis=1) > 0.5]
    if len(groups) < 2:
        return 1.0

    def distinct(rows: NDArray[np.float32]) -> float:
        ordered = np.sort(rows, axis=1)
        return float((ordered[:, 1:] != ordered[:, :-1]).sum(axis=1).mean() + 1)

    shuffled = np.random.default_rng(seed).permutation(groups.ravel()).reshape(groups.shape)
    return distinct(groups) / distinct(shuffled)
