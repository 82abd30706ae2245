"""The lattice a tensor really uses: bf16 weights in a float32 file, fp8 values in a bf16 file, or none that is regular.

On a coarser lattice than the dtype's, histograms of differences have gaps and every relation between models looks
like a spike. Three facts are read off a few thousand elements: the mantissa bits in use, the smallest step, and
whether the numbers fill that lattice. Values of a scaled format (int4 or fp8 times a scale per block) fill it with
gaps: then the tensor must not testify by its histogram.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reconstruct.kernels.intrinsics import float_to_bits
from reconstruct.kernels.lattice import Lattice
from reconstruct.statistics.permutation import permutation

__all__ = ["EffectiveLattice", "effective_lattice"]

_MOSTLY = 0.999  # share of elements that must lie on a coarser lattice
_STRAY = 0.005  # share of the elements to which a smallest step matters that may be finer
_SMALLEST = -149  # exponent of the smallest float32
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
    flat = values[np.isfinite(values) & (values != 0)]
    if len(flat) < 64:
        return EffectiveLattice(nominal, coarser=False, occupancy=1.0, repetition=1.0)
    used, lowest, exponents = _digits(flat.view(np.uint32))
    mantissa: int = min(_ranked(used, int(np.ceil(_MOSTLY * (len(flat) - 1)))), nominal.mantissa)
    step = _SMALLEST + _ranked(lowest, int((1 - _MOSTLY) * (len(flat) - 1)))
    # A smallest step matters only if it is coarser than the floating spacing for more than stray elements, and it is
    # one only if these keep to it: of full-precision weights, too, the finest thousandth lies below all others.
    below = exponents[: max(step + mantissa - _SMALLEST, 0)].sum()
    finer = lowest[: max(step - _SMALLEST, 0)].sum()
    quantum = step if below > 0.01 * len(flat) and finer <= _STRAY * below else nominal.quantum
    lattice = Lattice(mantissa, max(quantum, nominal.quantum))
    coarser = lattice.mantissa < nominal.mantissa or lattice.quantum > nominal.quantum
    length = values.shape[1] // _GROUP * _GROUP
    repetition = _repetition(values[:, :length].reshape(-1, _GROUP), seed) if length else 1.0
    if columns is not None:
        repetition = min(repetition, _repetition(columns, seed))
    return EffectiveLattice(lattice, coarser, _occupancy(flat, lattice), repetition)


@njit(cache=True, nogil=True)
def _digits(bits):  # type: ignore[no-untyped-def]
    """Histograms over the bits of non-zero float32 numbers: mantissa bits in use, exponent of the last bit in use,
    exponent of the first; exponents are counted from `_SMALLEST` upwards.
    """
    used, lowest, exponents = np.zeros(24, np.int64), np.zeros(280, np.int64), np.zeros(280, np.int64)
    for b in bits:
        biased = np.int64((b >> 23) & 0xFF)
        exponent = (biased if biased > 0 else 1) - 127 - _SMALLEST
        fraction = np.int64(b & 0x7FFFFF) | 0x800000
        # As a float its lowest bit is a power of two, whose exponent counts the zeros below it.
        digits = 150 - np.int64(float_to_bits(np.float32(fraction & -fraction)) >> 23)
        used[digits] += 1
        lowest[exponent - digits] += 1
        exponents[exponent] += 1
    return used, lowest, exponents


def _ranked(histogram: NDArray[np.int64], rank: int) -> int:
    """The value at a rank of the sorted elements, from their histogram."""
    return int(np.searchsorted(np.cumsum(histogram), rank, side="right"))


def _occupancy(flat: NDArray[np.float32], lattice: Lattice) -> float:
    """Distinct magnitudes in the middle half of the distribution over those expected of a smooth density there."""
    magnitude = np.sort(np.abs(flat))
    inside = magnitude[len(magnitude) // 4 : -(len(magnitude) // 4)]
    low, high = float(inside[0]), float(inside[-1])
    edges = np.exp2(np.arange(np.floor(np.log2(low)), np.ceil(np.log2(high)) + 1))
    edges = np.unique(np.clip(np.r_[low, edges, high], low, high))
    places = np.searchsorted(inside, edges)
    expected = 0.0
    for begin, end, found in zip(edges, edges[1:], np.diff(places), strict=False):
        points = max((end - begin) / float(lattice.spacing(np.array([begin]))[0]), 1e-9)
        expected += points * -np.expm1(-found / points)
    return float((1 + np.count_nonzero(inside[1:] != inside[:-1])) / max(expected, 1.0))


def _repetition(groups: NDArray[np.float32], seed: int) -> float:
    """Distinct values in groups of neighbours [groups, size], relative to as many elements drawn from all of them."""
    groups = groups[np.count_nonzero(groups, axis=1) > groups.shape[1] / 2]
    if len(groups) < 2:
        return 1.0

    def distinct(rows: NDArray[np.float32]) -> float:
        ordered = np.sort(rows, axis=1)
        return np.count_nonzero(ordered[:, 1:] != ordered[:, :-1]) / len(rows) + 1

    shuffled = groups.ravel()[permutation(groups.size, seed)].reshape(groups.shape)
    return distinct(groups) / distinct(shuffled)
