"""Who is whose child? Every model at hand is replayed from the others; the arrow of time is in the rounding.

A parent fits its own child's plane as well as the child does: S = .565 A + .435 B gives A = 1.77 S - .77 B with an R^2
of .997. But only the child was rounded last, so only in one orientation does a replay reach every bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset
from reconstruct.evidence import SUSPECT, Measurement, OrientationEvidence
from reconstruct.fitting import thinned, with_roles
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.results import ReplayResult
from reconstruct.replay.consensus import Pool, search_consensus
from reconstruct.replay.phases import model_phases
from reconstruct.replay.samples import decoy_values, replay_values
from reconstruct.replay.search import find_exact
from reconstruct.replay.variants import in_program_form
from reconstruct.statistics.mixture import decisive_spike, strata_spikes
from reconstruct.statistics.moments import affine

__all__ = ["MATERIAL", "material", "orientations", "pools", "starting_points"]

#: Smallest coefficient, in size, that makes a source material.
MATERIAL = 0.05
#: A weighted sum in float64: free of any program's own rounding.
SUM = Formula("sum", "float64")
_SAMPLE = 16384  # elements of a tensor
_EXACT = 0.98  # share of sampled elements from which certified bounds are taken as the answer


def material(coefficients: NDArray[np.float64], threshold: float = MATERIAL) -> list[int]:
    """Sources with a coefficient that matters."""
    return [int(j) for j in np.flatnonzero(np.abs(coefficients) >= threshold)]


def pools(data: Dataset, positions: list[int], decoy: int | None = None) -> list[Pool]:
    """Samples of these tensors by lattice, those on lattices with gaps left out; with `decoy`, a seed, the deltas are
    moved to wrong places.
    """
    by_lattice: dict[object, list[NDArray[np.float32]]] = {}
    for i in positions:
        m = data.measurements[i]
        if m.values.shape[1] and m.smooth_lattice:
            values = m.values if decoy is None else decoy_values(m, decoy)
            by_lattice.setdefault(m.lattice.lattice, []).append(values)
    return [Pool(np.concatenate(parts, axis=1), lattice) for lattice, parts in by_lattice.items()]  # type: ignore[arg-type]


def starting_points(data: Dataset) -> list[NDArray[np.float64]]:
    """Where a search begins: medians over tensors of the fits, each with its own bias."""
    fits = [data.fits[i] for i in data.voting]
    return [
        np.median([f.interval for f in fits], axis=0),
        np.median([f.least_squares.weights for f in fits], axis=0),
        np.median([f.least_squares.sum_to_one for f in fits], axis=0),
    ]


def orientations(
    data: Dataset, coefficients: Sequence[NDArray[np.float64]], *, exact: bool, search: bool
) -> tuple[OrientationEvidence, ...]:
    """The suspect and every material source in the suspect's place, the suspect first, all on equal terms.

    `coefficients`: those found for every tensor of `data`, [K+1] each. `exact`: they reproduce the suspect; then the
    equation solved for each source is replayed. Else, if `search`, each orientation is searched as the suspect's was.
    """
    if not data.voting or len(data.sources.names) < 2:
        return ()
    middle = np.median([coefficients[i] for i in data.voting], axis=0)
    count = len(data.sources.names)
    found: list[OrientationEvidence | None] = []
    for model in [0, *(1 + source for source in material(middle))] if exact or search else []:
        others = [m for m in range(count + 1) if m != model]
        if data.sources.has_base and model > 1:
            others.remove(1)
            others.insert(0, 1)
        roles = (model, *others)
        found.append(_solved(data, roles, coefficients) if exact else _searched(data, roles))
    return tuple(item for item in found if item is not None)


def _solved(
    data: Dataset, roles: tuple[int, ...], coefficients: Sequence[NDArray[np.float64]]
) -> OrientationEvidence | None:
    """s = sum c_j x_j, solved for the model in the suspect's place and replayed on samples."""
    total, used, boxes, seen = ReplayResult.empty(1), [], [], []
    target = roles[0]
    for i in data.voting:
        if target and abs(coefficients[i][target - 1]) < MATERIAL:
            continue
        equation = np.concatenate([[-1.0], coefficients[i]])  # over all models: sums to nothing
        vector = np.array([-equation[m] / equation[target] for m in roles[1:]])
        turned = with_roles(data.measurements[i], roles, _SAMPLE) if target else data.measurements[i]
        used.append(vector)
        values = thinned(turned.values, _SAMPLE)
        part = replay_values(values, turned.lattice.lattice, data.kernels, vector[None], SUM)
        total = total + part
        boxes.append(float(part.inside_box[0]) / max(int(part.total[0]), 1))
        seen.append(turned)
    return _evidence(data, roles, used, total, boxes, seen) if used else None


def _searched(data: Dataset, roles: tuple[int, ...]) -> OrientationEvidence | None:
    turned = data.reoriented(roles, sample=_SAMPLE)
    if not turned.voting:
        return None
    exact = find_exact(turned)
    total, shares = ReplayResult.empty(1), []
    share = exact.share_of(turned.voting) if exact else 0.0
    if exact is not None and share >= _EXACT:
        variant = exact.variants[0][0]
        for i in turned.voting:
            m = turned.measurements[i]
            shares.append(exact.recipe.coefficients(m.name, m.moments))
            vector, divisor = in_program_form(shares[-1], variant)
            total = total + turned.replay_sample(
                i, vector[None], variant.arithmetic.formula, np.array([divisor]), variant.order
            )
    else:
        consensus = search_consensus(
            pools(turned, turned.voting), starting_points(turned), data.kernels, threads=data.threads
        )
        weights = consensus.weights if consensus is not None else starting_points(turned)[0]
        total = consensus.replay if consensus is not None else total
        shares = [affine(weights)] * len(turned.voting)
    seen = [turned.measurements[i] for i in turned.voting]
    return _evidence(data, roles, shares, total, [turned.fits[i].box for i in turned.voting], seen)


def _evidence(
    data: Dataset,
    roles: tuple[int, ...],
    coefficients: Sequence[NDArray[np.float64]],
    total: ReplayResult,
    boxes: list[float],
    measurements: Sequence[Measurement],
) -> OrientationEvidence:
    """`coefficients` of each of the `measurements`, which stand in these roles."""
    names = (SUSPECT, *data.sources.names)
    middle = np.median(coefficients, axis=0)
    by_name = {names[model]: float(c) for model, c in zip(roles[1:], middle, strict=True)}
    novel = int(total.novel[0])
    return OrientationEvidence(
        names[roles[0]], by_name, by_name.get(SUSPECT, 0.0), float(total.exact[0] / max(total.total[0], 1)), novel,
        float(total.novel_exact[0] / max(novel, 1)), decisive_spike(total.steps[0]),
        tuple(strata_spikes(total.steps[0])), float(np.median(boxes)), model_phases(measurements, coefficients),
    )  # fmt: skip
