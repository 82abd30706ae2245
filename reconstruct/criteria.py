"""Thresholds, and the criteria that the decision table is put together from: each a pure question about evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import ModelEvidence, OrientationEvidence, TensorEvidence
from reconstruct.kernels.results import ReplayResult
from reconstruct.statistics.mixture import DECISIVE, Spike
from reconstruct.statistics.phase import PhaseTest
from reconstruct.statistics.rounding import FINE_MANTISSA

__all__ = [
    "THRESHOLDS",
    "Reason",
    "above",
    "at_least",
    "at_most",
    "below",
    "detectable_share",
    "direction_of_descent",
    "firm_strata",
    "has_spike",
    "in_range",
    "phase_reasons",
    "replayed_shares",
    "replays_as_product",
    "rounded_after",
    "shares_suspect",
    "slope_in_copies",
    "stored_finely",
    "voting_tensors",
]

#: Every threshold of the table. Set on families of trained models; see docs/evidence.md.
THRESHOLDS = {
    "replayed": 0.999,  # share of all elements, in every compared matrix
    "novel replayed": 0.99,  # share of novel elements, in every compared matrix that has 100 of them
    "novel elements": 1000,
    "sources": 2,  # with material weight; also: matrices that carry the novel elements
    "decoy hits": 0.5,  # share of novel elements that wrong recipes reproduce, at most
    "material": 0.005,  # smallest coefficient of a source that takes part in an exact recipe
    "copies continued": 0.5,  # slope at which a parent may be a continuation of the suspect, not a source of it
    "box": 0.999,  # share inside the rounding box from which nothing was trained in between
    "box of decoys": 0.9,  # above, movement is so small that the box is full for anything
    "spike z": 8.0,  # standard errors of the decisive spike, over smoothness and over the searched decoys
    "spike ratio": 1.1,  # three standard errors below the measured ratio, in at least two decisive strata
    "strata": 2,
    "voting majority": 0.5,  # share of voting tensors whose own decisive spike is positive
    "phase z": 8.0,  # untouched share by sides of the rounding boundary, in cluster-robust standard errors
    "boundary z": 5.0,  # the same within a twentieth of a spacing of the boundary
    "phase uniformity": 0.7,  # lowest phase's upper limit over the median phase
    "rounding": 0.1,  # phase of the predictions, over a uniform one: below, rounding did not come last
    "halves": 0.02,  # distance between the consensus coefficients of two halves of the tensors
    "range": 0.02,  # how far outside [0, 1] a coefficient may lie
    "orientation": 1.25,  # another orientation must keep this many times the untouched share to win
    "block spread": 0.02,  # merge-consistent: the same over blocks of a tensor
    "consistent explained": 0.1,  # merge-consistent: share of the movement explained beyond decoys
    "tensors": 4,  # merge-consistent: voting tensors
    "spread": 0.01,  # merge-consistent: standard deviation of the coefficients over tensors
    "consistent material": 0.05,  # merge-consistent: smallest coefficient of a material source
    "regular": 0.9,  # merge-consistent: share of voting tensors on lattices without gaps in every model
    "overlap": 0.9,  # merge-consistent: largest |cosine| between the movements of two material parents
    "consistent base": 0.01,  # merge-consistent: the base's coefficient, by which the parents' do not sum to one
    "derived": 0.1,  # distance of the one material coefficient from 1
    "derived explained": 0.8,  # share of the movement which that source explains
    "derived others": 0.05,  # largest coefficient of any other parent
    "derived own": 0.02,  # movement of its own: how far the parent's slope on the suspect lies below 1
    "derived direction": 2.0,  # the same, in distances of the suspect's slope on the parent from 1
    "related": 0.02,  # explained share beyond the decoys'
    "informative": 1000,  # sampled elements in which the sources differ
    "read tensors": 12,  # a part of the weights: matrices that vote, before a share of them speaks for all
    "read informative": 10_000,  # a part of the weights: elements in which the sources differ, to say nothing explains
    "detectable": 0.1,  # a part of the weights: smallest untouched share that it would have shown, at most
}


_FINER = 4  # mantissa bits: the coarser rounding is then far more than the finer box holds


@dataclass(frozen=True)
class Reason:
    """One measured number beside its threshold. `passed` speaks of the condition as `name` words it."""

    name: str
    value: float
    threshold: float
    passed: bool


def at_least(name: str, value: float, key: str) -> Reason:
    """Passed if the value reaches THRESHOLDS[key]."""
    return Reason(name, float(value), THRESHOLDS[key], bool(value >= THRESHOLDS[key]))


def above(name: str, value: float, key: str) -> Reason:
    """Passed if the value exceeds THRESHOLDS[key]."""
    return Reason(name, float(value), THRESHOLDS[key], bool(value > THRESHOLDS[key]))


def at_most(name: str, value: float, key: str) -> Reason:
    """Passed if the value does not exceed THRESHOLDS[key]."""
    return Reason(name, float(value), THRESHOLDS[key], bool(value <= THRESHOLDS[key]))


def below(name: str, value: float, key: str) -> Reason:
    """Passed if the value stays under THRESHOLDS[key]."""
    return Reason(name, float(value), THRESHOLDS[key], bool(value < THRESHOLDS[key]))


def stored_finely(tensor: TensorEvidence) -> bool:
    """Storage as fine as the arithmetic: the program's own rounding is the last, and its phase is not to be seen."""
    return tensor.measurement.lattice.lattice.mantissa > FINE_MANTISSA


def replayed_shares(replay: ReplayResult) -> tuple[float, float, int]:
    """Share of all elements and of novel elements reproduced, and the number of novel ones."""
    total, novel = max(int(replay.total[0]), 1), int(replay.novel[0])
    return float(replay.exact[0]) / total, float(replay.novel_exact[0]) / novel if novel else 1.0, novel


def voting_tensors(e: ModelEvidence) -> list[TensorEvidence]:
    """Matrices in which the sources differ enough to testify."""
    return [e.tensors[i] for i in e.voting]


def in_range(values: list[float]) -> bool:
    """Whether all coefficients are shares: between 0 and 1, with a little room."""
    return all(-THRESHOLDS["range"] <= v <= 1 + THRESHOLDS["range"] for v in values)


def shares_suspect(o: OrientationEvidence) -> bool:
    """Whether the suspect is a material source there, and all shares lie in [0, 1]."""
    return abs(o.suspect_share) >= THRESHOLDS["consistent material"] and in_range(list(o.coefficients.values()))


def replays_as_product(o: OrientationEvidence) -> bool:
    """Whether that model is remade to the bit, the suspect being one of its sources."""
    return (
        shares_suspect(o)
        and o.exact >= THRESHOLDS["replayed"]
        and o.novel_exact >= THRESHOLDS["novel replayed"]
        and o.novel >= THRESHOLDS["novel elements"]
    )


def rounded_after(e: ModelEvidence, other: str) -> bool:
    """Whether the suspect is stored more finely than that source, and lies in the plane of the sources up to its own,
    finer rounding: then the source cannot have been rounded last, though the suspect determines it to the bit.

    Were the source the product, its rounding to the coarser format would have put the suspect far outside its box.
    """
    place = 1 + e.sources.names.index(other)
    finer = all(
        t.measurement.lattice.lattice.mantissa >= t.measurement.lattices[place].lattice.mantissa + _FINER
        for t in voting_tensors(e)
    )
    return finer and e.box >= THRESHOLDS["box"] and e.controls.box <= THRESHOLDS["box of decoys"]


def direction_of_descent(e: ModelEvidence, source: int) -> list[Reason]:
    """Whether the suspect continues a source, and not the source the suspect. `source`: of `e.sources`, not the base.

    What training adds to a model is almost orthogonal to how far it had come. So the child's movement from the base
    has a slope of 1 on its parent's, and the parent's on the child's one of R^2: it is the parent's that lies below 1.
    Where neither does, the two are nearly one model, and nothing in them says which was there first.
    """
    gram = _gram(voting_tensors(e))
    forward = float(gram[0, source] / max(gram[source, source], 1e-300))
    backward = float(gram[0, source] / max(gram[0, 0], 1e-300))
    own, apart = 1 - backward, abs(1 - forward)
    return [
        at_least("movement of the suspect's own, beyond the parent", own, "derived own"),
        at_least("the same over the distance of the suspect's slope from 1", own / max(apart, 1e-9),
                 "derived direction"),
    ]  # fmt: skip


def slope_in_copies(e: ModelEvidence, tensors: NDArray[np.bool_], other: int) -> float:
    """How much of the suspect's movement from the base another source shares, in those of the tensors [T] that the
    suspect has from a third one: 1 if it was trained on from the suspect, near 0 if both went their own ways.
    """
    gram = _gram([t for t, own in zip(e.tensors, tensors, strict=True) if own])
    return float(gram[0, other] / max(gram[0, 0], 1e-300))


def _gram(tensors: Sequence[TensorEvidence]) -> NDArray[np.float64]:
    """Moments of tensors together, float64 [K+2, K+2] (see `Moments`)."""
    return np.asarray(np.sum([t.measurement.moments.gram for t in tensors], axis=0))


def has_spike(spike: Spike, strata: tuple[Spike, ...], null: float) -> bool:
    """A decisive spike: known well, beyond smoothness and the searched decoys' `null`, and large in several strata."""
    return spike.z >= THRESHOLDS["spike z"] + max(null, 0.0) and firm_strata(strata) >= THRESHOLDS["strata"]


def detectable_share(e: ModelEvidence) -> float:
    """The untouched share that what was read would have shown, in each of the tests that ask for so many standard
    errors: over smoothness, over all phases of rounding, and at the boundary. Infinite where one cannot be made.
    """
    if not e.spike.count or not np.isfinite(e.phases.errors[0]):
        return math.inf
    smooth = THRESHOLDS["spike z"] * math.sqrt(max(e.spike.smooth, e.spike.reproduced, 1.0)) / e.spike.count
    errors = e.phases.errors[np.isfinite(e.phases.errors)]
    overall = THRESHOLDS["phase z"] / math.sqrt(float((1 / np.maximum(errors, 1e-9) ** 2).sum()))
    return max(smooth, overall, THRESHOLDS["boundary z"] * float(e.phases.errors[0]))


def firm_strata(strata: tuple[Spike, ...]) -> int:
    """Decisive strata whose ratio lies above the threshold by three standard errors.

    z alone grows with the size of the model: a smooth relation whose histogram bends by a few per cent would be
    accused in a large enough one. The size of the spike is what counts, z is how well it is known.
    """
    count = 0
    for part in strata[DECISIVE:]:
        if part.z > 0 and part.smooth > 0 and part.ripple == 0.0:
            error = (part.ratio - 1) / part.z
            count += part.ratio - 3 * error >= THRESHOLDS["spike ratio"]
    return count


def phase_reasons(phases: PhaseTest) -> list[Reason]:
    """A merge's untouched share is the same at every phase of rounding and holds at the boundary.

    An average of checkpoints of one run, or training by whole steps in 16 bits, leaves spikes too; but theirs come from
    residuals narrower than a spacing, or from numbers that needed no rounding.
    """
    return [
        Reason("untouched share by sides of the rounding boundary, z over clusters", phases.overall_z,
               THRESHOLDS["phase z"], phases.overall_z >= THRESHOLDS["phase z"]),
        Reason("the same at the boundary", phases.boundary_z, THRESHOLDS["boundary z"],
               phases.boundary_z >= THRESHOLDS["boundary z"]),
        Reason("the same at every phase of rounding, lowest over median", phases.uniformity,
               THRESHOLDS["phase uniformity"], phases.uniformity >= THRESHOLDS["phase uniformity"]),
    ]  # fmt: skip
