"""What an analysis works on: the measured tensors, their fits, and a way to replay them.

With weights at hand a replay covers every element; after a re-fit from the store, or with another model in the
suspect's place, it covers the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import SUSPECT, Measurement, SourceTable, TensorFit
from reconstruct.fitting import fit_tensor, thinned, with_roles
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.results import ReplayResult
from reconstruct.kernels.select import Kernels
from reconstruct.parallel import parallel
from reconstruct.replay.samples import replay_values
from reconstruct.statistics.rounding import BFLOAT16_MANTISSA, FINE_MANTISSA

__all__ = ["Dataset", "FullReplay", "fit_all", "subset", "without_duplicates"]

#: (measurement, models in the formula's order (0 is the suspect), coefficients [V, K+1], divisors [V], formula)
#: -> result over every element.
FullReplay = Callable[[Measurement, Sequence[int], NDArray[np.float64], NDArray[np.float64], Formula], ReplayResult]


@dataclass(frozen=True)
class Dataset:
    """`full`: replay over every element where weights are at hand, else None."""

    sources: SourceTable
    measurements: tuple[Measurement, ...]
    fits: tuple[TensorFit, ...]
    kernels: Kernels
    families: frozenset[str]
    threads: int = 1
    seed: int = 0
    full: FullReplay | None = None

    @property
    def voting(self) -> list[int]:
        """Positions of tensors that may testify."""
        return [i for i, m in enumerate(self.measurements) if m.votes]

    @property
    def all_fine(self) -> bool:
        """Whether the suspect's storage is as fine as the arithmetic: bits depend on the order of operations there."""
        return all(self.measurements[i].lattice.lattice.mantissa > FINE_MANTISSA for i in self.voting)

    @property
    def all_coarse(self) -> bool:
        """Whether it is so coarse that last bits of float32 coefficients are rounded away: bfloat16, or less."""
        return all(self.measurements[i].lattice.lattice.mantissa <= BFLOAT16_MANTISSA for i in self.voting)

    def replay_sample(
        self,
        position: int,
        coefficients: NDArray[np.float64],
        formula: Formula,
        divisors: NDArray[np.float64] | None = None,
        order: Sequence[int] | None = None,
        limit: int | None = None,
    ) -> ReplayResult:
        """Replay the sample of one tensor; `coefficients` are in the order of `order`."""
        m = self.measurements[position]
        values = thinned(m.values, limit) if limit else m.values
        return replay_values(values, m.lattice.lattice, self.kernels, coefficients, formula, divisors, order)

    def replay(
        self, position: int, order: Sequence[int], coefficients: NDArray[np.float64], divisors: NDArray[np.float64],
        formula: Formula,
    ) -> ReplayResult:  # fmt: skip
        """Replay one tensor, over every element if that is possible."""
        if self.full is not None:
            models = (0, *(self.sources.models[j] for j in order))
            return self.full(self.measurements[position], models, coefficients, divisors, formula)
        return self.replay_sample(position, coefficients, formula, divisors, order)

    def reoriented(self, roles: tuple[int, ...], *, tensors: int = 24, sample: int = 16384) -> Dataset:
        """Another model as target (model 0 is the suspect), on the largest voting tensors' samples."""
        largest = sorted(self.voting, key=lambda i: -self.measurements[i].elements)[:tensors]
        measurements = tuple(with_roles(self.measurements[i], roles, sample) for i in sorted(largest))
        names = (SUSPECT, *self.sources.names)
        has_base = self.sources.has_base and roles[1] == 1
        table = SourceTable(tuple(names[i] for i in roles[1:]), has_base)
        fits = fit_all(measurements, self.families, self.threads, self.seed)
        return replace(self, sources=table, measurements=measurements, fits=fits, full=None)


def fit_all(
    measurements: Sequence[Measurement], families: frozenset[str], threads: int, seed: int
) -> tuple[TensorFit, ...]:
    """All fits of all tensors."""
    return tuple(parallel(lambda m: fit_tensor(m, families, seed), measurements, threads))


def subset(
    measurements: Sequence[Measurement], table: SourceTable, keep: Sequence[int]
) -> tuple[tuple[Measurement, ...], SourceTable]:
    """Only these sources, by their positions in `table`, pivot first. No weights are read."""
    roles = (0, *(1 + j for j in keep))
    chosen = SourceTable(
        tuple(table.names[j] for j in keep), table.has_base and keep[0] == 0,
        tuple(table.models[j] for j in keep), table.duplicates,
    )  # fmt: skip
    if tuple(keep) == tuple(range(len(table.names))):
        return tuple(measurements), chosen
    return tuple(with_roles(m, roles) for m in measurements), chosen


def without_duplicates(
    measurements: Sequence[Measurement], table: SourceTable
) -> tuple[tuple[Measurement, ...], SourceTable]:
    """Set aside every source that holds the same weights as an earlier one: nothing could tell them apart."""
    count = len(table.names)
    difference = np.zeros((count, count))
    for m in measurements:
        inner = np.zeros((count, count))
        inner[1:, 1:] = m.moments.gram[1:count, 1:count]
        energy = np.diag(inner)
        difference += energy[:, None] + energy[None, :] - 2 * inner
    scale = max(float(difference.max()), 1e-300)
    keep: list[int] = []
    twins = list(table.duplicates)
    for j in range(count):
        twin = next((i for i in keep if difference[i, j] <= 1e-12 * scale or difference[i, j] == 0), None)
        if twin is None:
            keep.append(j)
        else:
            twins.append((table.names[j], table.names[twin]))
    chosen, remaining = subset(measurements, table, keep)
    return chosen, replace(remaining, duplicates=tuple(twins))
