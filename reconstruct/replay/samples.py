"""Replay on the samples kept of each tensor: what searches and orientation run on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import Measurement
from reconstruct.fitting import rows_for
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import ReplayResult, View
from reconstruct.kernels.select import Kernels

__all__ = ["DELTA", "decoy_values", "replay_values"]

#: The neutral arithmetic of searches: base plus weighted deltas in float32.
DELTA = Formula("delta", "float32")


def replay_values(
    values: NDArray[np.float32],
    lattice: Lattice,
    kernels: Kernels,
    coefficients: NDArray[np.float64],
    formula: Formula = DELTA,
    divisors: NDArray[np.float64] | None = None,
    order: Sequence[int] | None = None,
) -> ReplayResult:
    """Replay sampled values [models, n]: target, pivot, further sources. `order` permutes the sources."""
    chosen = [0, *(1 + j for j in order)] if order is not None else range(len(values))
    views = [View(np.ascontiguousarray(values[i]), "F32") for i in chosen]
    if divisors is None:
        divisors = np.ones(len(coefficients))
    return kernels.replay(views, coefficients, divisors, formula, lattice)


def decoy_values(measurement: Measurement, seed: int) -> NDArray[np.float32]:
    """Sampled values with every delta moved, in spacings, to another element: same sizes, wrong places."""
    values = measurement.values
    rows = rows_for(measurement)
    order = np.random.default_rng(seed).permutation(values.shape[1])
    unit = measurement.lattice.lattice.spacing(values[0])
    moved = (values[1].astype(np.float64) + unit * rows.X[order].T).astype(np.float32)
    return np.concatenate([values[:2], moved])
