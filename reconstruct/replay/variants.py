"""An arithmetic with the order in which it takes the sources, and coefficients as such a program takes them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset
from reconstruct.recipe import Recipe
from reconstruct.replay.arithmetic import Arithmetic, arithmetics_for

__all__ = ["NORMALISING", "Variant", "in_program_form", "variants_of"]


@dataclass(frozen=True)
class Variant:
    """An arithmetic and the order in which it takes the sources."""

    arithmetic: Arithmetic
    order: tuple[int, ...]


_PERMUTED = 4  # sources at most, of which every order is tried
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


def _orders(material: Sequence[int], *, swaps: bool) -> list[tuple[int, ...]]:
    """Orders of adding up. With simple coefficients one element in ten may be a tie that the order decides.

    All of them for four sources at most, else that given and its reverse: five have 120. `swaps`: whether exchanging
    the first two matters (a plain sum of them does not change).
    """
    if len(material) > _PERMUTED:
        return [tuple(material), tuple(reversed(material))]
    return [p for p in itertools.permutations(material) if swaps or len(p) < 2 or p[0] < p[1]]


def variants_of(data: Dataset, recipe: Recipe) -> list[Variant]:
    """Arithmetics with the orders of material sources that matter to them."""
    everything = tuple(range(len(data.sources.names)))
    material = recipe.material
    result = []
    for arithmetic in arithmetics_for(len(material), has_base=data.sources.has_base):
        if recipe.pair is not None and arithmetic.formula.order not in {"sum", "fused"}:
            continue
        order = arithmetic.formula.order
        if order in {"fused", "sum"}:
            orders = [(*p, *(j for j in everything if j not in p)) for p in _orders(material, swaps=order == "fused")]
        elif order in {"delta", "lerp"}:
            firsts = dict.fromkeys([*([0] if data.sources.has_base and order == "delta" else []), *material])
            orders = [(p, *(j for j in material if j != p), *(j for j in everything if j not in {p, *material}))
                      for p in firsts]  # fmt: skip
        elif order == "task" and not data.sources.has_base:
            orders = [(p, *(j for j in everything if j != p)) for p in material]
        else:
            orders = [everything]
        result += [Variant(arithmetic, o) for o in orders]
    return result
