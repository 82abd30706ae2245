"""From certified bounds to a recipe: which tensors share parameters, which round numbers, in which arithmetic.

Bounds of tensors that share a recipe are intersected; the simplest partition of the model in which every cell has a
point is taken. In each cell the simplest numbers inside the bounds are replayed on the samples in every named
arithmetic; what reproduces most elements is the recipe.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset
from reconstruct.fitting import best_certificate, rows_for, thinned
from reconstruct.hypotheses.slerp import LINEAR_BRANCH
from reconstruct.kernels.exact_hits import exact_hits
from reconstruct.kernels.lattice import Lattice
from reconstruct.parallel import parallel
from reconstruct.recipe import PARTITIONS, Cell, Recipe, partition_key
from reconstruct.replay.gradients import on_gradients
from reconstruct.replay.last_bits import with_last_bits
from reconstruct.replay.scales import with_scales
from reconstruct.replay.variants import NORMALISING, Variant, in_program_form, variants_of
from reconstruct.statistics.rounding import Box, certify
from reconstruct.statistics.simple_numbers import decimals_between, is_small_fraction, simplest

__all__ = ["ExactRecipe", "find_exact"]

_CANDIDATES = 16
_CELL_SAMPLE = 20_000
_LEAST_ROWS = 8  # informative elements that bound the parameters of a norm or a bias
_TIE_SAMPLE = 2_000_000
_COSINE_REACH = 1e-6  # by which an error of a float32 cosine may move t
_SCALED = 6  # orders of an arithmetic, the best ones, that are tried with sums of weights
_TIED = 3  # arithmetics that reproduce the samples equally well and are replayed over every element


@dataclass(frozen=True)
class ExactRecipe:
    """A recipe from certified bounds; `variants` reproduce the samples best, the best first, with their shares;
    `certified`: voting tensors whose bounds agree with it.
    """

    recipe: Recipe
    variants: tuple[tuple[Variant, float], ...]
    certified: frozenset[int]
    tolerance: int

    @property
    def tied(self) -> list[Variant]:
        """The variants that reproduce the samples as well as the best: to be replayed over every element."""
        best = self.variants[0][1]
        return [v for v, share in self.variants if share >= best - 1e-6][:_TIED]

    def share_of(self, voting: Sequence[int]) -> float:
        """Share of the voting tensors' samples that the best variant reproduces; tensors without bounds count 0."""
        return self.variants[0][1] * len(self.certified) / len(voting)


def find_exact(data: Dataset) -> ExactRecipe | None:
    """The recipe that certified bounds allow in at least half of the voting tensors and that replays best, or None.

    Bounds at several tolerances may be feasible (a bfloat16 merge leaves some tensors inside the float32 bounds by
    chance), and slerp beside affine ones: every such option is replayed on the samples, and that decides.
    """
    voting = data.voting
    needed = max(1, -(-len(voting) // 2))
    found: list[tuple[float, ExactRecipe]] = []
    for pair, boxes in _options(data):
        if len(boxes) < needed:
            continue
        recipe = _partitioned(data, pair, boxes)
        if recipe is None:
            continue
        exact = _rounded(data, *_with_vectors(data, recipe, boxes))
        found.append((exact.variants[0][1] * len(boxes) / len(voting), exact))
        if found[-1][0] == 1.0:
            break
    return max(found, key=lambda item: item[0], default=(0.0, None))[1]


def _options(data: Dataset) -> Iterator[tuple[tuple[int, int] | None, dict[int, Box]]]:
    """Sets of bounds that may belong to one recipe: affine at each tolerance that occurs, slerp of each pair."""
    affine = {i: box for i in data.voting if (box := data.fits[i].affine) is not None}
    for tolerance in sorted({box.tolerance for box in affine.values()}):
        yield None, _at_tolerance(data, affine, tolerance)
    for pair in itertools.combinations(range(len(data.sources.names)), 2):
        if any(pair in data.fits[i].slerp for i in data.voting):
            yield pair, {i: box for i in data.voting if (box := _slerp_box(data, i, pair)) is not None}


def _slerp_box(data: Dataset, position: int, pair: tuple[int, int]) -> Box | None:
    """Bounds of t in one tensor; in slerp's linear branch they are those of the second source's weight."""
    fit, measurement = data.fits[position], data.measurements[position]
    bounds = fit.slerp.get(pair)
    if bounds is not None:
        return Box(np.array(bounds[:1]), np.array(bounds[1:]), bounds[0], bounds[1], 0)
    box = _affine_box(data, position)
    if box is None or abs(measurement.moments.cosine(*pair)) <= LINEAR_BRANCH:
        return None
    others = [j for j in range(len(box.low)) if j + 1 not in pair]
    lies = all(box.low[j] <= 1e-4 and box.high[j] >= -1e-4 for j in others)
    total = box.low_sum <= 1 + 1e-4 and box.high_sum >= 1 - 1e-4
    if not lies or not (total or 0 in pair):
        return None
    low, high = float(box.low[pair[1] - 1]), float(box.high[pair[1] - 1])
    return Box(np.array([low]), np.array([high]), low, high, box.tolerance)


def _affine_box(data: Dataset, position: int) -> Box | None:
    """Bounds of one tensor's weights. One too small to testify has none among its fits, but here they only choose
    its own numbers.
    """
    fit, measurement = data.fits[position], data.measurements[position]
    few = measurement.values.shape[1]
    if fit.affine is not None or measurement.votes or few < max(_LEAST_ROWS, 4 * len(fit.interval)):
        return fit.affine
    return best_certificate(rows_for(measurement), fit.interval)


def _at_tolerance(data: Dataset, boxes: dict[int, Box], tolerance: int) -> dict[int, Box]:
    """Bounds of the tensors that are feasible at this tolerance; those that a finer one sufficed for are widened."""
    feasible = {i: box for i, box in boxes.items() if box.tolerance <= tolerance}
    finer = [i for i, box in feasible.items() if box.tolerance < tolerance]
    again = parallel(
        lambda i: certify(rows_for(data.measurements[i]), tolerance, data.fits[i].interval), finer, data.threads
    )
    return feasible | {i: box for i, box in zip(finer, again, strict=True) if box is not None}


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
        return Recipe(
            "linear" if pair is None else "slerp", data.sources.names, data.sources.has_base, pair, partition,
            _cells(data, keys, cells, partition), keys,
        )  # fmt: skip
    return None


def _cells(
    data: Dataset, keys: dict[str, tuple[str, ...]], boxes: dict[tuple[str, ...], Box], partition: str
) -> tuple[Cell, ...]:
    """Cells with the middle of their bounds as parameters, those outside the blocks first, then by layer."""
    members = {keys[m.name]: m.module for m in reversed(data.measurements)}
    cells = [
        Cell(key, members[key].layer, "" if partition == "constant" else members[key].group, tuple(box.middle.tolist()),
             tuple(box.low.tolist()), tuple(box.high.tolist()), certified=True)
        for key, box in boxes.items()
    ]  # fmt: skip
    return tuple(sorted(cells, key=lambda c: (c.layer is not None, c.layer or 0, c.key)))


def _with_vectors(data: Dataset, recipe: Recipe, boxes: dict[int, Box]) -> tuple[Recipe, dict[int, Box]]:
    """Cells for tensors that do not vote (norms, biases) where no voting tensor shares their parameters."""
    known = {cell.key for cell in recipe.cells}
    extra: dict[int, Box] = {}
    for i, measurement in enumerate(data.measurements):
        if recipe.keys[measurement.name] not in known and i not in boxes:
            box = _affine_box(data, i) if recipe.pair is None else _slerp_box(data, i, recipe.pair)
            if box is not None:
                extra[i] = box
    if recipe.pair is None:
        extra = _at_tolerance(data, extra, max(box.tolerance for box in boxes.values()))
    found: dict[tuple[str, ...], Box] = {}
    members: dict[int, Box] = {}
    for i, box in extra.items():
        key = recipe.keys[data.measurements[i].name]
        common = found[key].intersect(box) if key in found else box
        if not common.empty:
            found[key], members[i] = common, box
    cells = {cell.key: cell for cell in (*recipe.cells, *_cells(data, recipe.keys, found, recipe.partition))}
    ordered = sorted(cells.values(), key=lambda c: (c.layer is not None, c.layer or 0, c.key))
    return recipe.with_cells(tuple(ordered)), boxes | members


def _rounded(data: Dataset, recipe: Recipe, boxes: dict[int, Box]) -> ExactRecipe:
    """Round numbers and arithmetic together: each cell's candidates in every arithmetic, on the samples."""
    tolerance = max(box.tolerance for box in boxes.values())
    variants = variants_of(data, recipe)
    members: dict[tuple[str, ...], list[int]] = {}
    for i in boxes:
        members.setdefault(recipe.keys[data.measurements[i].name], []).append(i)
    candidates = {
        cell.key: _candidates(cell, [boxes[i] for i in members[cell.key]], recipe, tolerance, data)
        for cell in recipe.cells
    }
    if tolerance == 0 and recipe.partition in {"layer", "layer and filter"}:
        for key, parameters in on_gradients(recipe.cells, by_group=recipe.partition != "layer").items():
            candidates[key].insert(0, parameters)
    # Coarse: one order an arithmetic. Fine: all orders of the arithmetics that are near the best.
    simple: dict[str, Variant] = {}
    for variant in variants:
        simple.setdefault(variant.arithmetic.name, variant)
    scores = {v: _evaluate(data, recipe, v, members, candidates) for v in simple.values()}
    best = max(share for share, _ in scores.values())
    # In float32 storage the order alone moves last bits: while nothing replays, every order of everything is tried.
    near = {v.arithmetic.name for v, (share, _) in scores.items() if share >= best - 0.002 or best < 0.999}
    for variant in variants:
        if variant.arithmetic.name in near and variant not in scores:
            scores[variant] = _evaluate(data, recipe, variant, members, candidates)
    ranked = sorted(scores.items(), key=lambda item: -item[1][0])
    ranked = _narrowed(data, recipe, ranked, members)
    chosen = ranked[0][1][1]
    cells = tuple(replace(cell, parameters=chosen[cell.key], certified=True) for cell in recipe.cells)
    kept = tuple((v, share) for v, (share, _) in ranked if share >= ranked[0][1][0] - 0.002)
    chosen_recipe, voting = recipe.with_cells(cells), frozenset(boxes) & {*data.voting}
    if recipe.pair is None:
        chosen_recipe, kept = _scaled(data, chosen_recipe, ranked, kept, members, candidates)
    if recipe.pair is not None and data.all_fine:
        # The program's own error in the cosine moves t by less than this: the round number beside it is meant.
        meant = tuple(replace(cell, parameters=(_beside(cell.parameters[0]),)) for cell in chosen_recipe.cells)
        chosen_recipe = chosen_recipe.with_cells(meant)
        chosen_recipe, variant, share = with_last_bits(data, chosen_recipe, [v for v, _ in kept[:3]])
        kept = ((variant, share),)
    elif recipe.pair is not None and kept[0][1] < 1.0 and not data.all_coarse:
        # In float16 that error shows in an element of a thousand.
        finer, variant, share = with_last_bits(data, chosen_recipe, [v for v, _ in kept[:3]])
        if share > kept[0][1]:
            chosen_recipe, kept = finer, ((variant, share),)
    return ExactRecipe(chosen_recipe, kept, voting, tolerance)


def _beside(t: float) -> float:
    return next(decimals_between(t - _COSINE_REACH, t + _COSINE_REACH, digits=4, limit=1), t)


_Scored = tuple[Variant, tuple[float, dict[tuple[str, ...], tuple[float, ...]]]]


def _scaled(
    data: Dataset,
    recipe: Recipe,
    ranked: list[_Scored],
    kept: tuple[tuple[Variant, float], ...],
    members: dict[tuple[str, ...], list[int]],
    candidates: dict[tuple[str, ...], list[tuple[float, ...]]],
) -> tuple[Recipe, tuple[tuple[Variant, float], ...]]:
    """Recipe and variants with the sums that weights were divided by. Ties between two numbers are frequent with simple
    coefficients: another arithmetic may seem to be the better one until that sum is known.
    """
    best = kept[0][1]
    tried: Counter[str] = Counter()
    for variant, (share, found) in ranked:
        first = variant == ranked[0][0]
        name, order = variant.arithmetic.name, variant.arithmetic.formula.order
        worth = first or (best < 1.0 and share >= best - 0.03 and tried[name] < _SCALED)
        if order not in NORMALISING or not worth:
            continue
        tried[name] += 1
        cells = tuple(replace(cell, parameters=found[cell.key], certified=True) for cell in recipe.cells)
        scaled, reached = with_scales(data, recipe.with_cells(cells), variant, members, candidates)
        if scaled.scales is not None and (reached > best or (first and reached == best)):
            recipe, best = scaled, reached
            # Variants that reproduce as much without a sum are told apart over every element, as before.
            kept = kept if first and reached == kept[0][1] else ((variant, reached),)
    return recipe, kept


def _narrowed(
    data: Dataset, recipe: Recipe, ranked: list[_Scored], members: dict[tuple[str, ...], list[int]]
) -> list[_Scored]:
    """Arithmetics that tie on a few thousand elements differ in one of ten thousand: look again at a hundred times
    as many, with the parameters found, before every element is read.
    """
    best = ranked[0][1][0]
    tied = [item for item in ranked if item[1][0] >= best - 2e-3]
    if len(tied) < 2:
        return ranked
    again = []
    for variant, (_, chosen) in tied:
        options = {key: [parameters] for key, parameters in chosen.items()}
        again.append((variant, _evaluate(data, recipe, variant, members, options, _TIE_SAMPLE)))
    return sorted(again, key=lambda item: -item[1][0])


def _candidates(
    cell: Cell, boxes: Sequence[Box], recipe: Recipe, tolerance: int, data: Dataset
) -> list[tuple[float, ...]]:
    """Parameter vectors to try, the simplest first; the bounds' middle is always among them."""
    dtype = data.measurements[0].dtypes[0]
    rounders: list[Callable[[float], float]] = [float]
    if tolerance > 0:
        lower = Lattice.of_dtype(dtype if dtype in {"BF16", "F16"} else "BF16")
        rounders = [lambda v: float(lower.round(np.array([v]))[0]), float]
    low_sum, high_sum = max(b.low_sum for b in boxes), min(b.high_sum for b in boxes)
    found: dict[tuple[float, ...], float] = {cell.parameters: 99.0}  # the middle last, unless it is simple
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
            found[values] = min(found.get(values, digits), digits)
    return sorted(found, key=lambda v: found[v])[:_CANDIDATES]


def _length(value: float) -> float:
    """Decimals needed to write the number; a fraction with a small denominator counts as four and a half."""
    for decimals in range(7):
        if abs(value - round(value, decimals)) < 1e-12:
            return decimals if decimals <= 4 or not is_small_fraction(value) else 4.5
    return 4.5 if is_small_fraction(value) else 99.0


def _evaluate(
    data: Dataset,
    recipe: Recipe,
    variant: Variant,
    members: dict[tuple[str, ...], list[int]],
    candidates: dict[tuple[str, ...], list[tuple[float, ...]]],
    sample: int = _CELL_SAMPLE,
) -> tuple[float, dict[tuple[str, ...], tuple[float, ...]]]:
    """Share of sampled elements reproduced with each cell's best candidate, and these candidates."""
    formula, order = variant.arithmetic.formula, variant.order

    def hits_in(position: int, options: Sequence[tuple[float, ...]], limit: int) -> tuple[NDArray[np.int64], int]:
        m = data.measurements[position]
        forms = [in_program_form(recipe.evaluate(parameters, m.moments), variant) for parameters in options]
        vectors, divisors = np.array([v for v, _ in forms]), np.array([d for _, d in forms])
        values = thinned(m.values, limit)
        return exact_hits(values, m.lattice.lattice, vectors, divisors, formula, order), values.shape[1]

    exact = total = 0
    chosen = {}
    for key, options in candidates.items():
        limit = max(500, sample // len(members[key]))
        # A few hundred elements are counted before a second thread has begun.
        threads = data.threads if limit > 5000 else 1
        found = parallel(functools.partial(hits_in, options=options, limit=limit), members[key], threads)
        hits = np.sum([counts for counts, _ in found], axis=0)
        total += sum(size for _, size in found)
        best = int(hits.max())
        first = int(np.flatnonzero(hits >= best - max(1, int(2e-4 * best)))[0])
        chosen[key] = options[first]
        exact += int(hits[first])
    return exact / max(total, 1), chosen
