"""Measure one tensor: moments over every element, the lattice in use, and a sample; memory stays bounded by blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog, DerivedTensor
from reconstruct.engine.element_sample import ElementSample
from reconstruct.engine.feed import Resident
from reconstruct.errors import NonFiniteError
from reconstruct.evidence import Measurement
from reconstruct.kernels.formats import decode
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import GramResult, ReplayResult
from reconstruct.kernels.select import Kernels
from reconstruct.sampling import SamplingPlan
from reconstruct.statistics.effective_lattice import EffectiveLattice, effective_lattice
from reconstruct.statistics.moments import Moments

__all__ = ["measure", "replay_tensor"]

_RUNS, _RUN_LENGTH = 64, 1024  # contiguous elements read to recognise a lattice
_DERIVED_SPAN = 1 << 22  # elements of a derived tensor that are computed at once to look at some of them
_COLUMNS, _COLUMN_ROWS = 32, 512  # and elements along the first axis, where scales may run as well


def measure(
    tensor: AlignedTensor,
    catalogs: Sequence[Catalog],
    resident: Resident,
    plan: SamplingPlan,
    kernels: Kernels,
    sample_size: int,
) -> Measurement:
    """Read every element once (more often where informative ones are unevenly spread). Raises NonFiniteError."""
    dtypes = tuple(info.dtype for info in tensor.sources)
    lattices = tuple(_lattice(tensor, catalog, model, plan.seed) for model, catalog in enumerate(catalogs))
    sample = ElementSample(tensor.elements, sample_size, plan.seed, kernels)
    parts: list[GramResult] = []
    for block in resident.blocks():
        parts.append(kernels.gram(block.views, lattices[0].lattice))
        _refuse_nonfinite(tensor, catalogs, parts[-1].nonfinite)
        sample.take(block)
    while sample.short:
        sample.restart()
        for block in resident.blocks():
            sample.take(block)
    index, values = sample.chosen()
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    moments = Moments(
        total.count, total.gram, total.rounding_energy, total.identical, _few_blocks([p.gram for p in parts])
    )
    return Measurement(
        tensor.name, tensor.module, tensor.shape, tensor.is_matrix, dtypes, tensor.notes, moments, lattices,
        sample.informative, index, values,
    )  # fmt: skip


def replay_tensor(
    resident: Resident,
    kernels: Kernels,
    lattice: Lattice,
    order: Sequence[int],
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
) -> ReplayResult:
    """Replay every element. `order`: positions of suspect and sources as the formula takes them."""
    total = ReplayResult.empty(len(coefficients))
    for block in resident.blocks():
        total = total + kernels.replay([block.views[i] for i in order], coefficients, divisors, formula, lattice)
    return total


def _lattice(tensor: AlignedTensor, catalog: Catalog, model: int, seed: int) -> EffectiveLattice:
    info = tensor.sources[model]
    found = effective_lattice(_runs(tensor, catalog, model), info.dtype, seed, _columns(tensor, catalog, model))
    if model in tensor.gapped:
        return replace(found, occupancy=0.0)  # many scales hide the gaps from this look at a few elements
    return found


def _runs(tensor: AlignedTensor, catalog: Catalog, model: int) -> NDArray[np.float32]:
    """Evenly spread contiguous runs of one model's tensor: float32 [runs, length]."""
    length = min(_RUN_LENGTH, tensor.elements)
    starts = np.unique(np.linspace(0, tensor.elements - length, _RUNS).astype(int))
    return _gathered(tensor, catalog, model, starts, length)


def _columns(tensor: AlignedTensor, catalog: Catalog, model: int) -> NDArray[np.float32] | None:
    """Some columns of one model's matrix over evenly spread rows: float32 [columns, rows]; None where rows are few."""
    if not tensor.is_matrix or tensor.shape[0] < _COLUMN_ROWS // 4:
        return None
    width = tensor.elements // tensor.shape[0]
    columns = min(_COLUMNS, width)
    rows = np.unique(np.linspace(0, tensor.shape[0] - 1, _COLUMN_ROWS).astype(int))
    found = _gathered(tensor, catalog, model, rows * width + (width - columns) // 2, columns)
    return np.ascontiguousarray(found.T)


def _gathered(
    tensor: AlignedTensor, catalog: Catalog, model: int, starts: NDArray[np.int_], length: int
) -> NDArray[np.float32]:
    """Runs of `length` elements from each of the ascending `starts`: float32 [runs, length]."""
    info = tensor.sources[model]
    # What lies between the runs costs nothing where a file is mapped; of derived tensors only so much is computed at
    # once.
    at_once = _DERIVED_SPAN if isinstance(info, DerivedTensor) else tensor.elements
    found, done = [], 0
    while done < len(starts):
        first = int(starts[done])
        upto = max(int(np.searchsorted(starts + length, first + at_once, side="right")), done + 1)
        span = catalog.source.read(info, first, int(starts[upto - 1]) + length)
        found.append(decode(span[(starts[done:upto] - first)[:, None] + np.arange(length)], info.dtype))
        done = upto
    return np.concatenate(found)


def _refuse_nonfinite(tensor: AlignedTensor, catalogs: Sequence[Catalog], nonfinite: NDArray[np.int64]) -> None:
    for info, catalog, count in zip(tensor.sources, catalogs, nonfinite, strict=True):
        if count:
            raise NonFiniteError(
                f"{count} NaN or infinite weights",
                subject=f"{catalog.reference.given}, tensor {info.name!r} in {info.shard}",
                remedy="A model with such weights does not run; download it again or ask its publisher",
            )


def _few_blocks(grams: list[NDArray[np.float64]], limit: int = 8) -> NDArray[np.float64]:
    """Sums of products by contiguous parts [parts, K+2, K+2]; neighbouring blocks are merged until few are left."""
    groups = np.array_split(np.stack(grams), min(limit, len(grams)))
    return np.stack([group.sum(axis=0) for group in groups])
