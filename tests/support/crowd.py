"""Forty candidates around the tiny trained family: its members, what resembles them, and models of other origin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from support.family import NAMES, State, blend, load, save

__all__ = ["crowd", "other_training"]


def other_training(seed: int, source: str = "ft-code") -> dict[str, torch.Tensor]:
    """A fine-tune in a direction of its own: as large a movement as `source`'s, dealt anew within every matrix."""
    base, model = load("base"), load(source)
    generator = np.random.default_rng(seed)
    moved = {}
    for name, origin in base.items():
        delta = (model[name].float() - origin.float()).numpy()
        dealt = generator.permutation(delta.ravel()).reshape(delta.shape)
        moved[name] = (origin.float() + torch.from_numpy(dealt)).to(origin.dtype)
    return moved


def crowd(folder: Path, seed: int = 0) -> list[Path]:
    """Folders of 40 candidates; the family's own are named as they are: ft-code, ft-docs, ft-code-half, ft-code-seed2.
    `other-0` is a fine-tune of another direction. None of them is made from another one but the noisy ones and the
    blends (of ft-code-half, ft-code-seed2, other-3 and other-4).
    """
    found = {name: load(name) for name in NAMES if name != "base"}
    found |= {f"other-{k}": other_training(seed + k, ("ft-code", "ft-docs")[k % 2]) for k in range(8)}
    base = load("base")
    for source in ("ft-code", "ft-docs", "other-1"):
        for strength in (0.1, 0.2, 0.4, 0.8):
            found[f"{source}-and-noise-{strength}"] = _continued(base, found[source], strength, seed)
    for strength in (0.3, 1.0):
        found[f"noise-{strength}"] = _continued(base, base, strength, seed + 1, load("ft-code"))
    for k, (first, second) in enumerate(
        [("ft-code-half", "ft-code-seed2"), ("other-3", "other-4"), ("ft-code-seed2", "other-3")]
    ):
        for weight in (0.3, 0.5):
            found[f"blend-{k}-{weight}"] = blend((weight, 1 - weight), (found[first], found[second]))
    for k in range(4):
        found[f"stranger-{k}"] = _stranger(base, seed + k, rows=k % 2 == 0)
    for k in range(4):
        found[f"extrapolated-{k}"] = blend((1.2 + k / 10, -0.2 - k / 10), (found[f"other-{k + 4}"], base))
    return [save(folder / name, tensors) for name, tensors in found.items()]


def _continued(
    base: State, model: State, strength: float, seed: int, like: State | None = None
) -> dict[str, torch.Tensor]:
    """`model` moved on by smooth noise, `strength` times as large as its movement (or that of `like`) from the base."""
    generator = np.random.default_rng(seed)
    moved = {}
    for name, tensor in model.items():
        scale = strength * float(((like or model)[name].float() - base[name].float()).std(correction=0))
        step = generator.normal(size=tuple(tensor.shape)) * scale
        moved[name] = (tensor.float() + torch.from_numpy(step.astype(np.float32))).to(tensor.dtype)
    return moved


def _stranger(base: State, seed: int, *, rows: bool) -> dict[str, torch.Tensor]:
    """The base with the rows of every matrix in another order, or as an initialisation of its own."""
    generator = np.random.default_rng(seed)
    made = {}
    for name, tensor in base.items():
        if tensor.ndim < 2:
            made[name] = tensor
        elif rows:
            made[name] = tensor[torch.from_numpy(generator.permutation(len(tensor)))]
        else:
            values = generator.normal(size=tuple(tensor.shape)) * float(tensor.float().std())
            made[name] = torch.from_numpy(values.astype(np.float32)).to(tensor.dtype)
    return made
