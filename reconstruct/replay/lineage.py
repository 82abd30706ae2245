"""Do elements still sit exactly where one source left them? The spike at a single model, not at a mixture.

Only elements count in which that source stands at least 4 spacings from every other: elsewhere agreement is free.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reconstruct.evidence import Measurement
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA
from reconstruct.statistics.mixture import DECISIVE, Spike, spike

__all__ = ["lineage"]


def lineage(measurements: Sequence[Measurement], source: int) -> Spike:
    """Histogram of suspect minus source, over samples of these tensors -> Spike at the source."""
    steps = np.zeros(2 * MAXIMUM_STEPS + 1, np.int64)
    for m in measurements:
        values = m.values.astype(np.float64)
        own, others = values[1 + source], np.delete(values[1:], source, axis=0)
        unit = m.lattice.lattice.spacing(own)
        far = (np.abs(own - others) >= STRATA[DECISIVE] * unit).all(axis=0) if len(others) else np.ones(len(own), bool)
        distance = np.rint((values[0] - own) / unit)[far]
        clipped = np.clip(distance, -MAXIMUM_STEPS, MAXIMUM_STEPS).astype(np.int64) + MAXIMUM_STEPS
        steps += np.bincount(clipped, minlength=len(steps))
    return spike(steps, STRATA[DECISIVE])
