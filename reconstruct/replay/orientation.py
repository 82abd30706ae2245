"""Who is whose child? Every model at hand is replayed from the others; the arrow of time is in the rounding.

A parent fits its own child's plane as well as the child does: S = .565 A + .435 B gives A = 1.77 S - .77 B with an R^2
of .997. But only the child was rounded last, so only in one orientation does a replay reach every bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset
from reconstruct.evidence import OrientationEvidence
from reconstruct.kernels.results import ReplayResult
from reconstruct.replay.consensus import Pool, search_consensus
from reconstruct.replay.samples import decoy_values
from reconstruct.replay.search import find_exact, in_program_form
from reconstruct.statistics.mixture import decisive_spike, strata_spikes

__all__ = ["MATERIAL", "SUSPECT", "material", "orientations", "pools", "starting_points"]

#: Smallest coefficient, in size, that makes a source material.
MATERIAL = 0.05
#: The suspect's name in its own orientation.
SUSPECT = "the suspect"
_EXACT = 0.98  # share of sampled elements from which certified bounds are taken as the answer


def material(coefficients: NDArray[np.float64], threshold: float = MATERIAL) -> list[int]:
    """Sources with a coefficient that matters."""
    return [int(j) for j in np.flatnonzero(np.abs(coefficients) >= threshold)]


def pools(data: Dataset, positions: list[int], decoy: int | None = None) -> list[Pool]:
    """Samples of these tensors by lattice; with `decoy`, a seed, the deltas are moved to wrong places."""
    by_lattice: dict[object, list[NDArray[np.float32]]] = {}
    for i in positions:
        m = data.measurements[i]
        if m.values.shape[1]:
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


def orientations(data: Dataset, coefficients: NDArray[np.float64]) -> tuple[OrientationEvidence, ...]:
    """The suspect and every material source in the suspect's place, the suspect first, all on equal terms.

    `coefficients` of the sources [K+1] as found for the suspect say which ones matter.
    """
    count = len(data.sources.names)
    found = [_assess(data, tuple(range(count + 1)))]
    for source in material(coefficients):
        model = source + 1
        others = [m for m in range(count + 1) if m != model]
        if data.sources.has_base and model != 1:
            others.remove(1)
            others.insert(0, 1)
        found.append(_assess(data, (model, *others)))
    return tuple(item for item in found if item is not None)


def _assess(data: Dataset, roles: tuple[int, ...]) -> OrientationEvidence | None:
    turned = data.reoriented(roles)
    if not turned.voting:
        return None
    names = (SUSPECT, *data.sources.names)
    exact = find_exact(turned)
    total = ReplayResult.empty(1)
    share = exact.variants[0][1] * len(exact.certified) / len(turned.voting) if exact else 0.0
    if exact is not None and share >= _EXACT:
        variant = exact.variants[0][0]
        shares = []
        for i in turned.voting:
            m = turned.measurements[i]
            shares.append(exact.recipe.coefficients(m.name, m.moments))
            vector, divisor = in_program_form(shares[-1], variant)
            total = total + turned.replay_sample(
                i, vector[None], variant.arithmetic.formula, np.array([divisor]), variant.order
            )
        coefficients = np.median(shares, axis=0)
    else:
        consensus = search_consensus(pools(turned, turned.voting), starting_points(turned), data.kernels, threads=data.threads)
        if consensus is None:
            return None
        total = consensus.replay
        coefficients = np.concatenate([[1 - consensus.weights.sum()], consensus.weights])
    by_name = {names[model]: float(c) for model, c in zip(roles[1:], coefficients, strict=True)}
    novel = int(total.novel[0])
    return OrientationEvidence(
        names[roles[0]], by_name, by_name.get(SUSPECT, 0.0), float(total.exact[0] / max(total.total[0], 1)), novel,
        float(total.novel_exact[0] / max(novel, 1)), decisive_spike(total.steps[0]),
        tuple(strata_spikes(total.steps[0])), float(np.median([turned.fits[i].box for i in turned.voting])),
    )  # fmt: skip
