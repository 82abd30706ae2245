"""What normalised weights were divided by: 0.8 and 0.4 divided by 1.2 are not rounded where 2 and 1 divided by 3 are.

The coefficients are the same, and so are nearly all bits: not those of elements that lie half way between two numbers
of the lattice, where the last error of the arithmetic decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset
from reconstruct.fitting import thinned
from reconstruct.kernels.exact_hits import exact_hits
from reconstruct.recipe import Recipe
from reconstruct.replay.variants import Variant, in_program_form

__all__ = ["with_scales"]

_SUMS = np.arange(1, 101) / 20  # sums of weights with one or two decimals: 0.05 to 5
_SAMPLE = 400_000  # elements of a cell


def with_scales(
    data: Dataset,
    recipe: Recipe,
    variant: Variant,
    members: Mapping[tuple[str, ...], Sequence[int]],
    candidates: Mapping[tuple[str, ...], Sequence[tuple[float, ...]]],
) -> tuple[Recipe, float]:
    """The recipe with the sum of weights of each cell in which the coefficients alone do not reproduce every sampled
    element and a sum reproduces more; also with another of its `candidates` as parameters, where that does.
    `members`: positions of tensors by cell. Also the share of sampled elements that it reproduces.

    Sums that differ by a power of two leave the same bits. Among them those are taken with which the weight of one
    model is the same everywhere, as a configuration with one gradient has it; else those with the shortest weights.
    """
    tied: dict[tuple[str, ...], list[float]] = {}
    coefficients = {}
    cells, exact, compared = [], 0, 0
    for cell in recipe.cells:
        if cell.key not in members:
            cells.append(cell)
            continue
        options = [cell.parameters, *(c for c in candidates.get(cell.key, ()) if c != cell.parameters)]
        best = -1
        for parameters in options:
            vector = recipe.evaluate(parameters, data.measurements[members[cell.key][0]].moments)
            sums, hits, total = _scales(data, variant, vector, members[cell.key])
            if hits > best:
                best, chosen = hits, parameters
                tied[cell.key], coefficients[cell.key] = sums, vector
            if hits == total:
                break
        cells.append(replace(cell, parameters=chosen))
        exact, compared = exact + best, compared + total
    share = exact / max(compared, 1)
    if not any(tied.values()):
        return recipe, share
    return replace(recipe.with_cells(tuple(cells)), scales=_chosen(tied, coefficients)), share


def _chosen(
    tied: Mapping[tuple[str, ...], list[float]], coefficients: Mapping[tuple[str, ...], NDArray[np.float64]]
) -> dict[tuple[str, ...], float]:
    for source in range(len(next(iter(coefficients.values())))):
        shares = {key: c[source] for key, c in coefficients.items() if np.abs(c).max() < 1}
        sets = [{round(shares[key] * s, 9) for s in tied[key] or [1.0]} for key in shares]
        common = set.intersection(*sets) - {0.0} if sets else set()
        if common:
            weight = min(common, key=lambda w: (_decimals(w), abs(w - 0.5)))
            return {key: min(tied[key], key=lambda s: abs(coefficients[key][source] * s - weight))
                    for key in tied if tied[key]}  # fmt: skip
    return {
        key: min(sums, key=lambda s: (sum(_decimals(w) for w in coefficients[key] * s), abs(s - 1)))
        for key, sums in tied.items()
        if sums
    }


def _decimals(weight: float) -> int:
    return next(d for d in range(10) if abs(weight - round(weight, d)) < 1e-9 or d == 9)


def _scales(
    data: Dataset, variant: Variant, coefficients: NDArray[np.float64], members: Sequence[int]
) -> tuple[list[float], int, int]:
    """The sums that reproduce most sampled elements of these tensors (none where the coefficients alone do as well),
    how many they reproduce, and of how many.
    """
    plain = in_program_form(coefficients, variant)
    weights = coefficients * _SUMS[:, None]
    sums = _SUMS[np.abs(weights - np.round(weights, 2)).max(axis=1) < 1e-9].tolist()
    forms = [plain, *(in_program_form(coefficients, variant, s) for s in sums)]
    vectors, divisors = np.array([v for v, _ in forms]), np.array([d for _, d in forms])
    limit = max(500, _SAMPLE // len(members))
    hits, total = np.zeros(len(forms), np.int64), 0
    for position in members:
        m = data.measurements[position]
        values = thinned(m.values, limit)
        hits += exact_hits(values, m.lattice.lattice, vectors, divisors, variant.arithmetic.formula, variant.order)
        total += values.shape[1]
    best = int(hits.max())
    if plain[1] == 1.0 and hits[0] == best:
        return [], best, total
    # Whole numbers are a sum of weights as well: a configuration has to name them, 0.6667 would be rounded elsewhere.
    return [float(d) for d, h in zip(divisors, hits, strict=True) if h == best], best, total
