"""Fits of one tensor: least squares, interval fit, certificates for each family, and the decoys' fit.

Any of the models may stand in the suspect's place (`with_roles`): orientation asks who is made from whom.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import Measurement, TensorFit
from reconstruct.hypotheses.slerp import COSINE_ERROR, LINEAR_BRANCH, Slerp, slerp_interval, slerp_sensitivity
from reconstruct.statistics.effective_lattice import EffectiveLattice
from reconstruct.statistics.moments import least_squares
from reconstruct.statistics.permutation import permutation
from reconstruct.statistics.rounding import (
    BFLOAT16_MANTISSA,
    FINE_MANTISSA,
    TOLERANCES,
    Box,
    Rows,
    certify,
    interval_fit,
    rows_of,
)

__all__ = ["best_certificate", "fit_rows", "fit_tensor", "rows_for", "thinned", "with_roles"]

_NEWTON_ROWS = 4096
_CERTIFIED_ROWS = 16_384


def with_roles(measurement: Measurement, roles: tuple[int, ...], limit: int | None = None) -> Measurement:
    """The measurement with other models as target, pivot and sources (0 is the suspect), from what is kept of it.

    Sampled elements that say nothing in these roles (no source moves, target 0 or cancelled to below a quarter of
    the pivot) are dropped; at most `limit` are kept.
    """
    values = measurement.values[list(roles)]
    keep = (values[0] != 0) & (np.abs(values[0]) >= 0.25 * np.abs(values[1])) & (values[2:] != values[1]).any(axis=0)
    index = np.flatnonzero(keep)[:: max(1, int(keep.sum()) // limit) if limit else 1]
    share = keep.mean() if len(keep) else 0.0
    return replace(
        measurement,
        moments=measurement.moments.with_roles(roles),
        lattices=tuple(measurement.lattices[i] for i in roles),
        dtypes=tuple(measurement.dtypes[i] for i in roles),
        informative=int(measurement.informative * share),
        index=measurement.index[index],
        values=np.ascontiguousarray(values[:, index]),
    )


def thinned(values: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    """At most about `limit` of the sampled elements [models, n], evenly spread."""
    return values[:, :: max(1, values.shape[1] // limit)]


def rows_for(measurement: Measurement) -> Rows:
    """Constraints of the sampled elements, in spacings of the target's own lattice, that hold for every merge rounded
    to it.
    """
    return _certifiable(rows_of(measurement.values, measurement.lattice.lattice), measurement.lattice)


def _certifiable(rows: Rows, lattice: EffectiveLattice) -> Rows:
    """What lies on a coarser lattice than its dtype's (cleared mantissa bits, an eighth of a byte in bfloat16) may have
    been a 16-bit number before: that rounding leaves half a spacing of its own, and bounds must allow for it.
    """
    missing = BFLOAT16_MANTISSA - lattice.lattice.mantissa
    return replace(rows, slack=rows.slack + 0.5 * 2.0**-missing) if lattice.coarser and missing > 0 else rows


def fit_rows(rows: Rows, start: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Interval fit on a few thousand rows, from `start` or from least squares in spacings."""
    few = rows.thinned(_NEWTON_ROWS)
    found = np.zeros(rows.X.shape[1]) if start is None else start
    if start is None and len(few):
        found = np.asarray(np.linalg.lstsq(few.X, few.Y, rcond=None)[0], np.float64)
    if len(few) < 4 * rows.X.shape[1]:
        return found
    return interval_fit(few, found)


def best_certificate(rows: Rows, start: NDArray[np.float64]) -> Box | None:
    """The certificate at the smallest tolerance that is feasible, if one is."""
    for tolerance in range(len(TOLERANCES)):
        # The interval fit leaves no violation where there is a feasible point; a programme need not prove it again.
        if rows.violation(start, tolerance) > 0.02:
            continue
        box = certify(rows, tolerance, start)
        if box is not None:
            return box
    return None


def fit_tensor(measurement: Measurement, families: Collection[str], seed: int = 0) -> TensorFit:
    """All fits of one tensor in the families asked for."""
    solution = least_squares(measurement.moments.gram, measurement.moments.count)
    if len(measurement.lattices) < 3:  # one source alone: there is no delta to fit
        return TensorFit(solution, solution.weights, None, {}, 0.0, 0.0, 0.0)
    values = thinned(measurement.values, _CERTIFIED_ROWS)
    lattice = measurement.lattice.lattice
    rows = rows_of(values, lattice)
    interval = fit_rows(rows, solution.weights)
    usable = len(rows) >= 50
    wanted = usable and set(families) != {"slerp"}
    affine = best_certificate(_certifiable(rows, measurement.lattice), interval) if wanted else None
    slerp = _slerp_certificates(measurement, values) if usable and "slerp" in families else {}
    order = permutation(len(rows), seed)
    decoys = Rows(rows.X[order], rows.Y, rows.slack, rows.reach)
    largest = lattice.spacing(np.abs(values).max(axis=0)) / lattice.spacing(values[0])
    return TensorFit(
        solution, interval, affine, slerp,
        _box(rows, largest, interval), _box(decoys, largest, fit_rows(decoys)), _explained(decoys),
    )  # fmt: skip


def _box(rows: Rows, largest: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Share of elements within (1/2 + 1/2 sum |c|) spacings, those of the largest number involved."""
    if not len(rows):
        return 0.0
    total = abs(1 - weights.sum()) + np.abs(weights).sum()
    return float((np.abs(rows.X @ weights - rows.Y) <= (0.5 + 0.5 * total + 1e-3) * largest + rows.slack).mean())


def _slerp_certificates(
    measurement: Measurement, values: NDArray[np.float32]
) -> dict[tuple[int, int], tuple[float, float]]:
    """Certified t for every pair of sources in slerp's own branch (the other one is affine)."""
    found = {}
    sources = len(measurement.lattices) - 1
    lattice = measurement.lattice.lattice
    fine = lattice.mantissa > FINE_MANTISSA
    for first, second in itertools.combinations(range(sources), 2):
        cosine = measurement.moments.cosine(first, second)
        if abs(cosine) > LINEAR_BRANCH:
            continue
        fit = Slerp(first, second).fit(measurement.moments, tuple(str(i) for i in range(sources)))
        if fit is None:
            continue
        chosen = values[[0, first + 1, second + 1]]
        unit = lattice.spacing(np.abs(chosen).max(axis=0) if fine else chosen[0])
        # Programs compute slerp in float32 whatever the storage: the first tolerance is the only one that applies.
        tolerance = TOLERANCES[0].constant + (2.0 if fine else 0.0)
        # The program's own cosine moves the coefficients: in float32 by many spacings, in bfloat16 by next to nothing.
        sensitivity = float(np.abs(slerp_sensitivity(fit.parameters["t"], cosine)).sum())
        tolerance += 2.0 ** (lattice.mantissa + 1) * COSINE_ERROR * sensitivity
        bounds = slerp_interval(chosen, unit, cosine, fit.parameters["t"], tolerance)
        if bounds is not None:
            found[first, second] = bounds
    return found


def _explained(rows: Rows) -> float:
    """R^2 of least squares in spacings: for deltas in wrong places, what chance alone explains."""
    total = float(rows.Y @ rows.Y)
    if len(rows) < 4 * rows.X.shape[1] or total == 0:
        return 0.0
    gradient = rows.X.T @ rows.Y
    w = np.linalg.lstsq(rows.X.T @ rows.X, gradient, rcond=None)[0]
    return float(w @ gradient) / total
