"""From measured tensors to evidence about the model: fit, find the recipe, replay it, turn it around, pool.

certified bounds -> exact recipe -> replay          where rounding alone separates suspect and prediction
least squares, interval fit -> consensus -> replay  where the merge was trained on
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset
from reconstruct.evidence import Controls, Estimate, ModelEvidence, TensorEvidence
from reconstruct.hypotheses.base import misfit
from reconstruct.hypotheses.pooled import fit_families
from reconstruct.hypotheses.slerp import LINEAR_BRANCH
from reconstruct.kernels.results import ReplayResult
from reconstruct.parallel import parallel
from reconstruct.pooling import limits, pool, pooled_bounds, sum_replays
from reconstruct.recipe import Cell, Recipe
from reconstruct.replay.arithmetic import ARITHMETICS
from reconstruct.replay.consensus import Consensus, search_consensus
from reconstruct.replay.lineage import lineage
from reconstruct.replay.model_replay import ModelReplay, replay_model, wrong_coefficients
from reconstruct.replay.orientation import MATERIAL, orientations, pools, starting_points
from reconstruct.replay.phases import model_phases, rounding_phase
from reconstruct.replay.samples import DELTA, decoy_values, replay_values
from reconstruct.replay.search import ExactRecipe, find_exact
from reconstruct.replay.variants import Variant
from reconstruct.statistics.agreement import Agreement, agreement
from reconstruct.statistics.mixture import decisive_spike, strata_spikes
from reconstruct.statistics.moments import affine, least_squares

__all__ = ["analyse"]

_EXACT_SHARE = 0.9  # of sampled elements: below, certified bounds describe another arithmetic or a chance fit
_BELIEVED = 5.0  # z from which the consensus is a better estimate than a regression
_CURVE_SAMPLE = 400_000  # elements of the whole model


@dataclass(frozen=True)
class _Found:
    """The coefficients to replay, and where they come from."""

    exact: ExactRecipe | None
    consensus: Consensus | None
    null: Consensus | None
    halves: float | None
    recipe: Recipe


def analyse(data: Dataset, progress: Callable[[int], None] | None = None) -> ModelEvidence:
    """All evidence. Reads weights only through `data.full`; deterministic for given measurements."""
    found = _find(data)
    replayed = _replay(data, found, progress)
    best, tied = replayed[0], [r for r in replayed if r.exact == replayed[0].exact]
    tensors = tuple(_tensor(data, i, best) for i in range(len(data.measurements)))
    voting = data.voting
    estimate = _estimate(data, found)
    votes = [tensors[i] for i in voting]
    total = sum_replays(t.replay for t in votes)
    smooth = sum_replays(t.replay for t in votes if t.measurement.smooth_lattice)
    matrices = [t for t in tensors if t.measurement.is_matrix] or list(tensors)
    exact = found.exact is not None
    block_weights = [_block_weights(data, i) for i in voting]
    return ModelEvidence(
        sources=data.sources,
        tensors=tensors,
        voting=tuple(voting),
        layers=pool(matrices, lambda t: (t.measurement.module.layer_label, None), exact=exact),
        kinds=pool(matrices, lambda t: (None, t.measurement.module.kind), exact=exact),
        cells=pool(matrices, lambda t: (t.measurement.module.layer_label, t.measurement.module.kind), exact=exact),
        estimate=estimate,
        recipe=_named(data, found.recipe, best.variant) if found.exact else found.recipe,
        arithmetic=best.variant.arithmetic.name if exact else None,
        programs=tuple(dict.fromkeys(r.variant.arithmetic.program for r in tied)) if exact else (),
        families=_families(data, found, tied),
        family_fits=fit_families(
            [data.measurements[i].moments for i in voting],
            data.sources.names,
            data.families,
            has_base=data.sources.has_base,
        )
        if len(data.sources.names) > 1
        else (),
        replay=total,
        strata=tuple(strata_spikes(smooth.steps[0])),
        spike=decisive_spike(smooth.steps[0]),
        phases=model_phases([t.measurement for t in votes], [t.coefficients for t in votes]),
        rounding=rounding_phase([t.measurement for t in votes], [t.coefficients for t in votes]),
        overlap=_overlap(data, estimate),
        box=_mean([data.fits[i].box for i in voting]),
        controls=_controls(data, found, tensors),
        agreement=_agreement(data, block_weights),
        block_agreement=_block_agreement(data, block_weights),
        orientations=orientations(
            data,
            [t.coefficients for t in tensors],
            exact=_replays(total) and not _outside(estimate),
            search=_worth_turning(data, found, estimate),
        ),
        lineage=tuple(
            parallel(
                lambda j: lineage([data.measurements[i] for i in voting], j),
                range(len(data.sources.names)),
                data.threads,
            )
        ),
        curve=_curve(data, found),
        exhaustive=data.full is not None,
        notes=_notes(data),
    )


def _find(data: Dataset) -> _Found:
    """The exact recipe if there is one, else the consensus of untouched elements, else the median fit."""
    exact = find_exact(data) if data.voting else None
    if exact is not None and (exact.share_of(data.voting) >= _EXACT_SHARE or data.all_fine):
        return _Found(exact, None, None, None, exact.recipe)
    if not data.voting or len(data.sources.names) < 2:
        return _Found(None, None, None, None, _constant(data, np.zeros(len(data.sources.names) - 1)))
    centres = starting_points(data)
    consensus = search_consensus(pools(data, data.voting), centres, data.kernels, threads=data.threads)
    null = search_consensus(pools(data, data.voting, decoy=data.seed + 1), centres, data.kernels, threads=data.threads)
    believed = consensus is not None and consensus.spike.z >= _BELIEVED
    weights = consensus.weights if consensus is not None and believed else centres[0]
    halves = None
    if believed and len(data.voting) >= 2:
        pair = [
            search_consensus(pools(data, data.voting[k::2]), [weights], data.kernels, threads=data.threads)
            for k in (0, 1)
        ]
        if pair[0] is not None and pair[1] is not None:
            halves = float(np.abs(pair[0].weights - pair[1].weights).max())
    return _Found(None, consensus, null, halves, _constant(data, weights))


def _constant(data: Dataset, weights: NDArray[np.float64]) -> Recipe:
    parameters = tuple(weights.tolist())
    cell = Cell((), None, "", parameters, parameters, parameters, certified=False)
    keys: dict[str, tuple[str, ...]] = {m.name: () for m in data.measurements}
    return Recipe("linear", data.sources.names, data.sources.has_base, None, "constant", (cell,), keys)


def _replay(data: Dataset, found: _Found, progress: Callable[[int], None] | None) -> list[ModelReplay]:
    """Over every element; where several arithmetics reproduce the samples equally well, in each. Best first."""
    if found.exact is None:
        plain = next(a for a in ARITHMETICS if a.formula == DELTA)
        variants = [Variant(plain, tuple(range(len(data.sources.names))))]
    else:
        variants = found.exact.tied
    coefficients = [found.recipe.coefficients(m.name, m.moments) for m in data.measurements]
    scales = [found.recipe.scale(m.name) for m in data.measurements]
    replayed = [replay_model(data, coefficients, variant, progress, scales) for variant in variants]
    return sorted(replayed, key=lambda r: -r.exact)


def _tensor(data: Dataset, position: int, replayed: ModelReplay) -> TensorEvidence:
    m, fit = data.measurements[position], data.fits[position]
    result, chosen = replayed.results[position], replayed.coefficients[position]
    wrong = max(misfit(m.moments, c) for c in wrong_coefficients(chosen)) if len(chosen) > 1 else 0.0
    return TensorEvidence(
        m, fit, chosen, result, replayed.decoys[position],
        float(np.sqrt(misfit(m.moments, chosen))), float(np.sqrt(m.moments.rounding_energy / max(m.elements, 1))),
        float(np.sqrt(wrong)), decisive_spike(result.steps[0] if m.smooth_lattice else np.zeros_like(result.steps[0])),
    )  # fmt: skip


def _estimate(data: Dataset, found: _Found) -> Estimate:
    voting = data.voting or list(range(len(data.measurements)))
    fits = [data.fits[i] for i in voting]
    pooled = least_squares(
        np.asarray(sum(data.measurements[i].moments.gram for i in voting)),
        sum(data.measurements[i].elements for i in voting),
    )
    shared = {
        "least_squares": np.median([affine(f.least_squares.weights) for f in fits], axis=0),
        "sum_to_one": np.median([affine(f.least_squares.sum_to_one) for f in fits], axis=0),
        "explained": pooled.explained,
        "collinear": pooled.collinear,
    }
    if found.exact is not None:
        used = [found.recipe.coefficients(m.name, m.moments) for m in (data.measurements[i] for i in voting)]
        coefficients = np.median(used, axis=0)
        bounds = pooled_bounds([fits[k].affine for k, i in enumerate(voting) if i in found.exact.certified])
        low, high = bounds if bounds is not None else (np.min(used, axis=0), np.max(used, axis=0))
        return Estimate(coefficients, low, high, "certified", **shared)  # type: ignore[arg-type]
    if found.consensus is not None and found.consensus.spike.z >= _BELIEVED:
        coefficients = affine(found.consensus.weights)
        half = max(found.halves or 0.0, 0.002)
        return Estimate(coefficients, coefficients - half, coefficients + half, "consensus", **shared)  # type: ignore[arg-type]
    fitted = [affine(f.interval) for f in fits]
    low, high = limits(fitted)
    return Estimate(np.median(fitted, axis=0), low, high, "regression", **shared)  # type: ignore[arg-type]


def _replays(total: ReplayResult) -> bool:
    """Whether practically every bit is reproduced: then the other orientations follow by solving one equation."""
    return bool(total.total[0]) and float(total.exact[0]) / float(total.total[0]) >= 0.999


def _overlap(data: Dataset, estimate: Estimate) -> float:
    """Largest |cosine| between the movements (from the base) of two material parents; 1 if there is one direction."""
    moved = [j for j in range(1, len(data.sources.names)) if abs(estimate.coefficients[j]) >= MATERIAL]
    if not data.voting or not data.sources.has_base or len(moved) < 2:
        return 1.0
    gram = np.asarray(sum(data.measurements[i].moments.gram for i in data.voting))[np.ix_(moved, moved)]
    size = np.sqrt(np.diag(gram))
    cosines = np.abs(gram / np.outer(size, size))
    return float(cosines[~np.eye(len(moved), dtype=bool)].max())


def _worth_turning(data: Dataset, found: _Found, estimate: Estimate) -> bool:
    """Whether another model may be the product: a spike, a full rounding box, or coefficients outside [0, 1]."""
    if found.exact is not None or (found.consensus is not None and found.consensus.spike.z >= _BELIEVED):
        return True
    return _outside(estimate) or _mean([data.fits[i].box for i in data.voting]) >= 0.99


def _outside(estimate: Estimate) -> bool:
    """Whether a coefficient lies outside [0, 1]: a product has shares of its sources, not a source of its product."""
    seen = np.concatenate([estimate.coefficients, estimate.least_squares, estimate.sum_to_one])
    return bool(seen.min() < -0.05 or seen.max() > 1.05)


def _named(data: Dataset, recipe: Recipe, variant: Variant) -> Recipe:
    """The recipe with what the arithmetic says of the program: family, working and output dtype, order of models."""
    family = recipe.hypothesis
    if recipe.pair is None and data.sources.has_base and variant.arithmetic.family == "task_arithmetic":
        family = "task_arithmetic"
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    stored = [m.dtypes[0] for m in data.measurements if m.is_matrix] or [m.dtypes[0] for m in data.measurements]
    storage = names.get(max(set(stored), key=stored.count))
    same = all(d == m.dtypes[0] for m in data.measurements for d in m.dtypes[1:])
    working = variant.arithmetic.dtype or "float32"
    if working == "storage":
        working = storage if storage and same else "float32"
    return replace(recipe, hypothesis=family, dtype=working, out_dtype=storage, order=variant.order)


def _families(data: Dataset, found: _Found, tied: list[ModelReplay]) -> tuple[str, ...]:
    """Merge families that these weights cannot tell apart."""
    if found.exact is None:
        return ()
    recipe = found.recipe
    if recipe.pair is not None:
        return ("slerp",)
    families = {r.variant.arithmetic.family for r in tied}
    if not data.sources.has_base:
        families = {"linear"}
    sources = recipe.material
    if len(sources) == 2:
        first, second = sources
        if all(abs(data.measurements[i].moments.cosine(first, second)) > LINEAR_BRANCH for i in data.voting):
            families.add("slerp")
    return tuple(sorted(families & {*data.families} or families))


def _controls(data: Dataset, found: _Found, tensors: tuple[TensorEvidence, ...]) -> Controls:
    voting = data.voting
    rates = [0.0]
    wrong = sum_replays(tensors[i].decoy for i in voting)
    if wrong.novel[0]:
        rates.append(float(wrong.novel_exact[0] / wrong.novel[0]))
    if len(data.sources.names) > 1:

        def moved_away(i: int) -> ReplayResult:
            m = data.measurements[i]
            values = decoy_values(m, data.seed + 1)
            return replay_values(values, m.lattice.lattice, data.kernels, tensors[i].coefficients[None])

        moved = sum_replays(parallel(moved_away, voting, data.threads))
        if moved.novel[0]:
            rates.append(float(moved.novel_exact[0] / moved.novel[0]))
    return Controls(
        max(rates),
        _mean([data.fits[i].decoy_explained for i in voting]),
        _mean([data.fits[i].decoy_box for i in voting]),
        found.null.spike.z if found.null is not None else 0.0,
        found.halves,
    )


def _agreement(data: Dataset, block_weights: list[NDArray[np.float64]]) -> tuple[Agreement, ...]:
    """Over tensors, one a delta: interval fits, with the scatter between blocks of each tensor as their error."""
    fits = [data.fits[i] for i in data.voting]
    result = []
    for j in range(len(data.sources.names) - 1):
        estimates = np.array([f.interval[j] for f in fits])
        result.append(agreement(estimates, np.array([_block_error(weights[:, j]) for weights in block_weights])))
    return tuple(result)


def _block_weights(data: Dataset, position: int) -> NDArray[np.float64]:
    """Least-squares weights of every block of one tensor, float64 [B, K]."""
    m = data.measurements[position]
    size = max(m.elements // max(len(m.moments.blocks), 1), 1)
    return np.array([least_squares(block, size).weights for block in m.moments.blocks])


def _block_error(weights: NDArray[np.float64]) -> float:
    if len(weights) < 2:
        return float("nan")
    # Least squares is biased by rounding, by up to a few thousandths between blocks and tensors.
    return float(np.hypot(weights.std(ddof=1) / np.sqrt(len(weights)), 0.002))


def _block_agreement(data: Dataset, block_weights: list[NDArray[np.float64]]) -> tuple[float, ...]:
    """Median over tensors of the scatter between blocks, one a delta; NaN where no tensor has two blocks."""
    count = len(data.sources.names) - 1
    several = [weights for weights in block_weights if len(weights) > 1]
    if not several:
        return (float("nan"),) * count if block_weights else ()
    return tuple(np.median([weights.std(axis=0, ddof=1) for weights in several], axis=0).tolist())


def _curve(data: Dataset, found: _Found) -> tuple[tuple[float, float, float], ...]:
    """(coefficient, share reproduced, untouched share) of decisive elements as the largest parent's weight moves."""
    voting = data.voting
    if not voting or len(data.sources.names) < 2:
        return ()
    weights = np.median([found.recipe.coefficients(m.name, m.moments)[1:]
                         for m in (data.measurements[i] for i in voting)], axis=0)  # fmt: skip
    moved = int(np.argmax(np.abs(weights)))
    offsets = np.unique(np.concatenate([np.arange(-0.1, 0.1001, 0.01), np.arange(-0.01, 0.01001, 0.001)]).round(6))
    vectors = np.repeat(weights[None], len(offsets), axis=0)
    vectors[:, moved] += offsets
    coefficients = affine(vectors)
    used = [i for i in voting if data.measurements[i].smooth_lattice]
    if not used:
        return ()
    informative = sum(data.measurements[i].informative for i in used)
    total = ReplayResult.empty(len(vectors))
    for i in used:  # by the size of the tensors, so that the shares are those of the whole model
        limit = max(64, _CURVE_SAMPLE * data.measurements[i].informative // max(informative, 1))
        total = total + data.replay_sample(i, coefficients, DELTA, limit=limit)
    spikes = [decisive_spike(steps) for steps in total.steps]
    return tuple(
        (float(v[moved]), s.hit_rate, s.untouched if s.count >= 100 else float("nan"))
        for v, s in zip(vectors, spikes, strict=True)
    )


def _notes(data: Dataset) -> tuple[str, ...]:
    notes = []
    if not data.sources.has_base:
        notes.append(
            "No base given: the first parent serves as pivot, so a share of an unnamed base cannot be seen and a "
            "fine-tune of one parent cannot be told from its neighbours as well."
        )
    notes += [f"{twin} holds the same weights as {kept} and is set aside." for twin, kept in data.sources.duplicates]
    irregular = sum(1 for m in data.measurements if m.is_matrix and not m.lattice.regular)
    if irregular:
        notes.append(
            f"{irregular} matrices use a lattice with gaps (a scaled format or few distinct values): only replays to "
            "the bit count there, not the share of untouched elements."
        )
    coarse = sum(1 for m in data.measurements if m.is_matrix and m.lattice.coarser)
    if coarse:
        notes.append(
            f"{coarse} matrices use a coarser lattice than their dtype; all spacings are those of the lattice."
        )
    return tuple(notes)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
