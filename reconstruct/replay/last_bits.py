"""Slerp in float32 (and float16) storage: the two coefficients to the last bit.

They come from a cosine that the program itself computed in float32, in chunks and in an order of its own: a few parts
in ten million, which moves every weight by a few spacings. Both are float32 numbers, though, and there are few along
the line on which an error of the cosine moves them: all are replayed on the samples.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset
from reconstruct.fitting import thinned
from reconstruct.hypotheses.slerp import COSINE_ERROR, slerp_sensitivity
from reconstruct.kernels.exact_hits import exact_hits
from reconstruct.parallel import parallel
from reconstruct.recipe import Recipe
from reconstruct.replay.variants import Variant

__all__ = ["with_last_bits"]

_BESIDE = 3  # float32 neighbours beside the line
_SAMPLE, _COARSE_SAMPLE = 1024, 16_384  # elements: in float16 few depend on the last bits


def with_last_bits(data: Dataset, recipe: Recipe, variants: list[Variant]) -> tuple[Recipe, Variant, float]:
    """The recipe with every tensor's own two coefficients, the arithmetic of `variants` in which they reproduce the
    samples best, and the share that they reproduce.
    """
    best: tuple[float, Variant, dict[str, tuple[float, ...]]] | None = None
    for variant in variants:
        found = parallel(
            lambda i, variant=variant: _nearest(data, i, recipe, variant),  # type: ignore[misc]
            range(len(data.measurements)),
            data.threads,
        )
        total = sum(count for _, _, count in found)
        share = sum(hits for _, hits, _ in found) / max(total, 1)
        if best is None or share > best[0]:
            names = (m.name for m in data.measurements)
            best = share, variant, {name: tuple(c.tolist()) for name, (c, _, _) in zip(names, found, strict=True)}
    assert best is not None
    return replace(recipe, bits=best[2]), best[1], best[0]


def _nearest(data: Dataset, position: int, recipe: Recipe, variant: Variant) -> tuple[NDArray[np.float64], int, int]:
    """Coefficients, elements they reproduce, elements compared."""
    m = data.measurements[position]
    centre = recipe.coefficients(m.name, m.moments)
    assert recipe.pair is not None
    first, second = recipe.pair
    values = thinned(m.values, _SAMPLE if data.all_fine else _COARSE_SAMPLE)
    pair = centre[[first, second]].astype(np.float32)
    ulp = np.spacing(np.abs(pair)).astype(np.float64)
    direction = slerp_sensitivity(recipe.cell(m.name).parameters[0], m.moments.cosine(first, second)) / ulp
    reach = float(np.abs(direction).max()) * COSINE_ERROR  # in units in the last place
    beside = range(-_BESIDE, _BESIDE + 1)
    along = np.arange(-np.ceil(reach), np.ceil(reach) + 1) / max(reach, 1.0) * COSINE_ERROR
    steps = {
        (round(k * direction[0]) + i, round(k * direction[1]) + j)
        for k in along.tolist()
        for i, j in itertools.product(beside, repeat=2)
    }
    ordered = np.array(sorted(steps, key=lambda s: (abs(s[0]) + abs(s[1]), s)))
    grid = np.repeat(centre[None], len(ordered), axis=0)
    grid[:, [first, second]] = pair.astype(np.float64) + ordered * ulp
    order = list(variant.order)
    hits = exact_hits(
        values, m.lattice.lattice, grid[:, order], np.ones(len(grid)), variant.arithmetic.formula, variant.order
    )
    top = int(np.argmax(hits))  # the first, nearest of equals
    return grid[top], int(hits[top]), values.shape[1]
