"""What a merge family has to answer. A family maps its parameters to one coefficient per source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reconstruct.statistics.moments import Moments

__all__ = ["Fit", "Hypothesis", "misfit"]


@dataclass(frozen=True)
class Fit:
    """A family fitted to moments. `coefficients` float64 [K+1], one a source, pivot first; `residual` is the mean
    square left; `floor` the mean square that rounding alone leaves; `notes` say what limits the fit.
    """

    hypothesis: str
    parameters: dict[str, float]
    standard_errors: dict[str, float]
    coefficients: NDArray[np.float64]
    residual: float
    floor: float
    notes: tuple[str, ...] = ()


class Hypothesis(Protocol):
    """A merge family."""

    name: str

    def fit(self, moments: Moments, names: tuple[str, ...]) -> Fit | None:
        """Estimate the parameters from moments alone, or None where the family does not apply."""
        ...


def misfit(moments: Moments, coefficients: NDArray[np.float64]) -> float:
    """Mean squared residual of s - sum_j c_j x_j, from moments; coefficients [K+1], pivot first, any sum."""
    vector = np.concatenate([[1.0], -coefficients[1:], [1.0 - coefficients.sum()]])
    return max(float(vector @ moments.gram @ vector), 0.0) / max(moments.count, 1)
