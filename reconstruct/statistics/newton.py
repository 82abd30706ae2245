"""Damped Newton for the interval fit, compiled: min_w sum max(0, |X w - Y| - epsilon) on a shrinking quadratic edge.

The edge of width mu replaces the corner of each term by v^2 / (2 mu) for 0 < v < mu; mu runs from a million spacings
(float32 weights, far starts) down to 0.003, each optimum the start of the next. Steps are halved until
Armijo's condition holds.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["damped_newton"]

_EDGES = np.array([1e6, 1e4, 100.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003])
_STEPS = 12  # Newton steps per edge


@njit(cache=True, nogil=True)
def _loss(X, Y, epsilon, w, width):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(Y)):
        r = -Y[i]
        for j in range(len(w)):
            r += X[i, j] * w[j]
        v = abs(r) - epsilon
        if v >= width:
            total += v - width / 2
        elif v > 0:
            total += v * v / (2 * width)
    return total


@njit(cache=True, nogil=True)
def _derivatives(X, Y, epsilon, w, width, gradient, hessian):  # type: ignore[no-untyped-def]
    """Fill gradient [K] and hessian [K, K]; returns the number of rows on the edge."""
    size = len(w)
    gradient[:] = 0
    hessian[:] = 0
    edge = 0
    for i in range(len(Y)):
        r = -Y[i]
        for j in range(size):
            r += X[i, j] * w[j]
        v = abs(r) - epsilon
        if v <= 0:
            continue
        slope = (1.0 if r > 0 else -1.0) * min(v / width, 1.0)
        for j in range(size):
            gradient[j] += slope * X[i, j]
        if v < width:
            edge += 1
            for j in range(size):
                for k in range(size):
                    hessian[j, k] += X[i, j] * X[i, k] / width
    return edge


@njit(cache=True, nogil=True)
def damped_newton(X, Y, epsilon, start):  # type: ignore[no-untyped-def]
    """X float64 [n, K], Y float64 [n], epsilon in the same unit, start float64 [K] -> w float64 [K]."""
    size = len(start)
    w = start.copy()
    gradient, hessian = np.zeros(size), np.zeros((size, size))
    energy = 0.0
    for i in range(len(Y)):
        for j in range(size):
            energy += X[i, j] * X[i, j]
    ridge = 1e-9 * max(1.0, energy / max(len(Y), 1))
    for width in _EDGES:
        for _ in range(_STEPS):
            if _derivatives(X, Y, epsilon, w, width, gradient, hessian) < size:
                break
            for j in range(size):
                hessian[j, j] += ridge
            step = np.linalg.solve(hessian, gradient)
            descent = 0.0
            for j in range(size):
                descent += gradient[j] * step[j]
            now, damping = _loss(X, Y, epsilon, w, width), 1.0
            while damping > 1e-4 and _loss(X, Y, epsilon, w - damping * step, width) > now - 1e-4 * damping * descent:
                damping /= 2
            if damping <= 1e-4:
                break
            w = w - damping * step
            if damping == 1.0 and np.abs(step).max() < 1e-9:
                break
    return w
