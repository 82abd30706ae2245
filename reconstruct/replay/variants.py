"""An arithmetic with the order in which it takes the sources, and coefficients as such a program takes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset
from reconstruct.kernels.formulas import Formula
from reconstruct.recipe import Recipe
from reconstruct.replay.arithmetic import Arithmetic, arithmetics_for

__all__ = ["NORMALISING", "Variant", "in_program_form", "variants_of"]

_PERMUTED = 4  # sources whose every order is tried: 24


@dataclass(frozen=True)
class Variant:
    """An arithmetic and the order in which it takes the sources."""

    arithmetic: Arithmetic
    order: tuple[int, ...]


#: Orders of operations that divide by the sum of the weights.
NORMALISING = frozenset({"sum", "fused", "stack"})


def in_program_form(
    coefficients: NDArray[np.float64], variant: Variant, scale: float | None = None
) -> tuple[NDArray[np.float64], float]:
    """Coefficients [K+1] as the program takes them: in its order, and as weights with a divisor where it normalises.

    Thirds are weights 1 and 2 divided by 3: the quotient is rounded at another place than 0.3333 is. `scale`: the
    divisor, where it is known.
    """
    vector, divisor = coefficients[list(variant.order)], 1.0
    formula = variant.arithmetic.formula.order
    if formula == "lerp":  # the second weight says it all; dust on further sources is none of its business
        vector[2:] = 0
    if formula in NORMALISING and scale is not None:
        return np.round(vector * scale, 9), scale
    if formula in NORMALISING and np.abs(vector - np.round(vector, 4)).max() > 1e-12:
        wholes = vector * np.arange(2, 65)[:, None]
        fits = np.abs(wholes - np.round(wholes)).max(axis=1) < 1e-9
        if fits.any():
            first = int(np.argmax(fits))
            return np.round(wholes[first]), float(first + 2)
    return vector, divisor


def variants_of(data: Dataset, recipe: Recipe) -> list[Variant]:
    """Arithmetics with the orders of material sources that matter to them."""
    everything = tuple(range(len(data.sources.names)))
    material = recipe.material
    result = []
    for arithmetic in arithmetics_for(len(material), has_base=data.sources.has_base):
        if recipe.pair is not None and arithmetic.formula.order not in {"sum", "fused"}:
            continue
        heads = dict.fromkeys(_heads(arithmetic.formula, material, has_base=data.sources.has_base))
        result += [Variant(arithmetic, (*head, *(j for j in everything if j not in head))) for head in heads]
    return result


def _heads(formula: Formula, material: tuple[int, ...], *, has_base: bool) -> Iterator[tuple[int, ...]]:
    """The material sources (and the pivot) in every order that may leave other bits.

    In float64 the order is far below the last bit that is kept, and so it is where bfloat16 or float16 products are
    added in float32. Of a sum that begins with two products, exchanging these two changes nothing.
    """
    order, single = formula.order, formula.working == "float32"
    if order in {"sum", "fused", "stack"}:
        first = 1 if order == "fused" or not single else 2
        yield from _permuted(material, first) if single else [material]
        return
    pivots = [0] if has_base else []
    if order != "task" or not has_base:
        pivots += [j for j in material if j not in pivots]
    for pivot in pivots:
        others = tuple(j for j in material if j != pivot)
        if single and order != "lerp":
            yield from ((pivot, *p) for p in _permuted(others, 1 if order == "delta" else 2))
        else:
            yield (pivot, *others)


def _permuted(sources: tuple[int, ...], alike: int) -> Iterator[tuple[int, ...]]:
    """All orders of at most four sources, those alike that differ only within the first `alike`; of more, the one."""
    if len(sources) > _PERMUTED:
        yield sources
        return
    for order in itertools.permutations(sources):
        if list(order[:alike]) == sorted(order[:alike]):
            yield order
