"""Measure one tensor: moments over every element, the lattice in use, and a sample; memory stays bounded by blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.errors import NonFiniteError
from reconstruct.evidence import Measurement
from reconstruct.kernels.formats import decode
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.pick_reference import EVERY_HASH, element_hash, smallest_hashes
from reconstruct.kernels.results import ReplayResult, View
from reconstruct.kernels.select import Kernels
from reconstruct.sampling import SamplingPlan
from reconstruct.statistics.effective_lattice import effective_lattice
from reconstruct.statistics.moments import Moments

__all__ = ["measure", "replay_tensor"]

_RUNS, _RUN_LENGTH = 64, 1024  # contiguous elements read to recognise a lattice
_COLUMNS, _COLUMN_ROWS = 32, 512  # and elements along the first axis, where scales may run as well


def measure(
    tensor: AlignedTensor, catalogs: Sequence[Catalog], plan: SamplingPlan, kernels: Kernels, sample_size: int
) -> Measurement:
    """Read every element once (twice where few are informative). Raises NonFiniteError."""
    dtypes = tuple(info.dtype for info in tensor.sources)
    lattices = tuple(
        effective_lattice(_runs(tensor, catalog, model), dtypes[model], plan.seed, _columns(tensor, catalog, model))
        for model, catalog in enumerate(catalogs)
    )
    moments: Moments | None = None
    chosen = np.empty(0, np.int64)
    picked: NDArray[np.float32] = np.empty((len(catalogs), 0), np.float32)
    informative, below = 0, EVERY_HASH
    for start, stop in plan.blocks(tensor.elements):
        views = _views(tensor, catalogs, start, stop)
        result = kernels.gram(views, lattices[0].lattice)
        _refuse_nonfinite(tensor, catalogs, result.nonfinite)
        part = Moments(result.count, result.gram, result.rounding_energy, result.identical, result.gram[None])
        moments = part if moments is None else moments + part
        found = kernels.pick(views, size=sample_size, seed=plan.seed, offset=start, below=below)
        informative += found.informative
        local = found.index - start
        chosen = np.concatenate([chosen, found.index])
        gathered = np.stack([decode(view.bits[local], view.dtype) for view in views])
        picked = np.concatenate([picked, gathered], axis=1)
        keep = smallest_hashes(chosen, sample_size, plan.seed)
        chosen, picked = chosen[keep], picked[:, keep]
        if len(chosen) == sample_size:
            below = int(element_hash(chosen, plan.seed).max())
        del views
        _release(tensor, catalogs, start, stop)
    assert moments is not None
    return Measurement(
        tensor.name, tensor.module, tensor.shape, tensor.is_matrix, dtypes, tensor.notes,
        _few_blocks(moments), lattices, informative, chosen, picked,
    )  # fmt: skip


def replay_tensor(
    tensor: AlignedTensor,
    catalogs: Sequence[Catalog],
    plan: SamplingPlan,
    kernels: Kernels,
    lattice: Lattice,
    order: Sequence[int],
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
) -> ReplayResult:
    """Replay every element. `order`: positions of suspect and sources as the formula takes them."""
    total = ReplayResult.empty(len(coefficients))
    for start, stop in plan.blocks(tensor.elements):
        views = _views(tensor, catalogs, start, stop)
        total = total + kernels.replay([views[i] for i in order], coefficients, divisors, formula, lattice)
        del views
        _release(tensor, catalogs, start, stop)
    return total


def _views(tensor: AlignedTensor, catalogs: Sequence[Catalog], start: int, stop: int) -> list[View]:
    return [
        View(catalog.source.read(info, start, stop), info.dtype)
        for info, catalog in zip(tensor.sources, catalogs, strict=True)
    ]


def _release(tensor: AlignedTensor, catalogs: Sequence[Catalog], start: int, stop: int) -> None:
    for info, catalog in zip(tensor.sources, catalogs, strict=True):
        catalog.source.release(info, start, stop)


def _runs(tensor: AlignedTensor, catalog: Catalog, model: int) -> NDArray[np.float32]:
    """Evenly spread contiguous runs of one model's tensor: float32 [runs, length]."""
    info = tensor.sources[model]
    length = min(_RUN_LENGTH, tensor.elements)
    starts = np.unique(np.linspace(0, tensor.elements - length, _RUNS).astype(int))
    rows = [decode(catalog.source.read(info, int(s), int(s) + length), info.dtype) for s in starts]
    return np.stack(rows)


def _columns(tensor: AlignedTensor, catalog: Catalog, model: int) -> NDArray[np.float32] | None:
    """Some columns of one model's matrix over evenly spread rows: float32 [columns, rows]; None where rows are few."""
    if not tensor.is_matrix or tensor.shape[0] < _COLUMN_ROWS // 4:
        return None
    width = tensor.elements // tensor.shape[0]
    columns = min(_COLUMNS, width)
    begin = (width - columns) // 2
    rows = np.unique(np.linspace(0, tensor.shape[0] - 1, _COLUMN_ROWS).astype(int))
    info = tensor.sources[model]
    parts = [catalog.source.read(info, int(r) * width + begin, int(r) * width + begin + columns) for r in rows]
    return np.ascontiguousarray(decode(np.stack(parts), info.dtype).T)


def _refuse_nonfinite(tensor: AlignedTensor, catalogs: Sequence[Catalog], nonfinite: NDArray[np.int64]) -> None:
    for info, catalog, count in zip(tensor.sources, catalogs, nonfinite, strict=True):
        if count:
            raise NonFiniteError(
                f"{count} NaN or infinite weights",
                subject=f"{catalog.reference.given}, tensor {info.name!r} in {info.shard}",
                remedy="A model with such weights does not run; download it again or ask its publisher",
            )


def _few_blocks(moments: Moments, limit: int = 8) -> Moments:
    """Merge neighbouring blocks until at most `limit` are left."""
    if len(moments.blocks) <= limit:
        return moments
    groups = np.array_split(moments.blocks, limit)
    return Moments(
        moments.count, moments.gram, moments.rounding_energy, moments.identical,
        np.stack([g.sum(axis=0) for g in groups]),
    )  # fmt: skip
