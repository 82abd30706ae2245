"""Predict, round, compare, count, with torch's own operations. Defines what `replay` means.

The formulas are written with the very torch calls that merge programs make (`addcmul`, `lerp`, sums in the working
dtype), so that the fused version is held to their rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from reconstruct.kernels.formats import decode
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA, ReplayResult, View, check_replay

__all__ = ["predict", "replay"]


def predict(sources: torch.Tensor, coefficients: Sequence[float], divisor: float, formula: Formula) -> torch.Tensor:
    """Float32 sources [S, n], pivot first -> unrounded prediction, float32 or float64 [n]."""
    working = getattr(torch, formula.working)
    x = sources.to(working)
    used = [j for j, c in enumerate(coefficients) if c != 0]
    c = torch.tensor(list(coefficients), dtype=torch.float64).to(working)
    d = torch.tensor(divisor, dtype=torch.float64).to(working)
    if formula.order == "delta":
        total = x[0].clone()
        for j in used:
            if j > 0:
                total = total + c[j] * (x[j] - x[0])
        return total
    if formula.order == "sum":
        total = torch.zeros_like(x[0])
        for j in used:
            total = total + c[j] * x[j]
        return total if divisor == 1 else total / d
    if formula.order == "fused":
        total = torch.zeros_like(x[0])
        for j in used:
            total.addcmul_(x[j], c[j])
        return total if divisor == 1 else total / d
    if formula.order == "stack":
        products = torch.stack([x[j] * c[j] for j in used]) if used else torch.zeros_like(x[:1])
        total = products.sum(dim=0)
        return (total if divisor == 1 else total / d).float()
    if formula.order == "task":
        moved = [j for j in used if j > 0]
        deltas = torch.stack([x[j] - x[0] for j in moved]) if moved else torch.zeros_like(x[:1])
        weights = c[moved] if moved else torch.zeros(1, dtype=working)
        return (x[0] + (deltas * weights[:, None]).sum(dim=0)).float()
    return torch.lerp(x[0], x[1], float(c[1]))


def replay(
    models: Sequence[View],
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
    lattice: Lattice,
) -> ReplayResult:
    """Compare the suspect (first) with predictions from the other models for V coefficient vectors [V, K+1]."""
    check_replay(models, coefficients, divisors, formula)
    values = np.stack([decode(m.bits, m.dtype) for m in models])
    values = values[:, np.isfinite(values).all(axis=0)]
    result = ReplayResult.empty(len(coefficients))
    for v, (vector, divisor) in enumerate(zip(coefficients, divisors, strict=True)):
        raw = predict(torch.from_numpy(values[1:]), vector, float(divisor), formula).to(torch.float64).numpy()
        predicted = lattice.round(raw).astype(np.float64)
        result.total[v] = len(predicted)
        usable = np.isfinite(predicted)
        share = float(np.abs(vector / divisor).sum())
        _compare(values[:, usable].astype(np.float64), raw[usable], predicted[usable], share, lattice, result.vector(v))
    return result


def _compare(
    values: NDArray[np.float64],
    raw: NDArray[np.float64],
    predicted: NDArray[np.float64],
    share: float,
    lattice: Lattice,
    result: ReplayResult,
) -> None:
    """Fill in the result of one coefficient vector. `values` [S+1, n]: suspect and sources."""
    suspect, sources = values[0], values[1:]
    largest = np.abs(values).max(axis=0)
    difference, spacing = suspect - predicted, lattice.spacing(predicted)
    result.exact[0] = (difference == 0).sum()
    result.close[0] = (np.abs(difference) <= 2 * lattice.spacing(largest)).sum()
    result.inside_box[0] = (np.abs(suspect - raw) <= (0.5 + 0.5 * share + 1e-3) * lattice.spacing(largest)).sum()
    result.energy[0] = ((suspect - raw) ** 2).sum()
    novel = np.all([lattice.round(x) != predicted for x in sources], axis=0)
    result.novel[0] = novel.sum()
    away = np.abs(predicted - sources).min(axis=0) / spacing
    stratum = np.searchsorted(STRATA, away, side="right") - 1
    step = np.sign(difference) * np.maximum(1, np.floor(np.abs(difference) / spacing + 0.5))
    step = np.clip(step, -MAXIMUM_STEPS, MAXIMUM_STEPS).astype(np.int64) + MAXIMUM_STEPS
    np.add.at(result.steps[0], (stratum[novel], step[novel]), 1)
