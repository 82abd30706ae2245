"""Does the untouched share hold at every phase of rounding? What tells a merge from a relation narrower than a spacing.

The phase of an element is how far the real-valued prediction lies from the boundary between two lattice numbers. A
weight that a merge left alone sits on the prediction's side of that boundary, however near it is. A smooth relation
(an average of checkpoints, a point of the same trajectory) falls on either side alike; a relation by whole steps
(training in 16 bits, the first steps of Adam) agrees where no rounding was needed and not elsewhere. So, by phase,

    D = share on the predicted side - share on the other side of the nearest boundary

is the untouched share for a merge, the same at every phase and still there at the boundary (the jump of a regression
discontinuity: Thistlethwaite and Campbell 1960), and is neither for the others.

Elements whose sources differ by the same numbers of spacings are one witness, not many: standard errors are those of
clusters (Liang and Zeger 1986).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PHASES", "PhaseTest", "phase_test"]

#: Bins of the distance from the boundary, 0 to half a spacing.
PHASES = 10
_ELEMENTS, _CLUSTERS = 100, 20  # a bin needs, to be judged
_BINS = 5  # judged bins that uniformity needs


@dataclass(frozen=True)
class PhaseTest:
    """`difference` float64 [PHASES]: D by distance from the boundary, NaN where too few elements are; `errors`: their
    standard errors. `boundary_z`: D nearest the boundary in its errors. `overall_z`: D of all elements likewise.
    `uniformity`: the lowest bin's upper 95 % limit over the median bin; at least about 1 if all are equal. `clusters`:
    number of independent witnesses.
    """

    difference: NDArray[np.float64]
    errors: NDArray[np.float64]
    boundary_z: float
    overall_z: float
    uniformity: float
    clusters: int


def phase_test(distance: NDArray[np.float64], side: NDArray[np.int8], cluster: NDArray[np.int64]) -> PhaseTest:
    """`distance` [n] from the boundary in spacings, 0 to 0.5; `side` [n]: 1 on the predicted lattice number, -1 on the
    one beyond the nearest boundary, 0 elsewhere; `cluster` [n]: equal where the sources differ alike.
    """
    bins = np.minimum((distance * 2 * PHASES).astype(np.intp), PHASES - 1)
    difference, errors = np.full(PHASES, np.nan), np.full(PHASES, np.nan)
    for k in range(PHASES):
        chosen = bins == k
        mean, error, count = _clustered(side[chosen], cluster[chosen])
        if chosen.sum() >= _ELEMENTS and count >= _CLUSTERS:
            difference[k], errors[k] = mean, error
    mean, error, count = _clustered(side, cluster)
    judged = np.isfinite(difference)
    uniformity = 0.0
    if judged.sum() >= _BINS:
        middle = float(np.median(difference[judged]))
        uniformity = float((difference + 2 * errors)[judged].min()) / middle if middle > 0 else 0.0
    boundary = difference[0] / errors[0] if judged[0] and errors[0] > 0 else 0.0
    overall = mean / error if error > 0 else 0.0
    return PhaseTest(difference, errors, float(boundary), overall, uniformity, count)


def _clustered(side: NDArray[np.int8], cluster: NDArray[np.int64]) -> tuple[float, float, int]:
    """Mean, its cluster-robust standard error, and the number of clusters."""
    if not len(side):
        return 0.0, 0.0, 0
    mean = float(side.mean())
    _, index = np.unique(cluster, return_inverse=True)
    sums = np.bincount(index, side - mean)
    # A lone cluster, or clusters without any scatter, cannot tell their error: half an element is left to chance.
    error = np.sqrt(float((sums**2).sum()) + 0.25) / len(side)
    return mean, float(error), len(sums)
