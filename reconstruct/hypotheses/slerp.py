"""slerp: s = sin((1-t) theta)/sin(theta) a + sin(t theta)/sin(theta) b, theta the angle of the flattened tensors.

Beyond |cos theta| > 0.9995 the merge programs interpolate linearly: there slerp *is* linear and nothing in the
weights can tell them apart. (Shoemake 1985; the threshold is that of mergekit 0.1.5.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.hypotheses.base import Fit, misfit
from reconstruct.statistics.moments import Moments
from reconstruct.statistics.rounding import Rows, interval_fit

__all__ = ["COSINE_ERROR", "LINEAR_BRANCH", "Slerp", "slerp_coefficients", "slerp_interval", "slerp_sensitivity"]

#: |cos| above which slerp falls back to linear interpolation.
LINEAR_BRANCH = 0.9995
#: What a program's own cosine, a float32 sum over a tensor, may be off by.
COSINE_ERROR = 2.0**-17
_STEP = 1e-6
_FLAT = 1e-9  # spacings that the whole of t moves an element by: it says nothing of t
_CANCELLED = 16.0  # times smaller than its sources: cancelled


def slerp_coefficients(t: float, cosine: float) -> tuple[float, float]:
    """Coefficients of the two raw tensors at t, for the cosine between them."""
    first, second = _weights(np.asarray(t), cosine)
    return float(first), float(second)


def _weights(t: NDArray[np.float64], cosine: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if abs(cosine) > LINEAR_BRANCH:
        return 1 - t, t
    theta = np.arccos(cosine)
    return np.sin((1 - t) * theta) / np.sin(theta), np.sin(t * theta) / np.sin(theta)


def slerp_sensitivity(t: float, cosine: float) -> NDArray[np.float64]:
    """(d c_0 / d cos, d c_1 / d cos), float64 [2]: what an error of the cosine costs in the coefficients."""
    step = 1e-6
    here, near = slerp_coefficients(t, cosine), slerp_coefficients(t, cosine - step)
    return np.asarray((np.array(here) - np.array(near)) / step)


class Slerp:
    """Between two sources, given by position (0 is the pivot)."""

    name = "slerp"

    def __init__(self, first: int = 0, second: int = 1) -> None:
        self.first, self.second = first, second

    def coefficients(self, t: float, moments: Moments) -> NDArray[np.float64]:
        """One coefficient per source, float64 [K+1]; they need not sum to one."""
        result = np.zeros(moments.parents + 1)
        cosine = moments.cosine(self.first, self.second)
        result[self.first], result[self.second] = slerp_coefficients(t, cosine)
        return result

    def _misfits(self, t: NDArray[np.float64], cosine: float, moments: Moments) -> NDArray[np.float64]:
        """Sum of squared residuals at each t."""
        sources = np.zeros((len(t), moments.parents + 1))
        sources[:, self.first], sources[:, self.second] = _weights(t, cosine)
        vectors = np.column_stack([np.ones(len(t)), -sources[:, 1:], 1 - sources.sum(axis=1)])
        return np.asarray(((vectors @ moments.gram) * vectors).sum(axis=1))

    def fit(self, moments: Moments, names: tuple[str, ...]) -> Fit | None:  # noqa: ARG002 - the protocol's
        """Estimate t by least squares over [-0.5, 1.5]. The names of the sources play no part."""
        if moments.parents + 1 <= max(self.first, self.second):
            return None
        cosine = moments.cosine(self.first, self.second)
        low, high = -0.5, 1.5
        for _ in range(6):  # to within 2e-9
            grid = np.linspace(low, high, 65)
            best = int(np.argmin(self._misfits(grid, cosine, moments)))
            low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 64)])
        t = (low + high) / 2
        notes = ("indistinguishable from linear: |cos| > 0.9995",) if abs(cosine) > LINEAR_BRANCH else ()
        coefficients = self.coefficients(t, moments)
        return Fit(
            self.name, {"t": t}, {}, coefficients, misfit(moments, coefficients),
            moments.rounding_energy / max(moments.count, 1), notes,
        )  # fmt: skip


def slerp_interval(
    values: NDArray[np.float32],
    unit: NDArray[np.float64],
    cosine: float,
    start: float,
    tolerance: float,
) -> tuple[float, float] | None:
    """Certified bounds of t: every element of `values` (suspect, a, b: float32 [3, n]) is reproduced within
    `tolerance` spacings `unit` [n]. None if no t does. Each element gives an interval; they are intersected.

    The coefficients are smooth in t, so the intervals come from the derivative, iterated to where it is exact. Where
    a and b cancel, the suspect's spacing is far below the arithmetic's own error: such elements are left out.
    """
    keep = np.abs(values[0]) >= np.abs(values[1:]).max(axis=0) / _CANCELLED
    suspect, a, b = values[:, keep] / unit[keep]
    t = start
    # Walk to the optimum on a part of the elements: the derivative is exact only there.
    for limit in (512, 4096, 4096, 4096):
        part = slice(None, None, max(1, len(suspect) // limit))
        slope, gap = _linearised(suspect[part], a[part], b[part], t, cosine)
        steep = np.abs(slope) >= _FLAT
        if not steep.any():
            return None
        rows = Rows(slope[steep, None], gap[steep], 0.0, np.zeros(int(steep.sum())))
        move = interval_fit(rows, np.zeros(1), tolerance)
        t += float(move[0])
        excess = np.maximum(np.abs(rows.X @ move - rows.Y) - tolerance, 0).mean()
        if not -1 < t < 2 or excess > (0.2 if limit == 512 else 0.02):
            return None
    for _ in range(2):
        slope, gap = _linearised(suspect, a, b, t, cosine)
        flat = np.abs(slope) < _FLAT
        if flat.all() or (np.abs(gap[flat]) > tolerance).any():
            return None
        s, g = slope[~flat], gap[~flat]
        middle, half = g / s, tolerance / np.abs(s)
        low, high = t + float((middle - half).max()), t + float((middle + half).min())
        if low > high + 1e-7:
            return None
        t = (low + high) / 2
    return low, high


def _linearised(
    suspect: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64], t: float, cosine: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Derivative of the prediction in t, and what is left of the suspect at t; all in spacings."""
    c0, c1 = slerp_coefficients(t, cosine)
    p0, p1 = slerp_coefficients(t + _STEP, cosine)
    return ((p0 - c0) / _STEP) * a + ((p1 - c1) / _STEP) * b, suspect - c0 * a - c1 * b
