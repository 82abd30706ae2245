"""The tiny trained family beside this file (see scripts/train_demo_family.py), and merges of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent / "family"
BASE, CODE, DOCS, CODE_HALF, CODE_SEED2 = (
    FOLDER / name for name in ("base", "ft-code", "ft-docs", "ft-code-half", "ft-code-seed2")
)
NAMES = ("base", "ft-code", "ft-docs", "ft-code-half", "ft-code-seed2")

State = Mapping[str, torch.Tensor]


def load(name: str) -> dict[str, torch.Tensor]:
    """All tensors of one member, bfloat16."""
    return load_file(FOLDER / name / "model.safetensors")


def save(folder: Path, tensors: State, config: bool = True) -> Path:
    """Write a checkpoint folder (with the family's config.json) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    if config:
        shutil.copyfile(BASE / "config.json", folder / "config.json")
    return folder


def blend(
    weights: Sequence[float], models: Sequence[State], dtype: torch.dtype = torch.bfloat16
) -> dict[str, torch.Tensor]:
    """The weighted sum of models, added in float32 in the given order and rounded once to `dtype`."""
    merged = {}
    for name, first in models[0].items():
        total = torch.zeros_like(first, dtype=torch.float32)
        for weight, model in zip(weights, models, strict=True):
            total += weight * model[name].float()
        merged[name] = total.to(dtype)
    return merged
