"""Damped Newton for the interval fit, compiled: min_w sum max(0, |X w - Y| - epsilon) on a shrinking quadratic edge.

The edge of width mu replaces the corner of each term by v^2 / (2 mu) for 0 < v < mu; mu runs from a million spacings
(float32 weights, far starts) down to 0.003, each optimum the start of the next. Steps are halved until
Armijo's condition holds.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from reconstruct.statistics.small_systems import solve_small

__all__ = ["damped_newton"]

_EDGES = np.array([1e6, 1e4, 100.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003])
_STEPS = 12  # Newton steps per edge


_FAST = {"reassoc", "contract", "nnan", "nsz"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def _applied(columns, w, out, share, Y):  # type: ignore[no-untyped-def]
    """out = X w + share Y."""
    for i in range(len(out)):
        out[i] = share * Y[i]
    for j in range(len(w)):
        column, factor = columns[j], w[j]
        for i in range(len(out)):
            out[i] += column[i] * factor


@njit(cache=True, nogil=True, fastmath=_FAST)
def _loss(residual, direction, damping, epsilon, width):  # type: ignore[no-untyped-def]
    """The loss at residual - damping * direction."""
    total = 0.0
    for i in range(len(residual)):
        v = max(abs(residual[i] - damping * direction[i]) - epsilon, 0.0)
        edge = min(v, width)
        total += edge * (2 * v - edge)
    return total / (2 * width)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _derivatives(columns, residual, epsilon, width, slope, weight, gradient, hessian):  # type: ignore[no-untyped-def]
    """Fill gradient [K] and hessian [K, K]; returns the number of rows on the edge."""
    edge = 0.0
    for i in range(len(residual)):
        r = residual[i]
        v = max(abs(r) - epsilon, 0.0)
        steep = min(v / width, 1.0)
        slope[i] = steep if r > 0 else -steep
        weight[i] = 1.0 if (v > 0) & (v < width) else 0.0
        edge += weight[i]
    for j in range(len(gradient)):
        first, total = columns[j], 0.0
        for i in range(len(residual)):
            total += slope[i] * first[i]
        gradient[j] = total
        for k in range(j + 1):
            second, total = columns[k], 0.0
            for i in range(len(residual)):
                total += weight[i] * first[i] * second[i]
            hessian[j, k] = hessian[k, j] = total / width
    return edge


@njit(cache=True, nogil=True)
def _damping(residual, direction, descent, epsilon, width):  # type: ignore[no-untyped-def]
    """The largest of 1, 1/2, 1/4, ... that satisfies Armijo's condition; 0 if none above 1e-4 does."""
    now, damping = _loss(residual, direction, 0.0, epsilon, width), 1.0
    while damping > 1e-4:
        if _loss(residual, direction, damping, epsilon, width) <= now - 1e-4 * damping * descent:
            return damping
        damping /= 2
    return 0.0


@njit(cache=True, nogil=True)
def _largest(values):  # type: ignore[no-untyped-def]
    largest = 0.0
    for value in values:
        largest = max(largest, abs(value))
    return largest


@njit(cache=True, nogil=True)
def _energy(columns):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(columns.shape[0]):
        for i in range(columns.shape[1]):
            total += columns[j, i] * columns[j, i]
    return total


@njit(cache=True, nogil=True)
def damped_newton(columns, Y, epsilon, start):  # type: ignore[no-untyped-def]
    """columns float64 [K, n], Y float64 [n], epsilon in the same unit, start float64 [K] -> w float64 [K]."""
    size = len(start)
    w, gradient, hessian = start.copy(), np.zeros(size), np.zeros((size, size))
    slope, weight, direction = np.empty(len(Y)), np.empty(len(Y)), np.zeros(len(Y))
    residual = np.empty(len(Y))
    _applied(columns, w, residual, -1.0, Y)
    ridge = 1e-9 * max(1.0, _energy(columns) / max(len(Y), 1))
    farthest = _largest(residual)
    for e in range(len(_EDGES)):
        width = _EDGES[e]
        if e + 1 < len(_EDGES) and _EDGES[e + 1] > 2 * farthest:
            continue  # the edge is wider than anything it would smooth
        for _ in range(_STEPS):
            if _derivatives(columns, residual, epsilon, width, slope, weight, gradient, hessian) < size:
                break
            for j in range(size):
                hessian[j, j] += ridge
            step = solve_small(hessian, gradient)
            if not np.isfinite(step[0]):
                return w
            descent = 0.0
            for j in range(size):
                descent += gradient[j] * step[j]
            _applied(columns, step, direction, 0.0, direction)
            damping = _damping(residual, direction, descent, epsilon, width)
            if damping == 0.0:
                break
            for j in range(size):
                w[j] -= damping * step[j]
            _applied(columns, w, residual, -1.0, Y)
            if damping == 1.0 and _largest(step) < 1e-9:
                break
    return w
