"""Do elements still sit exactly where one source left them? The spike at a single model, not at a mixture.

Only elements count in which that source stands at least 4 spacings from every other: elsewhere agreement is free.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from reconstruct.evidence import Measurement
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA
from reconstruct.statistics.mixture import DECISIVE, Spike, spike

__all__ = ["lineage"]


def lineage(measurements: Sequence[Measurement], source: int) -> Spike:
    """Histogram of suspect minus source, over samples of these tensors -> Spike at the source."""
    steps = np.zeros(2 * MAXIMUM_STEPS + 1, np.int64)
    for m in measurements:
        unit = m.lattice.lattice.spacing(m.values[1 + source])
        _count(m.values, 1 + source, unit, STRATA[DECISIVE], steps)
    return spike(steps, STRATA[DECISIVE])


@njit(cache=True, nogil=True)
def _count(values, own, unit, distance, steps):  # type: ignore[no-untyped-def]
    """Add to `steps` the elements of `values` [models, n] in which model `own` stands apart from other sources."""
    middle = len(steps) // 2
    for i in range(values.shape[1]):
        least = np.inf
        for j in range(1, values.shape[0]):
            if j != own:
                least = min(least, abs(np.float64(values[own, i]) - np.float64(values[j, i])))
        if least >= distance * unit[i]:
            step = np.rint((np.float64(values[0, i]) - np.float64(values[own, i])) / unit[i])
            steps[int(min(max(step, -middle), middle)) + middle] += 1
