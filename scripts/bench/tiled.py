"""Checkpoints of any size for benchmarks: the tiny trained family's tensors, tiled by rows, in so many layers.

The weights are real ones repeated, so that deltas, rounding and hit rates are those of trained models.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FAMILY = Path(__file__).resolve().parents[2] / "tests" / "support" / "family"
LAYERS, FAMILY_LAYERS = 12, 3


def family_member(name: str) -> dict[str, torch.Tensor]:
    """All tensors of a member of the trained test family."""
    return load_file(FAMILY / name / "model.safetensors")


def blended(weights: tuple[float, ...], names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A float32 blend of family members, rounded once."""
    models = [family_member(name) for name in names]
    return {
        k: sum((w * m[k].float() for w, m in zip(weights, models, strict=True)), torch.zeros(())).bfloat16()
        for k in models[0]
    }


def write_tiled(folder: Path, tensors: dict[str, torch.Tensor], total_bytes: int) -> None:
    """Write about `total_bytes` in one shard a layer, with an index and a configuration: a model that merge programs
    take. Vectors, embedding and head stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks = {k: v for k, v in tensors.items() if ".layers." in k}
    one = sum(v.numel() * 2 for v in blocks.values() if v.ndim == 2) / FAMILY_LAYERS
    times = max(1, round(total_bytes / LAYERS / one))
    weight_map = {}
    for layer in range(LAYERS):
        shard = f"model-{layer + 1:05d}-of-{LAYERS:05d}.safetensors"
        place = f".layers.{layer % FAMILY_LAYERS}."
        content = {
            k.replace(place, f".layers.{layer}."): v.repeat(times, 1) if v.ndim == 2 else v
            for k, v in blocks.items()
            if place in k
        }
        if layer == 0:
            content |= {k: v for k, v in tensors.items() if k not in blocks}
        save_file(content, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(content, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    configuration = json.loads((FAMILY / "base" / "config.json").read_text())
    configuration |= {"num_hidden_layers": LAYERS, "layer_types": ["full_attention"] * LAYERS}
    (folder / "config.json").write_text(json.dumps(configuration))


def write_models(folder: Path, total_bytes: int) -> dict[str, Path]:
    """suspect (.6 / .4 of two fine-tunes), base, and the two fine-tunes."""
    content = {
        "suspect": blended((0.6, 0.4), ("ft-code", "ft-docs")),
        "base": family_member("base"), "ft-code": family_member("ft-code"), "ft-docs": family_member("ft-docs"),
    }  # fmt: skip
    for name, tensors in content.items():
        write_tiled(folder / name, tensors, total_bytes)
    return {name: folder / name for name in content}
