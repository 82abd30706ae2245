"""Gradients as a person would have written them: a few simple numbers, drawn piecewise linearly over the layers.

Each layer's bounds are a strip that the line has to pass through. The fewest points that can do so are taken, and each
in turn is set to the simplest number that still leaves the others a way (linear programmes).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.recipe import Cell
from reconstruct.statistics.simple_numbers import decimals_between

__all__ = ["on_gradients", "simplest_gradient"]

_MOST_POINTS = 9
_SOLVER = 1e-7  # by which the programmes may miss a bound


def on_gradients(cells: Sequence[Cell], *, by_group: bool) -> dict[tuple[str, ...], tuple[float, ...]]:
    """Cell key -> its parameters on the gradient of its stack (and group), where there is one through all bounds."""
    families: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.layer is not None:
            stack = cell.key[0].rpartition(".")[0]
            families.setdefault((stack, cell.group if by_group else ""), []).append(cell)
    found: dict[tuple[str, ...], tuple[float, ...]] = {}
    depth = {stack: max(c.layer or 0 for (s, _), own in families.items() if s == stack for c in own)
             for stack, _ in families}  # fmt: skip
    for (stack, _), own in families.items():
        positions = np.array([c.layer or 0 for c in own]) / max(depth[stack], 1)
        bounds = zip(np.array([c.low for c in own]).T, np.array([c.high for c in own]).T, strict=True)
        lines = [simplest_gradient(positions, low, high) for low, high in bounds]
        values = [line for line in lines if line is not None]
        if len(values) == len(lines):
            found |= {c.key: tuple(row) for c, row in zip(own, np.array(values).T.tolist(), strict=True)}
    return found


def simplest_gradient(
    positions: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Values [n] at `positions` in [0, 1], within [low, high] everywhere, on a line through fewer than n simple
    numbers; None if there is no such line.
    """
    for length in range(2, min(len(positions) - 1, _MOST_POINTS) + 1):
        hats = np.maximum(1 - np.abs(positions[:, None] * (length - 1) - np.arange(length)), 0)
        points = _points(hats, low, high)
        if points is not None:
            values = hats @ points
            if (values >= low - 1e-9).all() and (values <= high + 1e-9).all():
                return np.asarray(values)
    return None


def _points(
    hats: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Simple numbers p with low <= hats @ p <= high, one after the other; None if there are none."""
    size = hats.shape[1]
    bounds: list[tuple[float, float]] = [(-1e3, 1e3)] * size
    from scipy.optimize import linprog  # takes a quarter of a second to import, and few merges have gradients

    for i in range(size):
        reach = []
        for sign in (1.0, -1.0):
            solution = linprog(
                sign * np.eye(size)[i], A_ub=np.r_[hats, -hats], b_ub=np.r_[high, -low] + _SOLVER, bounds=bounds,
                method="highs",
            )  # fmt: skip
            if solution.x is None:
                return None
            reach.append(float(solution.x[i]))
        simple = next(decimals_between(reach[0] - _SOLVER, reach[1] + _SOLVER, digits=4, limit=1), None)
        if simple is None:
            return None
        bounds[i] = (simple, simple)
    return np.array([point for point, _ in bounds])
