"""Single tensors of the trained family, as the statistics take them: float32 [models, n], suspect and pivot first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from support.family import load

from reconstruct.kernels.gram_reference import gram
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import View
from reconstruct.statistics.moments import Moments

QUERY = "model.layers.1.self_attn.q_proj.weight"
UP = "model.layers.0.mlp.up_proj.weight"
DOWN = "model.layers.2.mlp.down_proj.weight"
BF16 = Lattice.of_dtype("BF16")


def sources(tensor: str, *names: str) -> NDArray[np.float32]:
    """One tensor of several family members, flat: float32 [models, n]."""
    return np.stack([load(name)[tensor].float().flatten().numpy() for name in names])


def rounded(values: NDArray[np.floating], dtype: torch.dtype = torch.bfloat16) -> NDArray[np.float32]:
    """To the numbers of a dtype, by torch."""
    return torch.from_numpy(np.asarray(values, np.float32)).to(dtype).float().numpy()


def lighter(values: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Sources [pivot, ...] with the deltas made smaller, as lighter training leaves them, in bfloat16."""
    return rounded(values[:1] + factor * (values - values[:1]))


def merge(models: NDArray[np.float32], coefficients: Sequence[float]) -> NDArray[np.float32]:
    """Weighted sum in float32, rounded once to bfloat16, on top of its sources: float32 [1 + models, n]."""
    total = np.zeros(models.shape[1], np.float32)
    for weight, model in zip(coefficients, models, strict=True):
        total += np.float32(weight) * model
    return np.concatenate([rounded(total)[None], models])


def informative(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Elements that say something: a source moves, and the suspect is neither 0 nor cancelled."""
    keep = (values[0] != 0) & (np.abs(values[0]) >= 0.25 * np.abs(values[1])) & (values[2:] != values[1]).any(axis=0)
    return np.ascontiguousarray(values[:, keep])


def moments(values: NDArray[np.float32], lattice: Lattice = BF16) -> Moments:
    """Moments of suspect, pivot and sources, by the reference kernel."""
    found = gram([View(np.ascontiguousarray(row), "F32") for row in values], lattice)
    return Moments(found.count, found.gram, found.rounding_energy, found.identical, found.gram[None])
