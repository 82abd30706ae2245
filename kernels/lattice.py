"""The lattice of numbers a tensor can take: a floating-point format, possibly coarser than its dtype allows.

At x the distance to the next number is  u(x) = max(2^(floor(log2 |x|) - mantissa), 2^quantum).
`mantissa` are the mantissa bits in use; `quantum` is the exponent of the smallest step (subnormals, fixed point).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.formulas import Formula

__all__ = ["Lattice", "working_coefficients"]

_FLOAT32_MANTISSA, _FLOAT32_QUANTUM = 23, -149


@dataclass(frozen=True)
class Lattice:
    """Numbers with `mantissa` bits (0 to 23) and no step below 2^`quantum` (at least -149)."""

    mantissa: int
    quantum: int

    @classmethod
    def of_dtype(cls, dtype: str) -> Lattice:
        """The lattice a dtype allows (float64 is examined at float32 precision)."""
        format_ = FLOAT_FORMATS[dtype]
        return cls(min(format_.mantissa, _FLOAT32_MANTISSA), max(format_.quantum, _FLOAT32_QUANTUM))

    def holds(self, dtype: str) -> bool:
        """Whether every number of a dtype (as the kernels decode it, in float32) is a number of this lattice."""
        own = Lattice.of_dtype(dtype)
        return own.mantissa <= self.mantissa and own.quantum >= self.quantum

    def spacing(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distance to the next lattice number at x: float64 [same shape], > 0 also at 0."""
        bits = np.asarray(x, np.float64).view(np.int64)  # of which the exponent starts at bit 52, biased by 1023
        exponent = np.maximum(((bits >> 52) & 0x7FF) - (1023 + self.mantissa), self.quantum)
        return np.asarray((exponent + 1023) << 52).view(np.float64)

    def round(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        """Nearest lattice number, ties to even: float32 [same shape]."""
        x = np.asarray(x, np.float64)
        step = self.spacing(x)
        with np.errstate(over="ignore"):  # half a step above the largest float32 is infinity, as in hardware
            return np.asarray(np.rint(x / step) * step, np.float32)


def working_coefficients(
    coefficients: NDArray[np.float64], divisors: NDArray[np.float64], formula: Formula
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Coefficients and divisors rounded to a formula's working format, held in float64 or float32 [same shapes]."""
    kind = np.dtype(np.float64 if formula.working == "float64" else np.float32)
    weights: NDArray[np.floating] = coefficients.astype(kind)
    scale: NDArray[np.floating] = divisors.astype(kind)
    if formula.working in {"bfloat16", "float16"}:
        lower = Lattice.of_dtype("BF16" if formula.working == "bfloat16" else "F16")
        weights, scale = lower.round(weights), lower.round(scale)
    return weights, scale
