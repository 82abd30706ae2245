"""Evidence: plain frozen dataclasses, from one tensor to the whole model. No weights, no decisions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.module_names import ModuleName
from reconstruct.kernels.results import ReplayResult
from reconstruct.recipe import Recipe
from reconstruct.statistics.agreement import Agreement
from reconstruct.statistics.effective_lattice import EffectiveLattice
from reconstruct.statistics.mixture import Spike
from reconstruct.statistics.moments import LeastSquares, Moments
from reconstruct.statistics.rounding import Box

__all__ = [
    "LayerEvidence",
    "Measurement",
    "ModelEvidence",
    "OrientationEvidence",
    "SourceTable",
    "TensorEvidence",
    "TensorFit",
]


@dataclass(frozen=True)
class SourceTable:
    """The models beside the suspect, pivot first: their names as given, and whether the first one is the base."""

    names: tuple[str, ...]
    has_base: bool

    @property
    def parents(self) -> tuple[int, ...]:
        """Positions of the parents."""
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
        """Whether the tensor may testify: a matrix, on a regular lattice, with enough that the sources differ in."""
        return self.is_matrix and self.lattice.regular and self.informative >= 500 and self.elements >= 1024


@dataclass(frozen=True)
class TensorFit:
    """Fits of one tensor. `affine`: certified bounds of the deltas' weights; `slerp`: certified (low, high) of t for
    pairs of sources; `decoy_explained`: R^2 of the same fit to deltas in wrong places.
    """

    least_squares: LeastSquares
    interval: NDArray[np.float64]
    affine: Box | None
    slerp: dict[tuple[int, int], tuple[float, float]]
    decoy_explained: float


@dataclass(frozen=True)
class TensorEvidence:
    """`replay`: the recipe found, over every element (or over the sample, after a re-fit from the store);
    `decoy`: the same for decoys.
    """

    measurement: Measurement
    fit: TensorFit
    coefficients: NDArray[np.float64]
    replay: ReplayResult
    decoy: ReplayResult
    residual: float
    floor: float
    decoy_residual: float


@dataclass(frozen=True)
class LayerEvidence:
    """Pooled over the matrices of one layer (or one layer and module kind)."""

    layer: str
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
    novel: int
    novel_exact: int
    untouched: Spike


@dataclass(frozen=True)
class OrientationEvidence:
    """One model in the suspect's place, on samples: how much of it the others replay."""

    target: str
    coefficients: NDArray[np.float64]
    exact: float
    spike: Spike
    strata: tuple[Spike, ...]
    inside_box: float


@dataclass(frozen=True)
class ModelEvidence:
    """Everything the verdict looks at, and everything reports show."""

    sources: SourceTable
    tensors: tuple[TensorEvidence, ...]
    layers: tuple[LayerEvidence, ...]
    kinds: tuple[LayerEvidence, ...]
    recipe: Recipe | None
    arithmetic: str | None
    arithmetic_alternatives: tuple[str, ...]
    families: tuple[str, ...]
    coefficients: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    certified: bool
    least_squares: NDArray[np.float64]
    sum_to_one: NDArray[np.float64]
    explained: float
    decoy_explained: float
    replay: ReplayResult
    decoy: ReplayResult
    strata: tuple[Spike, ...]
    spike: Spike
    decoy_z: float
    consensus: NDArray[np.float64] | None
    consensus_halves: float | None
    positive_votes: int
    voting_spikes: int
    agreement: tuple[Agreement, ...]
    block_agreement: tuple[Agreement, ...]
    orientations: tuple[OrientationEvidence, ...]
    curve: tuple[tuple[float, float, float], ...] = ()
    exhaustive: bool = True
    notes: tuple[str, ...] = field(default_factory=tuple)
