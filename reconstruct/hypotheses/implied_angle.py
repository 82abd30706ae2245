"""The angle that a slerp must have used, read off its result: for tensors of which only some rows were read.

A slerp's coefficients follow from the angle theta of the whole tensors, which sampled rows only estimate: an error of a
per cent in theta moves the result by tenths of a spacing. But every element pins the coefficients down: in

    s = sigma a + w (b - a),   sigma = cos((1/2 - t) theta) / cos(theta / 2),   w = sin(t theta) / sin(theta)

sigma and w are certified first, which bounds t; for the simplest t inside, each element then bounds the cosine. Of the
cosines that reproduce all of them the one nearest to the rows' own is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import Measurement
from reconstruct.hypotheses.slerp import LINEAR_BRANCH, slerp_coefficients
from reconstruct.parallel import parallel
from reconstruct.statistics.rounding import FINE_MANTISSA, Rows, certify, interval_fit
from reconstruct.statistics.simple_numbers import simplest

__all__ = ["Angle", "implied_angle", "with_implied_angles"]

_ROWS = 8192
_FIT_ROWS = 2048
_CLOSE = 0.9999  # cosine of the rows above which that of the tensors lies in the linear branch for certain
_FACTOR = 4.0  # by which 1 - cosine of the rows may differ from that of the tensor
_INSIDE = 0.01  # t nearer to an end says nothing of the angle
_CANCELLED = 16.0  # times smaller than its sources: cancelled
_HALF = 0.5001  # spacings: half of one, and what float32 loses on the way
_CANDIDATES = 6
_MARGIN = 0.1  # of the interval: at its ends elements lie on the boundary of their rounding


@dataclass(frozen=True)
class Angle:
    """`cosine` of the whole tensors, None where it stays open; `fits`: whether a slerp reproduces what was read."""

    cosine: float | None
    fits: bool


def with_implied_angles(
    measurements: Sequence[Measurement], families: Collection[str], threads: int
) -> tuple[tuple[Measurement, ...], int]:
    """Sampled tensors with the cosines that their bits imply in place of those of the rows; and in how many a
    slerp fits at an angle that stays open.
    """
    if "slerp" not in families:
        return tuple(measurements), 0
    found = parallel(_with_angles, measurements, threads)
    return tuple(m for m, _ in found), sum(is_open for _, is_open in found)


def _with_angles(m: Measurement) -> tuple[Measurement, bool]:
    if not m.votes or m.lattice.lattice.mantissa > FINE_MANTISSA:
        return m, False
    angles, is_open = dict(m.moments.angles), False
    for first, second in combinations(range(len(m.lattices) - 1), 2):
        estimate = m.moments.cosine(first, second)
        if 0 < estimate <= _CLOSE:
            chosen = m.values[[0, first + 1, second + 1]]
            angle = implied_angle(chosen, m.lattice.lattice.spacing(chosen[0]), estimate)
            if angle.cosine is not None:
                angles[first, second] = angle.cosine
            is_open |= angle.fits and angle.cosine is None
    return replace(m, moments=replace(m.moments, angles=angles)) if angles else m, is_open


def implied_angle(values: NDArray[np.float32], unit: NDArray[np.float64], estimate: float) -> Angle:
    """Angle of the whole tensors a and b from `values` (suspect, a, b: float32 [3, n]) with spacings `unit` [n].

    `estimate`: cosine of the values themselves, positive. In the linear branch the result lies just beyond its edge.
    """
    keep = (values[0] != 0) & (np.abs(values[0]) >= np.abs(values[1:]).max(axis=0) / _CANCELLED)
    s, a, b = values[:, keep].astype(np.float64) / unit[keep]
    bounds = _bounds_of_t(s, a, b, estimate)
    if bounds is None:
        return Angle(None, fits=False)
    low, high = bounds
    if low <= _INSIDE or high >= 1 - _INSIDE:
        return Angle(None, fits=True)
    for t in [*simplest(low, high, float)[:_CANDIDATES], (low + high) / 2]:
        cosine = _cosine_at(float(t), s, a, b, estimate)
        if cosine is not None:
            return Angle(cosine, fits=True)
    return Angle(None, fits=True)


def _bounds_of_t(
    s: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64], estimate: float
) -> tuple[float, float] | None:
    """From certified bounds of w, over all angles that are near enough; in the linear branch w is t itself. None if no
    sum of a and b is within half a spacing everywhere.
    """
    rows = Rows(np.column_stack([b - a, a]), s - a, 0.0, np.zeros(len(s))).thinned(_ROWS)
    if len(rows) < 50:
        return None
    few = rows.thinned(_FIT_ROWS)
    start = interval_fit(few, np.asarray(np.linalg.lstsq(few.X, few.Y, rcond=None)[0], np.float64))
    box = certify(rows, 0, interval_fit(rows, start)) if few.violation(start, 0) <= 0.02 else None
    if box is None:
        return None
    theta = np.arccos(np.clip(1 - (1 - estimate) * np.array([1 / _FACTOR, 1, _FACTOR]), -1, 1))
    found = np.arcsin(np.clip(np.outer(np.sin(theta), [box.low[0], box.high[0]]), -1, 1)) / theta[:, None]
    return float(min(found.min(), box.low[0])), float(max(found.max(), box.high[0]))


def _cosine_at(
    t: float, s: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64], estimate: float
) -> float | None:
    """The cosine nearest to `estimate` at which slerp by t is within half a spacing of every element."""
    nearest = 1 - LINEAR_BRANCH
    linear = bool((np.abs(s - (1 - t) * a - t * b) <= _HALF).all())
    beyond = float(np.nextafter(LINEAR_BRANCH, 1))
    gap = max(1 - estimate, 1.01 * nearest)  # 1 - cosine: the coefficients are nearly linear in it
    low, high = 0.0, np.inf
    for _ in range(3):
        here, there = (np.array(slerp_coefficients(t, 1 - g)) for g in (gap, 1.001 * gap))
        slope = ((there - here) / (0.001 * gap)) @ np.stack([a, b])
        rest = s - here @ np.stack([a, b])
        steep = np.abs(slope) > 1e-9
        if (np.abs(rest[~steep]) > _HALF).any() or not steep.any():
            return None
        middle, half = rest[steep] / slope[steep], _HALF / np.abs(slope[steep])
        low, high = gap + float((middle - half).max()), gap + float((middle + half).min())
        low, high = max(low, nearest), min(high, 1.0)
        if low > high:
            return beyond if linear and 1 - estimate <= _FACTOR * nearest else None
        inside = _MARGIN * (high - low)
        gap = max(float(np.clip(1 - estimate, low + inside, high - inside)), 1.000001 * nearest)
    if 1 - estimate < nearest and linear:
        return max(estimate, beyond)
    return 1 - gap if 1 / _FACTOR <= gap / (1 - estimate) <= _FACTOR else None
