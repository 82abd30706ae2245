"""Checkpoints of any size whose bytes are made when they are read: a layout of hundreds of gigabytes takes no space."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import numpy as np

__all__ = ["GeneratedShard", "generated_model"]

_WORD = 8


@dataclass(frozen=True)
class GeneratedShard:
    """A safetensors file with the given header; every eight bytes of its data are a hash of their place."""

    head: bytes
    size: int
    seed: int

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop)."""
        first = start // _WORD
        places = np.arange(first, -(-stop // _WORD), dtype=np.uint64)
        words = (places + np.uint64(self.seed)) * np.uint64(0x9E3779B97F4A7C15)
        words ^= words >> np.uint64(29)
        made = bytearray(words.astype("<u8").tobytes()[start - first * _WORD : stop - first * _WORD])
        if start < len(self.head):
            made[: len(self.head) - start] = self.head[start:stop]
        return bytes(made[: stop - start])


def generated_model(
    shards: int, tensors: int, shape: tuple[int, int], seed: int = 0, *, prefix: str = "model.layers"
) -> dict[str, GeneratedShard | bytes]:
    """File name -> content: so many BF16 shards of so many tensors each, their index and a configuration."""
    files: dict[str, GeneratedShard | bytes] = {}
    mapping = {}
    size = 2 * shape[0] * shape[1]
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        entries = {
            f"{prefix}.{shard}.mlp.experts.{k}.down_proj.weight": {
                "dtype": "BF16", "shape": list(shape), "data_offsets": [k * size, (k + 1) * size],
            }
            for k in range(tensors)
        }  # fmt: skip
        raw = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        head = struct.pack("<Q", len(raw)) + raw
        files[name] = GeneratedShard(head, len(head) + tensors * size, seed + shard)
        mapping |= dict.fromkeys(entries, name)
    files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": mapping}).encode()
    files["config.json"] = b'{"model_type": "qwen3_moe"}'
    return files
