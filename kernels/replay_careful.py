"""What every replay kernel shares: one element with all the care that subnormal numbers and coarse lattices need, and
the counting of codes. Compiled once for all formulas and dtypes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, float64, int32, int64, njit, uint32

from reconstruct.kernels.intrinsics import bits_to_float, float_to_bits, round_mantissa
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA

__all__ = ["CAREFUL", "NOTHING", "WIDTH", "count_carefully", "half_round", "sum_of_squares", "tally"]

WIDTH = 2 * MAXIMUM_STEPS + 1
#: Codes of elements: stratum and steps as one number, or not novel (nothing more to count), or in need of care.
NOTHING = len(STRATA) * WIDTH
CAREFUL = NOTHING + 1
_EDGES = np.array(STRATA)
_STEPS = MAXIMUM_STEPS


@njit(cache=True, nogil=True)
def _exponent(x: Any) -> Any:
    return int32(uint32(float_to_bits(x) & uint32(0x7F800000)) >> uint32(23))


@njit(cache=True, nogil=True)
def _spacing(x: Any, mantissa: Any, smallest: Any) -> Any:
    """Lattice.spacing of a float32, float64."""
    e = _exponent(x) - mantissa
    if e >= 1:
        return float64(max(bits_to_float(uint32(e) << uint32(23)), smallest))
    e = _exponent(x) if _exponent(x) > 0 else _exponent(x * float32(2.0**64)) - int32(64)
    e = max(int32(e - mantissa + int32(22)), int32(0))
    unit = bits_to_float(uint32(1) << uint32(e)) if e < 23 else bits_to_float(uint32(e - 22) << uint32(23))
    return float64(max(unit, smallest))


@njit(cache=True, nogil=True)
def half_round(x: Any) -> Any:
    """Round a float32 to float16, with its subnormal numbers and its overflow."""
    y = round_mantissa(x, 13)
    if abs(x) < float32(2.0**-14):
        y = float32(np.rint(x * float32(2.0**24)) * float32(2.0**-24))
    return y if abs(y) <= float32(65504) else x * float32(np.inf)


@njit(cache=True, nogil=True)
def count_carefully(
    target: Any, sources: Any, raw: Any, share: Any, mantissa: Any, smallest: Any, counts: Any, steps: Any
) -> Any:
    """Count one element: target float32, sources float32 [S], unrounded prediction float64. Returns its residual."""
    largest = abs(target)
    for x in sources:
        largest = max(largest, abs(x))
    unit = _spacing(largest, mantissa, smallest)
    # From float64 straight to the lattice: through float32 it would be rounded twice.
    step_size = _spacing(float32(raw), mantissa, smallest)
    predicted = float32(np.rint(raw / step_size) * step_size)
    counts[0] += 1
    if not abs(predicted) < np.inf:
        return 0.0
    difference, residual = float64(target) - float64(predicted), float64(target) - raw
    counts[1] += difference == 0
    counts[2] += abs(difference) <= 2 * unit
    counts[3] += abs(residual) <= share * unit
    away = np.inf
    for x in sources:
        step_size = _spacing(x, mantissa, smallest)
        if predicted == float32(np.rint(float64(x) / step_size) * step_size):
            return residual
        away = min(away, abs(float64(predicted) - float64(x)))
    counts[4] += 1
    u = _spacing(predicted, mantissa, smallest)
    k = 0
    while k + 1 < len(_EDGES) and away / u >= _EDGES[k + 1]:
        k += 1
    step = 0
    if difference != 0:
        step = max(1, int64(np.floor(min(abs(difference) / u + 0.5, float64(_STEPS)))))
        if difference < 0:
            step = -step
    steps[k, step + _STEPS] += 1
    return residual


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def sum_of_squares(x: Any) -> Any:
    """Of a chunk: in its own precision, which overflows only where a weight is damaged."""
    quick = x.dtype.type(0)
    for i in range(len(x)):
        quick += x[i] * x[i]
    if np.isfinite(quick):
        return float64(quick)
    total = 0.0
    for i in range(len(x)):
        total += float64(x[i]) * float64(x[i])
    return total


@njit(cache=True, nogil=True)
def tally(codes: Any, histogram: Any) -> Any:
    """Count codes int32 [n] in four histograms side by side: one hot bin would wait for itself. No branches: any code
    has a bin. Returns whether some elements need care.
    """
    whole = len(codes) // 4 * 4
    for i in range(0, whole, 4):
        histogram[0, uint32(codes[i])] += 1
        histogram[1, uint32(codes[i + 1])] += 1
        histogram[2, uint32(codes[i + 2])] += 1
        histogram[3, uint32(codes[i + 3])] += 1
    for i in range(whole, len(codes)):
        histogram[0, uint32(codes[i])] += 1
    careful = 0
    for part in range(4):
        careful += histogram[part, CAREFUL]
        histogram[part, CAREFUL] = 0
    return careful > 0
