"""Was the suspect trained on after the merge, or is a source only a version of the one that was merged?

A source that was trained on lightly keeps many weights, and a merge with it explains as many of the suspect's. Both
leave an untouched share; but not the same elements. Training of the suspect knows nothing of where a prediction lay
between two lattice numbers before it was rounded. If the source was changed instead, by e of its own spacings, the
prediction is off by w e spacings, and whether that carries it over a boundary depends on where it lay. So the sides of
elements (see `statistics.phase`) follow, within weights of one size in one tensor, what a change of source j by one
spacing would make of them, with a slope that is the share of such changes; for training of the suspect that slope is 0.

A slope of 0 clears nobody: a version that differs in few weights, or one that was merged with a weight near one half
(all phases are then 0 or one half), leaves too little to see.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import Measurement
from reconstruct.replay.phases import cluster_of, decisive_elements, thinning

__all__ = ["changed_sources"]

_SIZES = 4096  # more than there are exponents of numbers


def changed_sources(
    measurements: Sequence[Measurement], coefficients: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of every source (the pivot first) the share of decisive elements that it seems to have been changed in, by one
    spacing, over the untouched share; and its cluster-robust standard error, infinite where nothing can be seen:
    float64 [K+1] each. `coefficients` [K+1] of every tensor's sources; tensors on lattices with gaps take no part.
    """
    usable = [(m, c) for m, c in zip(measurements, coefficients, strict=True) if m.smooth_lattice]
    count = len(coefficients[0]) if len(coefficients) else 0
    nothing = np.zeros(count), np.full(count, np.inf)
    step = thinning([m for m, _ in usable])
    parts = [_tensor(m, c, step, number) for number, (m, c) in enumerate(usable)]
    if not parts:
        return nothing
    side, cluster, stratum = (np.concatenate([part[k] for part in parts]) for k in range(3))
    expected = np.concatenate([part[3] for part in parts], axis=1)
    if not len(side) or side.mean() <= 0:
        return nothing
    group = np.unique(stratum, return_inverse=True)[1]
    witness = np.unique(cluster, return_inverse=True)[1]
    fits = [_slope(_within(row, group), _within(side, group), witness) for row in expected]
    slopes, errors = np.array(fits).T / float(side.mean())
    return slopes, errors


def _tensor(
    m: Measurement, coefficients: NDArray[np.float64], step: int, number: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Of decisive elements: side, cluster, stratum [n], and the mean side after a change of each source [K+1, n]."""
    values, predicted, unit, phase = decisive_elements(m, coefficients, step)
    outward = np.where(phase < 0, -1, 1)
    side = _side(np.rint((values[0] - predicted) / unit) * outward)
    expected = []
    for j, weight in enumerate(coefficients):
        shift = weight * m.lattices[1 + j].lattice.spacing(values[1 + j]) / unit
        moved = [_side(np.rint(phase + sign * shift) * outward) for sign in (-1, 1)]
        expected.append((moved[0] + moved[1]) / 2)
    stratum = _SIZES * number + np.frexp(unit)[1].astype(np.int64)
    return side, cluster_of(values, unit), stratum, np.array(expected)


def _side(moved: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 on the predicted lattice number, -1 on the one beyond the nearest boundary, 0 elsewhere."""
    return np.where(moved == 0, 1.0, np.where(moved == 1, -1.0, 0.0))


def _within(values: NDArray[np.float64], group: NDArray[np.intp]) -> NDArray[np.float64]:
    """Without the mean of its group."""
    centred: NDArray[np.float64] = values - (np.bincount(group, values) / np.bincount(group))[group]
    return centred


def _slope(x: NDArray[np.float64], y: NDArray[np.float64], witness: NDArray[np.intp]) -> tuple[float, float]:
    spread = float(x @ x)
    if spread <= 0:
        return 0.0, float("inf")
    slope = float(x @ y) / spread
    sums = np.bincount(witness, x * (y - slope * x))
    return slope, float(np.sqrt((sums**2).sum())) / spread
