"""The untouched share: how many elements sit exactly where the merge left them, beyond what smoothness explains.

Of the differences (suspect - prediction) in spacings, a smooth relation between models (earlier checkpoint, sibling,
shared data) has a histogram whose count at 0 follows from its neighbours: ln N is extrapolated from +-1 and +-2,
ln N(0) = (4 ln N(1) - ln N(2)) / 3. A merge has a spike above it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA

__all__ = ["DECISIVE", "Spike", "decisive_spike", "spike", "strata_spikes"]

#: Index of the first stratum whose elements are decisive: predictions at least 4 spacings from every source.
DECISIVE = STRATA.index(4.0)
_ZERO = MAXIMUM_STEPS
#: Alternation of ln N that curvature alone may cause; a lattice with gaps shows ten times as much.
_TOLERATED_RIPPLE = 0.1


@dataclass(frozen=True)
class Spike:
    """`count` novel elements in the stratum, `reproduced` of them exactly; `smooth` is the count at 0 that the
    neighbours imply; `ripple` tells a histogram with gaps or alternation, which must not testify.
    """

    low: float
    high: float
    count: int
    reproduced: int
    smooth: float
    ripple: float
    z: float

    @property
    def ratio(self) -> float:
        """Spike over smooth expectation; 1 means no spike."""
        return self.reproduced / self.smooth if self.smooth > 0 else float("nan")

    @property
    def untouched(self) -> float:
        """Estimated share of elements exactly as the merge left them, at least 0."""
        return max(self.reproduced - self.smooth, 0.0) / self.count if self.count else 0.0

    @property
    def hit_rate(self) -> float:
        """Share reproduced."""
        return self.reproduced / self.count if self.count else 0.0


def spike(steps: NDArray[np.int64], low: float = 0.0, high: float = float("inf")) -> Spike:
    """Histogram of differences, int64 [41] for -20 ... 20 spacings -> Spike.

    The variance of z includes that of the extrapolation. An alternation between even and odd differences beyond
    noise (numbers on a lattice with gaps) widens it further.
    """
    centre = int(steps[_ZERO])
    near = steps[_ZERO - 7 : _ZERO + 8].astype(np.float64)
    folded = (near[7:] + near[7::-1]) / 2  # mean counts at |difference| = 0 ... 7
    one, two = max(folded[1], 0.5), max(folded[2], 0.5)
    smooth = float(np.exp((4 * np.log(one) - np.log(two)) / 3))
    relative = (16 / 9) / (2 * one) + (1 / 9) / (2 * two)
    ripple = _ripple(folded)
    variance = centre + smooth**2 * (relative + ripple**2)
    total = int(steps.sum())
    z = float((centre - smooth) / np.sqrt(max(variance, 1.0))) if total else 0.0
    return Spike(low, high, total, centre, smooth, ripple, z)


def _ripple(folded: NDArray[np.float64]) -> float:
    """Alternation of ln N(k) about its neighbours' mean, k = 2 ... 5, free of any smooth trend (a third difference);
    0 where counts are too few to tell.
    """
    # A count far from the mean of its neighbours is a gap in the lattice, whatever the rest looks like.
    expected = np.sqrt(folded[1:6] * folded[3:8])
    crowded = expected >= 100
    if (crowded & ((folded[2:7] < 0.3 * expected) | (folded[2:7] > 3 * expected))).any():
        return 1.0
    if folded.min() < 20:
        return 0.0
    log = np.log(folded)
    deviation = log[2:6] - (log[1:5] + log[3:7]) / 2
    alternating = float(deviation @ np.array([1, -3, 3, -1])) / 8
    noise = float(np.sqrt((20 / 64) * (1.5 / (2 * folded[2:6])).mean()))
    return max(abs(alternating) - max(3 * noise, _TOLERATED_RIPPLE), 0.0)


def strata_spikes(steps: NDArray[np.int64]) -> list[Spike]:
    """One Spike per stratum of distance from the nearest source; `steps` is int64 [7, 41]."""
    return _spikes(steps, 0)


def _spikes(steps: NDArray[np.int64], first: int) -> list[Spike]:
    """Of the strata from `first` on."""
    bounds = [*STRATA, float("inf")]
    return [spike(steps[i], bounds[i], bounds[i + 1]) for i in range(first, len(STRATA))]


def decisive_spike(steps: NDArray[np.int64]) -> Spike:
    """All decisive strata together: counts and expectations add, so that strata of other width do not mix."""
    parts = _spikes(steps, DECISIVE)
    smooth = sum(p.smooth for p in parts if p.count)
    reproduced = sum(p.reproduced for p in parts)
    excess = reproduced - smooth
    variance = sum(((p.reproduced - p.smooth) / p.z) ** 2 if p.z else p.reproduced + p.smooth for p in parts if p.count)
    z = excess / np.sqrt(max(variance, 1.0)) if excess else 0.0
    ripple = max((p.ripple for p in parts), default=0.0)
    return Spike(STRATA[DECISIVE], float("inf"), sum(p.count for p in parts), reproduced, smooth, ripple, float(z))
