"""Consensus search: the coefficients at which most elements sit exactly where a merge would have left them.

Training after a merge biases every regression; the spike of untouched elements does not move. The score is the excess
of decisive hits over smooth expectation in its own standard errors, pooled over tensors. Decoys are searched in the
same way: a search inflates its maximum, and the null is the maximum of such a search, not one point.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import ReplayResult
from reconstruct.kernels.select import Kernels
from reconstruct.parallel import parallel
from reconstruct.replay.samples import replay_values
from reconstruct.statistics.mixture import Spike, decisive_spike
from reconstruct.statistics.moments import affine

__all__ = ["Consensus", "Pool", "search_consensus"]

_MAXIMUM_ELEMENTS = 240_000
_FAINT = 3.0  # z of the coarse grid's best point, on a quarter of the elements
_SIMPLE = 600  # combinations of round numbers that are tried


@dataclass(frozen=True)
class Pool:
    """Sampled values [models, n] of several tensors that share a lattice; target first, pivot second."""

    values: NDArray[np.float32]
    lattice: Lattice

    @property
    def sources(self) -> int:
        """Number of sources, pivot included."""
        return len(self.values) - 1


@dataclass(frozen=True)
class Consensus:
    """The best coefficients of the deltas, float64 [K], their spike and the whole result of replaying them."""

    weights: NDArray[np.float64]
    spike: Spike
    replay: ReplayResult


def thin(pools: Sequence[Pool], limit: int = _MAXIMUM_ELEMENTS) -> list[Pool]:
    """Evenly thinned pools with at most about `limit` elements together."""
    total = sum(p.values.shape[1] for p in pools)
    step = max(1, -(-total // limit))
    return [Pool(np.ascontiguousarray(p.values[:, ::step]), p.lattice) for p in pools]


def _score(pools: Sequence[Pool], weights: NDArray[np.float64], kernels: Kernels, threads: int) -> ReplayResult:
    """Replay every weight vector [V, K] on every pool and add up."""
    coefficients = affine(weights)
    work = [(part, pool.lattice) for pool in pools for part in np.array_split(pool.values, max(threads, 1), axis=1)]
    total = ReplayResult.empty(len(weights))
    for result in parallel(lambda item: replay_values(item[0], item[1], kernels, coefficients), work, threads):
        total = total + result
    return total


def _best(pools: Sequence[Pool], weights: NDArray[np.float64], kernels: Kernels, threads: int) -> Consensus:
    result = _score(pools, weights, kernels, threads)
    spikes = [decisive_spike(steps) for steps in result.steps]
    top = int(np.argmax([s.z for s in spikes]))
    return Consensus(weights[top], spikes[top], result.vector(top))


def _grid(centre: NDArray[np.float64], reach: int, step: float) -> NDArray[np.float64]:
    """Around a centre: the full grid for up to two coefficients, else lines along each one and each exchange."""
    k = len(centre)
    offsets = np.arange(-reach, reach + 1) * step
    centre = np.round(centre / step) * step  # so that round numbers are hit
    if k <= 2:
        return np.asarray(centre + np.array(list(itertools.product(offsets, repeat=k))))
    lines = [np.eye(k)[i] for i in range(k)]
    lines += [np.eye(k)[i] - np.eye(k)[j] for i, j in itertools.combinations(range(k), 2)]
    return np.asarray(centre + np.unique(np.concatenate([np.outer(offsets, line) for line in lines]), axis=0))


def search_consensus(
    pools: Sequence[Pool], centres: Sequence[NDArray[np.float64]], kernels: Kernels, *, threads: int = 1
) -> Consensus | None:
    """Search from several centres, coarse to fine. None if there is nothing to search in."""
    if not pools or not sum(p.values.shape[1] for p in pools):
        return None
    few = thin(pools, _MAXIMUM_ELEMENTS // 4)
    distinct: list[NDArray[np.float64]] = []
    for centre in centres:
        if np.isfinite(centre).all() and all(np.abs(centre - c).max() > 0.03 for c in distinct):
            distinct.append(centre)
    found: list[Consensus] = []
    for centre in distinct:
        best = _best(few, _grid(centre, 8, 0.01), kernels, threads)
        if len(centre) > 2:  # lines only: follow them a second time
            best = _best(few, _grid(best.weights, 8, 0.01), kernels, threads)
        found.append(best)
    if not found:
        return None
    best = max(found, key=lambda c: c.spike.z)
    if best.spike.z < _FAINT:  # a grid of hundreds of points reaches this by chance: there is nothing to refine
        return _best(pools, best.weights[None], kernels, threads)
    many = thin(_within_reach(pools, best.weights, 0.025), 4 * _MAXIMUM_ELEMENTS)
    for reach, step in ((4, 0.004), (5, 0.001)):
        best = _best(many, _grid(best.weights, reach, step), kernels, threads)
    best = _simplify(many, best, kernels, threads)
    return _best(pools, best.weights[None], kernels, threads)


def _simplify(pools: Sequence[Pool], best: Consensus, kernels: Kernels, threads: int) -> Consensus:
    """Numbers a person would write, if their spike is as good within chance; those that sum to one first."""
    for digits in (1, 2, 3):
        scale = 10**digits
        choices = [
            [n / scale for n in range(int(np.ceil((w - 0.0031) * scale)), int(np.floor((w + 0.0031) * scale)) + 1)]
            for w in best.weights
        ]
        if not 0 < math.prod(map(len, choices)) <= _SIMPLE:
            continue
        grid = np.array(list(itertools.product(*choices)))
        for chosen in (grid[np.abs(grid.sum(axis=1) - 1) < 1e-9], grid):
            if len(chosen):
                simple = _best(pools, chosen, kernels, threads)
                if simple.spike.z >= best.spike.z - 1:
                    return simple
    return best


def _within_reach(pools: Sequence[Pool], weights: NDArray[np.float64], reach: float) -> list[Pool]:
    """Elements that can count near these weights: their residual is not beyond what a move by `reach` could close."""
    kept = []
    for pool in pools:
        values = pool.values.astype(np.float64)
        deltas = values[2:] - values[1]
        prediction = values[1] + weights @ deltas
        unit = pool.lattice.spacing(prediction)
        allowed = 4 + 1.5 * reach * np.abs(deltas).sum(axis=0) / unit
        away = np.abs(prediction - values[1:]).min(axis=0) / unit + allowed
        keep = (np.abs(values[0] - prediction) <= allowed * unit) & (away >= 4)
        kept.append(Pool(np.ascontiguousarray(pool.values[:, keep]), pool.lattice))
    return kept
