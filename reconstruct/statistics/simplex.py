"""Dual simplex for few unknowns and many two-sided rows, compiled:  min c v,  |X v - Y| <= epsilon,  |v_j| <= bound.

It begins at the corner of the box that minimises c v and lets the most violated row replace one of the K that hold v
in place, so that c v only ever grows (Lemke 1954): every value on the way is a valid lower bound, and what it ends with
violates no row by more than `feasible`. One step costs one pass over the rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from reconstruct.statistics.small_systems import solve_small

__all__ = ["INFEASIBLE", "OPTIMAL", "STALLED", "dual_simplex"]

OPTIMAL, INFEASIBLE, STALLED = 0, 1, 2
_STEPS = 400


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nnan"})
def _worst(columns, Y, epsilon, v, excess):  # type: ignore[no-untyped-def]
    """Position of the most violated row; `excess` float64 [n] receives by how much each is."""
    for i in range(len(Y)):
        excess[i] = -Y[i]
    for j in range(len(v)):
        column, factor = columns[j], v[j]
        for i in range(len(Y)):
            excess[i] += column[i] * factor
    largest = -np.inf
    for i in range(len(Y)):
        excess[i] = abs(excess[i]) - epsilon[i]
        largest = max(largest, excess[i])
    for i in range(len(Y)):
        if excess[i] == largest:
            return i
    return 0


@njit(cache=True, nogil=True)
def _leaving(shares, multipliers):  # type: ignore[no-untyped-def]
    """Which of the rows that hold v gives way, by the ratio test; -1 if none can. Updates `multipliers`."""
    leaving, ratio = -1, np.inf
    for j in range(len(shares)):
        if shares[j] > 1e-12 and multipliers[j] < ratio * shares[j]:
            leaving, ratio = j, multipliers[j] / shares[j]
    if leaving >= 0:
        for j in range(len(shares)):
            multipliers[j] = max(multipliers[j] - ratio * shares[j], 0.0)
        multipliers[leaving] = ratio
    return leaving


@njit(cache=True, nogil=True)
def dual_simplex(columns, Y, epsilon, objective, bound, feasible):  # type: ignore[no-untyped-def]
    """columns float64 [K, n], Y and epsilon float64 [n], objective float64 [K] -> (state, value, v float64 [K]).

    `STALLED`: too many steps (degenerate corners); `value` is a lower bound then, as it is with `INFEASIBLE`.
    """
    size = len(objective)
    active, turned, entering = np.zeros((size, size)), np.zeros((size, size)), np.zeros(size)
    limits, multipliers = np.empty(size), np.empty(size)
    for j in range(size):
        limits[j], multipliers[j] = bound, abs(objective[j])
        active[j, j] = -1.0 if objective[j] >= 0 else 1.0
    excess = np.empty(len(Y))
    v = solve_small(active, limits)
    value = 0.0
    for _ in range(_STEPS):
        value = 0.0
        for j in range(size):
            value += objective[j] * v[j]
        row = _worst(columns, Y, epsilon, v, excess)
        if not excess[row] > feasible:
            return OPTIMAL, value, v
        side = -Y[row]
        for j in range(size):
            side += columns[j, row] * v[j]
        sign = 1.0 if side > 0 else -1.0
        for j in range(size):
            entering[j] = sign * columns[j, row]
            for k in range(size):
                turned[j, k] = active[k, j]
        leaving = _leaving(solve_small(turned, entering), multipliers)
        if leaving < 0:
            return INFEASIBLE, value, v
        for j in range(size):
            active[leaving, j] = entering[j]
        limits[leaving] = sign * Y[row] + epsilon[row]
        v = solve_small(active, limits)
    return STALLED, value, v
