"""Suspects made from the tiny trained family, and the way from checkpoint folders to evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from support.family import BASE, CODE, DOCS, blend, load, save

from reconstruct.checkpoints.alignment import align
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.dataset import Dataset, fit_all, without_duplicates
from reconstruct.engine.feed import HostFeed
from reconstruct.engine.measure import measure, replay_tensor
from reconstruct.evidence import SourceTable
from reconstruct.kernels.select import select
from reconstruct.sampling import SamplingPlan

FAMILIES = frozenset({"linear", "slerp", "task_arithmetic"})


def dataset(
    suspect: Path, parents: list[Path], base: Path | None = BASE, families: frozenset[str] = FAMILIES
) -> Dataset:
    """Measured and fitted, with a replay over every element, as the engine does it but without a store."""
    models = [suspect, *([base] if base is not None else []), *parents]
    catalogs = [open_checkpoint(str(model)) for model in models]
    alignment = align(catalogs[0], catalogs[1:])
    plan, kernels = SamplingPlan(), select()
    size = plan.sample_size(len(alignment.tensors))
    feed = HostFeed()

    def measured_one(tensor):
        with feed.open(tensor, catalogs, plan) as resident:
            return measure(tensor, catalogs, resident, plan, kernels, size)

    measured = [measured_one(tensor) for tensor in alignment.tensors]
    by_name = {tensor.name: tensor for tensor in alignment.tensors}
    table = SourceTable(tuple(map(str, models[1:])), base is not None, tuple(range(1, len(models))))
    measurements, sources = without_duplicates(measured, table)

    def full(m, order, coefficients, divisors, formula):
        with feed.open(by_name[m.name], catalogs, plan) as resident:
            return replay_tensor(resident, kernels, m.lattice.lattice, order, coefficients, divisors, formula)

    return Dataset(sources, measurements, fit_all(measurements, families, 1, 0), kernels, families, 1, 0, full)


def merged(
    folder: Path, weights: tuple[float, ...], names: tuple[str, ...], dtype: torch.dtype = torch.bfloat16
) -> Path:
    """A blend of family members, in float32, rounded once."""
    return save(folder, blend(weights, [load(name) for name in names], dtype))


def cut(tensors: dict[str, torch.Tensor], bits: int) -> dict[str, torch.Tensor]:
    """Keep so many mantissa bits, to nearest: numbers on a coarser lattice than their dtype allows."""
    cleared = {}
    for name, tensor in tensors.items():
        integers = tensor.float().contiguous().view(torch.int32)
        shift = 23 - bits
        odd = (integers >> shift) & 1
        rounded = ((integers + (1 << (shift - 1)) - 1 + odd) >> shift) << shift
        cleared[name] = rounded.view(torch.float32).to(tensor.dtype)
    return cleared


def trained_further(
    tensors: dict[str, torch.Tensor], rate: float, share: float, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Move a random share of the weights by a smooth amount of `rate` times their size, as light training does."""
    generator = np.random.default_rng(seed)
    moved = {}
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        step = generator.normal(size=values.shape) * rate * np.abs(values).mean()
        step[generator.random(values.shape) > share] = 0
        moved[name] = torch.from_numpy((values + step).astype(np.float32)).to(tensor.dtype)
    return moved


__all__ = ["BASE", "CODE", "DOCS", "FAMILIES", "cut", "dataset", "merged", "trained_further"]
