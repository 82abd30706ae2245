"""Checkpoints of any size for benchmarks: the tiny trained family's tensors, tiled by rows, in so many layers.

The weights are real ones repeated, so that deltas, rounding and hit rates are those of trained models.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FAMILY = Path(__file__).resolve().parents[2] / "tests" / "support" / "family"
LAYERS = 12


def _state(name: str) -> dict[str, torch.Tensor]:
    return load_file(FAMILY / name / "model.safetensors")


def blended(weights: tuple[float, ...], names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A float32 blend of family members, rounded once."""
    models = [_state(name) for name in names]
    return {
        k: sum((w * m[k].float() for w, m in zip(weights, models, strict=True)), torch.zeros(())).bfloat16()
        for k in models[0]
    }


def write_tiled(folder: Path, tensors: dict[str, torch.Tensor], total_bytes: int) -> None:
    """Write about `total_bytes` in one shard a layer, with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = {k: v for k, v in tensors.items() if ".layers." in k and v.ndim == 2}
    one = sum(v.numel() * 2 for v in blocks.values()) / 3  # a layer of the family
    times = max(1, round(total_bytes / LAYERS / one))
    weight_map = {}
    for layer in range(LAYERS):
        shard = f"model-{layer + 1:05d}-of-{LAYERS:05d}.safetensors"
        content = {
            k.replace(f".layers.{layer % 3}.", f".layers.{layer}."): v.repeat(times, 1)
            for k, v in blocks.items()
            if f".layers.{layer % 3}." in k
        }
        save_file(content, folder / shard)
        weight_map |= dict.fromkeys(content, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_models(folder: Path, total_bytes: int) -> dict[str, Path]:
    """suspect (.6 / .4 of two fine-tunes), base, and the two fine-tunes."""
    content = {
        "suspect": blended((0.6, 0.4), ("ft-code", "ft-docs")),
        "base": _state("base"), "ft-code": _state("ft-code"), "ft-docs": _state("ft-docs"),
    }  # fmt: skip
    for name, tensors in content.items():
        write_tiled(folder / name, tensors, total_bytes)
    return {name: folder / name for name in content}
