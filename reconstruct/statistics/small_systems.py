"""Linear systems of a handful of unknowns, inside compiled loops: elimination with partial pivoting.

numba's own `linalg.solve` takes seconds to compile, and calls LAPACK for two unknowns.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["solve_small"]


@njit(cache=True, nogil=True)
def _pivot(a, column):  # type: ignore[no-untyped-def]
    best = column
    for i in range(column + 1, a.shape[0]):
        if abs(a[i, column]) > abs(a[best, column]):
            best = i
    return best


@njit(cache=True, nogil=True)
def solve_small(matrix, right):  # type: ignore[no-untyped-def]
    """x float64 [n] with matrix x = right; float64 [n, n] and [n], left as they are. NaN if the matrix is singular."""
    size = len(right)
    a, x = np.empty((size, size + 1)), np.empty(size)
    for i in range(size):
        for j in range(size):
            a[i, j] = matrix[i, j]
        a[i, size] = right[i]
    for column in range(size):
        best = _pivot(a, column)
        if a[best, column] == 0:
            for i in range(size):
                x[i] = np.nan
            return x
        for j in range(column, size + 1):
            a[column, j], a[best, j] = a[best, j], a[column, j]
        for i in range(column + 1, size):
            factor = a[i, column] / a[column, column]
            for j in range(column, size + 1):
                a[i, j] -= factor * a[column, j]
    for i in range(size - 1, -1, -1):
        total = a[i, size]
        for j in range(i + 1, size):
            total -= a[i, j] * x[j]
        x[i] = total / a[i, i]
    return x
