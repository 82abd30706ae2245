"""Phases of rounding over a model's sampled elements, with each tensor's own coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import Measurement
from reconstruct.kernels.results import STRATA
from reconstruct.statistics.mixture import DECISIVE
from reconstruct.statistics.phase import PhaseTest, phase_test

__all__ = ["cluster_of", "decisive_elements", "model_phases", "rounding_phase", "thinning"]

_MAXIMUM_ELEMENTS = 2_000_000
_FARTHEST = 2.0**40  # spacings; beyond, the steps of a delta are no integers that float64 tells apart


def model_phases(measurements: Sequence[Measurement], coefficients: Sequence[NDArray[np.float64]]) -> PhaseTest:
    """`coefficients` [K+1] of every tensor's sources; tensors on lattices with gaps take no part."""
    usable = [(m, c) for m, c in zip(measurements, coefficients, strict=True) if m.smooth_lattice]
    step = thinning([m for m, _ in usable])
    parts = [_tensor_phases(m, c, step) for m, c in usable]
    if not parts:
        return phase_test(np.empty(0), np.empty(0, np.int8), np.empty(0, np.int64))
    distance, side, cluster = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return phase_test(distance, side, cluster)


def rounding_phase(measurements: Sequence[Measurement], coefficients: Sequence[NDArray[np.float64]]) -> float:
    """Root mean square of prediction minus lattice number over novel elements, over that of a uniform phase.

    About 1 if rounding came last; 0 if the predictions were lattice numbers to begin with, as they are where the
    "sources" were made from the suspect and stored more finely. 1 where no element is novel.
    """
    step, total, count = thinning(measurements), 0.0, 0
    for m, chosen in zip(measurements, coefficients, strict=True):
        values = m.values[:, ::step].astype(np.float64)
        lattice = m.lattice.lattice
        raw = chosen @ values[1:]
        predicted = lattice.round(raw).astype(np.float64)
        novel = (predicted != lattice.round(values[1:])).all(axis=0)
        total += float((((raw - predicted) / lattice.spacing(predicted))[novel] ** 2).sum())
        count += int(novel.sum())
    return float(np.sqrt(12 * total / count)) if count else 1.0


def thinning(measurements: Sequence[Measurement]) -> int:
    """Every so many-th sampled element, so that there are at most two million."""
    total = sum(int(m.values.shape[1]) for m in measurements)
    return max(1, -(-total // _MAXIMUM_ELEMENTS))


def _tensor_phases(
    m: Measurement, coefficients: NDArray[np.float64], step: int
) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.int64]]:
    values, predicted, unit, phase = decisive_elements(m, coefficients, step)
    moved = np.rint((values[0] - predicted) / unit) * np.where(phase < 0, -1, 1)
    side = np.where(moved == 0, 1, np.where(moved == 1, -1, 0)).astype(np.int8)
    return np.clip(0.5 - np.abs(phase), 0, 0.5), side, cluster_of(values, unit)


def decisive_elements(
    m: Measurement, coefficients: NDArray[np.float64], step: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of every `step`-th sampled element, those whose prediction lies far from every source: values [models, n],
    predictions [n], spacings there [n], and how far each prediction lay from its lattice number, in spacings [n].
    """
    values = m.values[:, ::step].astype(np.float64)
    lattice = m.lattice.lattice
    raw = coefficients @ values[1:]
    predicted = lattice.round(raw).astype(np.float64)
    unit = lattice.spacing(predicted)
    far = (np.abs(predicted - values[1:]) >= STRATA[DECISIVE] * unit).all(axis=0)
    values, raw, predicted, unit = values[:, far], raw[far], predicted[far], unit[far]
    return values, predicted, unit, (raw - predicted) / unit


def cluster_of(values: NDArray[np.float64], unit: NDArray[np.float64]) -> NDArray[np.int64]:
    """Equal where the sources differ by the same numbers of spacings: int64 [n] of values [models, n], target first."""
    steps = np.clip(np.rint((values[2:] - values[1]) / unit), -_FARTHEST, _FARTHEST).astype(np.int64)
    steps *= np.where(steps[0] < 0, -1, 1)  # the mirror image is the same witness
    cluster = np.zeros(len(unit), np.int64)
    with np.errstate(over="ignore"):
        for row in steps:
            cluster = cluster * np.int64(1_000_003) + row
    return cluster
