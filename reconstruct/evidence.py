"""Evidence: plain frozen dataclasses, from one tensor to the whole model. No weights, no decisions.

Coefficients are float64 [K+1], one a source, pivot first (the base if given, else the first parent). The pivot's is
what the others leave to one, except where slerp bends off the plane.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.module_names import ModuleName
from reconstruct.hypotheses.base import Fit
from reconstruct.kernels.results import ReplayResult
from reconstruct.recipe import Recipe
from reconstruct.statistics.agreement import Agreement
from reconstruct.statistics.effective_lattice import EffectiveLattice
from reconstruct.statistics.mixture import Spike
from reconstruct.statistics.moments import LeastSquares, Moments
from reconstruct.statistics.phase import PhaseTest
from reconstruct.statistics.rounding import Box

__all__ = [
    "SUSPECT",
    "Controls",
    "Coverage",
    "Estimate",
    "Measurement",
    "ModelEvidence",
    "OrientationEvidence",
    "PoolEvidence",
    "RecipeProof",
    "SourceTable",
    "TensorEvidence",
    "TensorFit",
    "TensorProof",
]


#: The suspect's name where it stands among the sources of another model.
SUSPECT = "the suspect"


@dataclass(frozen=True)
class SourceTable:
    """The models beside the suspect, pivot first: their names as given, and whether the first one is the base.

    `models`: their positions among the opened checkpoints, where the suspect is 0. `duplicates`: models set aside
    because they hold the same weights as another, by name.
    """

    names: tuple[str, ...]
    has_base: bool
    models: tuple[int, ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ()

    @property
    def parents(self) -> tuple[int, ...]:
        """Positions of the parents in `names`."""
        return tuple(range(1 if self.has_base else 0, len(self.names)))


@dataclass(frozen=True)
class Measurement:
    """All that is kept of one tensor: moments over every element, and a sample with the values of all models.

    `lattices`: suspect, then sources. `index` int64 [n] positions of the sample; `values` float32 [models, n].
    """

    name: str
    module: ModuleName
    shape: tuple[int, ...]
    is_matrix: bool
    dtypes: tuple[str, ...]
    notes: tuple[str, ...]
    moments: Moments
    lattices: tuple[EffectiveLattice, ...]
    informative: int
    index: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def elements(self) -> int:
        """Compared elements."""
        return self.moments.count

    @property
    def lattice(self) -> EffectiveLattice:
        """The suspect's."""
        return self.lattices[0]

    @property
    def votes(self) -> bool:
        """Whether the tensor may testify: a matrix, with enough that the sources differ in."""
        return self.is_matrix and self.informative >= 500 and self.elements >= 1024

    @property
    def smooth_lattice(self) -> bool:
        """Whether the histogram of differences may testify too: on a lattice with gaps every relation has spikes."""
        return self.votes and all(lattice.regular for lattice in self.lattices)


@dataclass(frozen=True)
class TensorFit:
    """Fits of one tensor, all of the deltas' weights float64 [K].

    `affine`: certified bounds; `slerp`: certified (low, high) of t for pairs of sources. `box`: share of sampled
    elements inside the rounding box at the interval fit. `decoy_...`: the same fit to deltas in wrong places.
    """

    least_squares: LeastSquares
    interval: NDArray[np.float64]
    affine: Box | None
    slerp: dict[tuple[int, int], tuple[float, float]]
    box: float
    decoy_box: float
    decoy_explained: float


@dataclass(frozen=True)
class TensorEvidence:
    """`replay`: the coefficients found, over every element (or over the sample, after a re-fit from the store);
    `decoy`: the better of the wrong coefficients, on the sample. `residual`, `floor`, `decoy_residual`: root mean
    squares.
    """

    measurement: Measurement
    fit: TensorFit
    coefficients: NDArray[np.float64]
    replay: ReplayResult
    decoy: ReplayResult
    residual: float
    floor: float
    decoy_residual: float
    spike: Spike


@dataclass(frozen=True)
class PoolEvidence:
    """Pooled over the matrices of one layer, one module kind, or both. `low`, `high`: bounds of the coefficients,
    certain if `certified`, else 95 % limits from the scatter between tensors.
    """

    layer: str | None
    kind: str | None
    tensors: int
    elements: int
    coefficients: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    certified: bool
    least_squares: NDArray[np.float64]
    residual: float
    floor: float
    decoy_residual: float
    exact: int
    novel: int
    novel_exact: int
    spike: Spike


@dataclass(frozen=True)
class Estimate:
    """Whole-model coefficients. `origin`: "certified" (linear programmes), "consensus" (the untouched elements) or
    "regression" (the median interval fit, with 95 % limits from the scatter between tensors).
    """

    coefficients: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    origin: str
    least_squares: NDArray[np.float64]
    sum_to_one: NDArray[np.float64]
    explained: float
    collinear: bool


@dataclass(frozen=True)
class Controls:
    """What chance and wrong hypotheses reach in this very model: permuted deltas, swapped and flipped coefficients,
    all searched like the real thing. `hit_rate`: novel elements reproduced; `spike_z`: the best decisive spike of a
    consensus search on permuted deltas; `halves`: largest distance of the consensus of two halves of the tensors.
    """

    hit_rate: float
    explained: float
    box: float
    spike_z: float
    halves: float | None


@dataclass(frozen=True)
class OrientationEvidence:
    """One model in the suspect's place, on samples: how much of it the others replay. `suspect_share`: the suspect's
    coefficient among its sources; `coefficients` by model name.
    """

    target: str
    coefficients: dict[str, float]
    suspect_share: float
    exact: float
    novel: int
    novel_exact: float
    spike: Spike
    strata: tuple[Spike, ...]
    box: float
    phases: PhaseTest


@dataclass(frozen=True)
class TensorProof:
    """One tensor as a program makes it from a recipe, beside the suspect's: counts of elements. `apart`: those in which
    the made tensor differs from each source (none if not compared).
    """

    name: str
    total: int
    identical: int
    apart: tuple[int, ...] = ()


@dataclass(frozen=True)
class RecipeProof:
    """A recipe run through the program it is written for. `document`: its configuration; `uncompared`: tensors of the
    suspect that it does not make, or of another shape; `surplus`: tensors that only it makes; `failure`: why the
    program could not run it, else empty; `families`: merge families that make the same bits, where the recipe was found
    by running the program; `threads`: that the program ran with, where another number makes other bits.
    """

    program: str
    document: dict[str, Any]
    tensors: tuple[TensorProof, ...]
    uncompared: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    failure: str = ""
    families: tuple[str, ...] = ()
    threads: int | None = None

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> RecipeProof:
        """What `dataclasses.asdict` made of one, by way of JSON."""
        tensors = tuple(TensorProof(**tensor | {"apart": tuple(tensor["apart"])}) for tensor in stored["tensors"])
        listed = {key: tuple(stored[key]) for key in ("uncompared", "surplus", "families")}
        program, document, failure = stored["program"], stored["document"], stored["failure"]
        return cls(program, document, tensors, failure=failure, threads=stored.get("threads"), **listed)

    @property
    def identical(self) -> float:
        """Share of the compared elements with the suspect's bits; 0 where nothing was compared."""
        return sum(t.identical for t in self.tensors) / max(sum(t.total for t in self.tensors), 1)

    @property
    def complete(self) -> bool:
        """Whether the program makes the suspect, all of it and to the last bit."""
        return not (self.failure or self.uncompared) and bool(self.tensors) and self.differing == ()

    def apart_from_nearest(self, names: Collection[str]) -> list[int]:
        """For each of these tensors that was compared with the sources: elements in which it differs from one of them,
        the one that all tensors together are nearest to.
        """
        counts = np.array([t.apart for t in self.tensors if t.name in names and t.apart])
        return counts[:, int(np.argmin(counts.sum(axis=0)))].tolist() if counts.size else []

    @property
    def differing(self) -> tuple[str, ...]:
        """Names of the tensors with other bits."""
        return tuple(t.name for t in self.tensors if t.identical < t.total)


@dataclass(frozen=True)
class Coverage:
    """What was read of the weights that could be compared, where a byte budget did not allow for all of them: each
    with what there is. `matrices`: those large enough to vote, with their module `kinds` and `layers`.
    """

    tensors: int
    all_tensors: int
    elements: int
    all_elements: int
    matrices: int
    all_matrices: int
    kinds: int
    all_kinds: int
    layers: int
    all_layers: int

    @property
    def share(self) -> float:
        """Of the elements."""
        return self.elements / self.all_elements

    @property
    def spread(self) -> bool:
        """Whether every module kind and half of the layers were looked into."""
        return self.kinds == self.all_kinds and 2 * self.layers >= self.all_layers


@dataclass(frozen=True)
class ModelEvidence:
    """Everything the verdict looks at, and everything reports show. Sums are over voting tensors.

    `rounding`: phase of the novel predictions over a uniform one (see `replay.phases`). `overlap`: largest |cosine|
    between the movements of two material parents, 1 if there is but one direction. `proof`: the recipe run through the
    program it is written for, where that was done. `coverage`: None if every weight was read. `open_angles`: tensors
    read in part that a slerp fits at an angle which these rows leave open.
    """

    sources: SourceTable
    tensors: tuple[TensorEvidence, ...]
    voting: tuple[int, ...]
    layers: tuple[PoolEvidence, ...]
    kinds: tuple[PoolEvidence, ...]
    cells: tuple[PoolEvidence, ...]
    estimate: Estimate
    recipe: Recipe | None
    arithmetic: str | None
    programs: tuple[str, ...]
    families: tuple[str, ...]
    family_fits: tuple[Fit, ...]
    replay: ReplayResult
    strata: tuple[Spike, ...]
    spike: Spike
    phases: PhaseTest
    rounding: float
    box: float
    overlap: float
    controls: Controls
    agreement: tuple[Agreement, ...]
    block_agreement: tuple[float, ...]
    orientations: tuple[OrientationEvidence, ...]
    lineage: tuple[Spike, ...]
    curve: tuple[tuple[float, float, float], ...]
    exhaustive: bool
    notes: tuple[str, ...] = ()
    proof: RecipeProof | None = None
    coverage: Coverage | None = None
    open_angles: int = 0
