"""From certified bounds to a recipe: which tensors share parameters, which round numbers, in which arithmetic.

Bounds of tensors that share a recipe are intersected; the simplest partition of the model in which every cell has a
point is taken. In each cell the simplest numbers inside the bounds are replayed on the samples in every named
arithmetic; what reproduces most elements is the recipe.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset, parallel
from reconstruct.fitting import rows_for
from reconstruct.hypotheses.slerp import LINEAR_BRANCH
from reconstruct.kernels.lattice import Lattice
from reconstruct.recipe import PARTITIONS, Cell, Recipe, partition_key
from reconstruct.replay.arithmetic import Arithmetic, arithmetics_for
from reconstruct.statistics.rounding import TOLERANCES, Box, certify
from reconstruct.statistics.simple_numbers import simplest

__all__ = ["ExactRecipe", "Variant", "find_exact", "scaled"]

_CANDIDATES = 16
_CELL_SAMPLE = 20_000


@dataclass(frozen=True)
class Variant:
    """An arithmetic and the order in which it takes the sources."""

    arithmetic: Arithmetic
    order: tuple[int, ...]


@dataclass(frozen=True)
class ExactRecipe:
    """A recipe from certified bounds; `variants` reproduce the samples best, the best first, with their shares."""

    recipe: Recipe
    variants: tuple[tuple[Variant, float], ...]
    certified: frozenset[int]
    tolerance: float


def scaled(coefficients: NDArray[np.float64], order: str) -> tuple[NDArray[np.float64], float]:
    """Weights and divisor: thirds are weights 1 and 2 divided by 3, as a program with normalised weights computes."""
    if order in {"sum", "fused", "stack"} and not np.allclose(coefficients, np.round(coefficients, 4), atol=1e-12):
        for denominator in range(2, 65):
            whole = coefficients * denominator
            if np.allclose(whole, np.round(whole), atol=1e-9):
                return np.round(whole), float(denominator)
    return coefficients, 1.0


def find_exact(data: Dataset) -> ExactRecipe | None:
    """A recipe that certified bounds allow in at least half of the voting tensors, or None."""
    voting = data.voting
    needed = max(1, -(-len(voting) // 2))
    affine = {i: box for i in voting if (box := data.fits[i].affine) is not None}
    options: list[tuple[int, int, tuple[int, int] | None, dict[int, Box]]] = []
    if len(affine) >= needed:
        options.append((len(affine), 1, None, affine))
    if "slerp" in data.families:
        for pair in itertools.combinations(range(len(data.sources.names)), 2):
            boxes = _slerp_boxes(data, pair, affine)
            if len(boxes) >= needed:
                options.append((len(boxes), 0, pair, boxes))
    for _, _, pair, boxes in sorted(options, key=lambda o: o[:2], reverse=True)[:1]:
        boxes = _same_tolerance(data, boxes) if pair is None else boxes
        recipe = _partitioned(data, pair, boxes)
        if recipe is not None:
            return _rounded(data, recipe, boxes)
    return None


def _slerp_boxes(data: Dataset, pair: tuple[int, int], affine: dict[int, Box]) -> dict[int, Box]:
    """Bounds of t per tensor; in slerp's linear branch they are those of the second source's weight."""
    boxes = {}
    second = pair[1] - 1
    for i in data.voting:
        bounds = data.fits[i].slerp.get(pair)
        if bounds is not None:
            boxes[i] = Box(np.array(bounds[:1]), np.array(bounds[1:]), bounds[0], bounds[1], TOLERANCES[0])
        elif i in affine and abs(data.measurements[i].moments.cosine(*pair)) > LINEAR_BRANCH:
            box = affine[i]
            others = [j for j in range(len(box.low)) if j + 1 not in pair]
            lies = all(box.low[j] <= 1e-4 and box.high[j] >= -1e-4 for j in others)
            total = box.low_sum <= 1 + 1e-4 and box.high_sum >= 1 - 1e-4
            if lies and (total or 0 in pair):
                low, high = float(box.low[second]), float(box.high[second])
                boxes[i] = Box(np.array([low]), np.array([high]), low, high, box.tolerance)
    return boxes


def _same_tolerance(data: Dataset, boxes: dict[int, Box]) -> dict[int, Box]:
    """Where some tensors need a wider tolerance the arithmetic is a coarser one, for the others too."""
    tolerance = max(box.tolerance for box in boxes.values())
    narrow = [i for i, box in boxes.items() if box.tolerance < tolerance]
    again = parallel(
        lambda i: certify(rows_for(data.measurements[i]), tolerance, data.fits[i].interval), narrow, data.threads
    )
    return boxes | {i: box for i, box in zip(narrow, again, strict=True) if box is not None}


def _partitioned(data: Dataset, pair: tuple[int, int] | None, boxes: dict[int, Box]) -> Recipe | None:
    """The simplest partition in which the bounds of each cell's tensors have a common point."""
    for partition in PARTITIONS:
        keys = {m.name: partition_key(partition, m.name, m.module) for m in data.measurements}
        cells: dict[tuple[str, ...], Box] = {}
        for i, box in boxes.items():
            key = keys[data.measurements[i].name]
            cells[key] = cells[key].intersect(box) if key in cells else box
        if any(box.empty for box in cells.values()):
            continue
        described = []
        for key, box in cells.items():
            member = next(m for m in data.measurements if keys[m.name] == key and m.is_matrix)
            described.append(
                Cell(key, member.module.layer, _filter_word(member.module.group, partition), tuple(box.middle),
                     tuple(box.low), tuple(box.high), certified=True)
            )  # fmt: skip
        described.sort(key=lambda c: (c.layer is not None, c.layer or 0, c.key))
        return Recipe(
            "linear" if pair is None else "slerp", data.sources.names, data.sources.has_base, pair, partition,
            tuple(described), keys,
        )  # fmt: skip
    return None


def _filter_word(group: str, partition: str) -> str:
    return "" if partition == "constant" else group


def _rounded(data: Dataset, recipe: Recipe, boxes: dict[int, Box]) -> ExactRecipe:
    """Round numbers and arithmetic together: each cell's candidates in every arithmetic, on the samples."""
    tolerance = max(box.tolerance for box in boxes.values())
    variants = _variants(data, recipe)
    members: dict[tuple[str, ...], list[int]] = {}
    for i in boxes:
        members.setdefault(recipe.keys[data.measurements[i].name], []).append(i)
    candidates = {
        cell.key: _candidates(cell, [boxes[i] for i in members[cell.key]], recipe, tolerance, data)
        for cell in recipe.cells
    }
    # Coarse: one order an arithmetic. Fine: all orders of the arithmetics that are near the best.
    simple: dict[str, Variant] = {}
    for variant in variants:
        simple.setdefault(variant.arithmetic.name, variant)
    scores = {v: _evaluate(data, recipe, v, members, candidates) for v in simple.values()}
    best = max(share for share, _ in scores.values())
    near = {v.arithmetic.name for v, (share, _) in scores.items() if share >= best - 0.002}
    for variant in variants:
        if variant.arithmetic.name in near and variant not in scores:
            scores[variant] = _evaluate(data, recipe, variant, members, candidates)
    ranked = sorted(scores.items(), key=lambda item: -item[1][0])
    chosen = ranked[0][1][1]
    cells = tuple(
        replace(cell, parameters=chosen[cell.key], certified=tolerance == TOLERANCES[0]) for cell in recipe.cells
    )
    kept = tuple((v, share) for v, (share, _) in ranked if share >= ranked[0][1][0] - 0.002)
    return ExactRecipe(recipe.with_cells(cells), kept, frozenset(boxes), tolerance)


def _variants(data: Dataset, recipe: Recipe) -> list[Variant]:
    """Arithmetics with the orders of material sources that matter to them."""
    everything = tuple(range(len(data.sources.names)))
    material = recipe.material
    result = []
    for arithmetic in arithmetics_for(len(material), has_base=data.sources.has_base):
        if recipe.pair is not None and arithmetic.formula.order not in {"sum", "fused"}:
            continue
        order = arithmetic.formula.order
        if order == "fused" and len(material) <= 3:
            orders = [(*p, *(j for j in everything if j not in p)) for p in itertools.permutations(material)]
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


def _candidates(
    cell: Cell, boxes: Sequence[Box], recipe: Recipe, tolerance: float, data: Dataset
) -> list[tuple[float, ...]]:
    """Parameter vectors to try, the simplest first; the bounds' middle is always among them."""
    dtype = data.measurements[0].dtypes[0]
    rounders = [float]
    if tolerance > TOLERANCES[0]:
        lower = Lattice.of_dtype(dtype if dtype in {"BF16", "F16"} else "BF16")
        rounders = [lambda v: float(lower.round(np.array([v]))[0]), float]
    low_sum, high_sum = max(b.low_sum for b in boxes), min(b.high_sum for b in boxes)
    found: dict[tuple[float, ...], float] = {cell.parameters: 99.0}
    for rounder in rounders:
        choices = [simplest(low, high, rounder) for low, high in zip(cell.low, cell.high, strict=True)]
        for combination in itertools.islice(itertools.product(*(enumerate(c) for c in choices)), 20_000):
            values = tuple(float(v) for _, v in combination)
            total = sum(rounder(v) for v in values)
            if recipe.pair is None and not low_sum - 1e-6 <= total <= high_sum + 1e-6:
                continue
            digits = sum(_length(v) for v in values)
            if recipe.pair is None and abs(sum(values) - 1) < 1e-9:
                digits -= 1  # weights that sum to one need one number less
            found.setdefault(values, digits)
    return sorted(found, key=lambda v: found[v])[:_CANDIDATES]


def _length(value: float) -> float:
    """Digits needed to write the number."""
    text = f"{abs(value):.6f}".rstrip("0")
    decimals = len(text.split(".")[1])
    if decimals > 4:
        denominator = Fraction(value).limit_denominator(64).denominator
        return 4.5 if abs(float(Fraction(value).limit_denominator(64)) - value) < 1e-12 else 6 + denominator / 1e3
    return decimals


def _evaluate(
    data: Dataset,
    recipe: Recipe,
    variant: Variant,
    members: dict[tuple[str, ...], list[int]],
    candidates: dict[tuple[str, ...], list[tuple[float, ...]]],
) -> tuple[float, dict[tuple[str, ...], tuple[float, ...]]]:
    """Share of sampled elements reproduced with each cell's best candidate, and these candidates."""
    exact = total = 0
    chosen = {}
    for key, options in candidates.items():
        limit = max(500, _CELL_SAMPLE // len(members[key]))
        hits = np.zeros(len(options), np.int64)
        for i in members[key]:
            vectors, divisors = [], []
            for parameters in options:
                full = recipe.evaluate(parameters, data.measurements[i].moments)
                vector, divisor = scaled(full, variant.arithmetic.formula.order)
                vectors.append(vector[list(variant.order)])
                divisors.append(divisor)
            result = data.replay_sample(
                i, np.array(vectors), variant.arithmetic.formula, np.array(divisors), variant.order, limit
            )
            hits += result.exact
            total += int(result.total[0])
        best = int(hits.max())
        first = int(np.flatnonzero(hits >= best - max(1, int(2e-4 * best)))[0])
        chosen[key] = options[first]
        exact += int(hits[first])
    return exact / max(total, 1), chosen
