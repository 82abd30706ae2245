"""From tensors to layers, module kinds and the whole model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import PoolEvidence, TensorEvidence
from reconstruct.kernels.results import ReplayResult
from reconstruct.statistics.mixture import decisive_spike
from reconstruct.statistics.moments import affine, least_squares
from reconstruct.statistics.rounding import Box

__all__ = ["limits", "pool", "pooled_bounds", "sum_replays"]


def sum_replays(results: Iterable[ReplayResult]) -> ReplayResult:
    """Over disjoint elements."""
    total = ReplayResult.empty(1)
    for result in results:
        total = total + result
    return total


def limits(estimates: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % limits of the median of estimates [n][K+1], from their scatter (1.25 standard errors of the mean)."""
    values = np.array(estimates)
    centre = np.median(values, axis=0)
    if len(values) < 2:
        return np.full_like(centre, -np.inf), np.full_like(centre, np.inf)
    scatter = np.maximum(1.4826 * np.median(np.abs(values - centre), axis=0), 1e-12)
    half = 1.96 * 1.2533 * scatter / np.sqrt(len(values))
    return centre - half, centre + half


def pooled_bounds(boxes: Sequence[Box | None]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Bounds [K+1] that hold in all tensors; None where one has none or they contradict one another."""
    if not boxes or any(box is None for box in boxes):
        return None
    common = boxes[0]
    assert common is not None
    for box in boxes[1:]:
        assert box is not None
        common = common.intersect(box)
    if common.empty:
        return None
    return np.r_[1 - common.high_sum, common.low], np.r_[1 - common.low_sum, common.high]


def pool(tensors: Sequence[TensorEvidence], key: Callable[[TensorEvidence], tuple[str | None, str | None]],
         *, exact: bool) -> tuple[PoolEvidence, ...]:  # fmt: skip
    """Group tensors by (layer, kind), in order of appearance. `exact`: the recipe replays, so its coefficients are
    the estimate and certified bounds its limits; else the median interval fit is.
    """
    groups: dict[tuple[str | None, str | None], list[TensorEvidence]] = {}
    for tensor in tensors:
        groups.setdefault(key(tensor), []).append(tensor)
    return tuple(_pooled(layer, kind, members, exact=exact) for (layer, kind), members in groups.items())


def _pooled(layer: str | None, kind: str | None, members: list[TensorEvidence], *, exact: bool) -> PoolEvidence:
    fits = [affine(m.fit.interval) for m in members]
    low, high = limits(fits)
    coefficients, certified = np.median(fits, axis=0), False
    if exact:
        coefficients = np.median([m.coefficients for m in members], axis=0)
        bounds = pooled_bounds([m.fit.affine for m in members])
        if bounds is not None and (bounds[0] <= coefficients + 1e-3).all() and (bounds[1] >= coefficients - 1e-3).all():
            (low, high), certified = bounds, True
        else:
            low, high = np.minimum(low, coefficients), np.maximum(high, coefficients)
    gram = sum(m.measurement.moments.gram for m in members)
    elements = sum(m.measurement.elements for m in members)
    replay = sum_replays(m.replay for m in members)
    smooth = sum_replays(m.replay for m in members if m.measurement.smooth_lattice)
    sizes = [m.measurement.elements for m in members]
    return PoolEvidence(
        layer=layer,
        kind=kind,
        tensors=len(members),
        elements=elements,
        coefficients=coefficients,
        low=low,
        high=high,
        certified=certified,
        least_squares=affine(least_squares(np.asarray(gram), elements).weights),
        residual=_root_mean([m.residual for m in members], sizes),
        floor=_root_mean([m.floor for m in members], sizes),
        decoy_residual=_root_mean([m.decoy_residual for m in members], sizes),
        exact=int(replay.exact[0]),
        novel=int(replay.novel[0]),
        novel_exact=int(replay.novel_exact[0]),
        spike=decisive_spike(smooth.steps[0]),
    )


def _root_mean(values: Sequence[float], sizes: Sequence[int]) -> float:
    """Root mean square over elements, from those of parts."""
    return float(np.sqrt(np.dot(np.square(values), sizes) / max(sum(sizes), 1)))
