"""Replay on the samples kept of each tensor: what searches and orientation run on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from reconstruct.evidence import Measurement
from reconstruct.fitting import rows_for
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.replay_reference import predict
from reconstruct.kernels.results import ReplayResult, View
from reconstruct.kernels.select import Kernels

__all__ = ["DELTA", "decoy_values", "exact_hits", "replay_values"]

#: The neutral arithmetic of searches: base plus weighted deltas in float32.
DELTA = Formula("delta", "float32")
_BFLOAT16 = Lattice.of_dtype("BF16")


def replay_values(
    values: NDArray[np.float32],
    lattice: Lattice,
    kernels: Kernels,
    coefficients: NDArray[np.float64],
    formula: Formula = DELTA,
    divisors: NDArray[np.float64] | None = None,
    order: Sequence[int] | None = None,
) -> ReplayResult:
    """Replay sampled values [models, n]: target, pivot, further sources. `order` permutes the sources."""
    chosen = [0, *(1 + j for j in order)] if order is not None else range(len(values))
    views = [View(np.ascontiguousarray(values[i]), "F32") for i in chosen]
    if divisors is None:
        divisors = np.ones(len(coefficients))
    return kernels.replay(views, coefficients, divisors, formula, lattice)


def exact_hits(
    values: NDArray[np.float32],
    lattice: Lattice,
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
    order: Sequence[int],
) -> NDArray[np.int64]:
    """Elements of a sample [models, n] that each of V coefficient vectors reproduces, int64 [V].

    A search tries every named arithmetic on a few thousand elements: the reference's own operations do that at once,
    where a fused kernel would have to be compiled for each.
    """
    sources = torch.from_numpy(np.ascontiguousarray(values[[1 + j for j in order]])).to(getattr(torch, formula.working))
    plain = lattice == _BFLOAT16 and formula.working != "float64"
    target = torch.from_numpy(values[0]).to(torch.bfloat16) if plain else torch.from_numpy(values[0]).double()
    hits = []
    for vector, divisor in zip(coefficients, divisors, strict=True):
        raw = predict(sources, vector, float(divisor), formula)
        # torch's own cast rounds to nearest even as the lattice does, many times as fast.
        rounded = raw.to(torch.bfloat16) if plain else torch.from_numpy(lattice.round(raw.double().numpy())).double()
        hits.append(int((rounded == target).sum()))
    return np.array(hits, np.int64)


def decoy_values(measurement: Measurement, seed: int) -> NDArray[np.float32]:
    """Sampled values with every delta moved, in spacings, to another element: same sizes, wrong places."""
    values = measurement.values
    rows = rows_for(measurement)
    order = np.random.default_rng(seed).permutation(values.shape[1])
    unit = measurement.lattice.lattice.spacing(values[0])
    moved = (values[1].astype(np.float64) + unit * rows.X[order].T).astype(np.float32)
    return np.concatenate([values[:2], moved])
