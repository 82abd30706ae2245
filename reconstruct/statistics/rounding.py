"""Rounding as a witness: the interval fit and its certificate.

Under the hypothesis each element states  |sum_j w_j X_ij - Y_i| <= epsilon  with X = delta / u, Y = y / u and u the
suspect's spacing. The interval fit minimises the total violation; where none is left, linear programmes bound each
coefficient from both sides with no statistics at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.lattice import Lattice
from reconstruct.statistics.newton import damped_newton
from reconstruct.statistics.simplex import INFEASIBLE, dual_simplex

__all__ = [
    "BFLOAT16_MANTISSA",
    "FINE_MANTISSA",
    "TOLERANCES",
    "Box",
    "Rows",
    "Tolerance",
    "certify",
    "interval_fit",
    "rows_of",
]


@dataclass(frozen=True)
class Tolerance:
    """How far an element may lie from b + sum w delta: `constant` spacings, plus `relative` times what a program that
    rounds every product and sum to the storage dtype may lose (`Rows.reach`).
    """

    name: str
    constant: float
    relative: float


#: The first that is feasible is reported: it says how coarse the arithmetic must have been.
TOLERANCES = (
    Tolerance("computed in float32 or finer, rounded once", 0.502, 0.0),
    Tolerance("weighted deltas rounded in the working dtype", 0.502, 1.0),
    Tolerance("weighted models rounded in the working dtype", 2.0, 1.0),
)
#: Mantissa bits of the coarsest format that merges are computed or stored in.
BFLOAT16_MANTISSA = 7
#: Lattices with more mantissa bits are as fine as the arithmetic itself.
FINE_MANTISSA = 16


@dataclass(frozen=True)
class Rows:
    """Constraints of n informative elements in spacings: X float64 [n, K], Y float64 [n]; `slack`: what the storage
    itself leaves open; `reach` float64 [n]: errors of products and sums of the deltas in the working dtype.
    """

    X: NDArray[np.float64]
    Y: NDArray[np.float64]
    slack: float
    reach: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.Y)

    def thinned(self, limit: int) -> Rows:
        """At most about `limit` rows, evenly spread."""
        step = max(1, len(self) // limit)
        return Rows(self.X[::step], self.Y[::step], self.slack, self.reach[::step])

    def epsilon(self, tolerance: int) -> NDArray[np.float64]:
        """Permitted distance of every row under TOLERANCES[tolerance], float64 [n]."""
        chosen = TOLERANCES[tolerance]
        return chosen.constant + self.slack + chosen.relative * self.reach

    def violation(self, w: NDArray[np.float64], tolerance: int) -> float:
        """Mean excess over the permitted distance, in spacings."""
        return float(np.maximum(np.abs(self.X @ w - self.Y) - self.epsilon(tolerance), 0).mean()) if len(self) else 0.0


def rows_of(values: NDArray[np.float32], lattice: Lattice) -> Rows:
    """Constraints from sampled elements [models, n]: suspect, pivot, further sources.

    On lattices as fine as the arithmetic itself (float32 storage) the order of operations moves the last bits: the
    unit is then the spacing of the largest number involved, with two spacings of slack.
    """
    suspect, pivot = values[0].astype(np.float64), values[1].astype(np.float64)
    fine = lattice.mantissa > FINE_MANTISSA
    unit = lattice.spacing(np.abs(values).max(axis=0) if fine else values[0])
    X = np.ascontiguousarray(((values[2:].astype(np.float64) - pivot) / unit).T)
    # Each product is off by half a spacing of itself, so is their sum: 2^-(m+1) |w delta| twice, for |w| up to 1.
    reach = np.zeros(len(suspect)) if fine else 2.0**-lattice.mantissa * np.abs(X).sum(axis=1)
    return Rows(X, (suspect - pivot) / unit, 2.0 if fine else 0.0, reach)


def interval_fit(rows: Rows, start: NDArray[np.float64], epsilon: float = 0.5) -> NDArray[np.float64]:
    """min_w sum max(0, |X w - Y| - epsilon), float64 [K]: tolerates outliers, needs no good starting point.

    Where the deltas are exactly collinear it stays as near to `start` as it can.
    """
    solution: NDArray[np.float64] = damped_newton(
        np.ascontiguousarray(rows.X.T),
        np.ascontiguousarray(rows.Y),
        epsilon + rows.slack,
        np.asarray(start, np.float64),
    )
    return solution


@dataclass(frozen=True)
class Box:
    """Certified bounds: each coefficient lies in [low_j, high_j], the sum of all in [low_sum, high_sum], if the merge
    was computed with an error that TOLERANCES[`tolerance`] permits. `margin`: the solver's own tolerance.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    low_sum: float
    high_sum: float
    tolerance: int
    margin: float = 1e-9

    def intersect(self, other: Box) -> Box:
        """Bounds that hold if both do; may be empty."""
        return Box(
            np.maximum(self.low, other.low),
            np.minimum(self.high, other.high),
            max(self.low_sum, other.low_sum),
            min(self.high_sum, other.high_sum),
            max(self.tolerance, other.tolerance),
            max(self.margin, other.margin),
        )

    @property
    def empty(self) -> bool:
        """Whether no coefficients satisfy the bounds by more than the solver's own tolerance."""
        return bool((self.low > self.high + self.margin).any() or self.low_sum > self.high_sum + self.margin)

    @property
    def middle(self) -> NDArray[np.float64]:
        """The centre, float64 [K]."""
        return (self.low + self.high) / 2


def certify(rows: Rows, tolerance: int, start: NDArray[np.float64]) -> Box | None:
    """Bounds of each coefficient under |X w - Y| <= epsilon for every row, or None if no w satisfies them all.

    The programmes are posed in the distance from `start`, in units of what moves the largest row by one spacing:
    float32 deltas are millions of spacings, and a solver's tolerance in raw coefficients would be as wide as the
    bounds. Every value on the way to an optimum is a valid bound, so one that is not reached only widens the result.
    """
    size = rows.X.shape[1]
    if not len(rows):
        return None
    reach = np.abs(rows.X).max(axis=0)
    scale = np.maximum(reach, 1e-9)
    columns, Y = np.ascontiguousarray((rows.X / scale).T), rows.Y - rows.X @ start
    epsilon = rows.epsilon(tolerance)
    bounds = []
    for direction in [*np.eye(size), np.ones(size)]:
        for sign in (1.0, -1.0):
            step = sign * direction / scale
            length = float(np.abs(step).max())
            state, value, _ = dual_simplex(columns, Y, epsilon, step / length, _FARTHEST, _FEASIBLE / 10)
            if state == INFEASIBLE:
                return None
            bounds.append(sign * value * length + float(direction @ start))
    low, high = np.array(bounds[0::2]), np.array(bounds[1::2])
    # A source that moves in none of the rows is not bounded at all: it must not widen what is known of the others.
    margin = float((_FEASIBLE / scale)[reach > 0].max(initial=0.0))
    return Box(low[:-1], high[:-1], float(low[-1]), float(high[-1]), tolerance, margin)


_FEASIBLE = 1e-6  # spacings by which a row may miss its bound
_FARTHEST = 1e6  # spacings that the largest row may move; a bound found there says nothing
