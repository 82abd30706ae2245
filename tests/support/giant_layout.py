"""Checkpoints of 397 billion parameters that exist as names and headers; their bytes are made when they are read.

60 layers, three of four with Gated DeltaNet (`linear_attn`), every fourth with full attention; 512 experts, one tensor
each or fused; 94 shards, 800 GB in bfloat16. Every element follows from tensor, position and seed by a counter-based
generator, so that any range of any shard takes no more time than its length.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.header import parse_header
from reconstruct.checkpoints.reference import Reference, ReferenceKind
from reconstruct.kernels.formats import decode

WEIGHT = 0.565  # of the fine-tune in the blend; the rest is the base's

_QUANTILES = (np.arange(1 << 16) + 0.5) / (1 << 16)
_NORMAL = (0.02 * ndtri(_QUANTILES)).astype(np.float32)
_HEAVY = (1.5e-4 * stdtrit(3, _QUANTILES)).astype(np.float32)  # a spacing or two of most weights, tails of many


@dataclass(frozen=True)
class Layout:
    """Sizes; the defaults are the full scale. `fused`: experts in one tensor [experts, ...]."""

    layers: int = 60
    experts: int = 512
    hidden: int = 4096
    intermediate: int = 1024
    vocabulary: int = 248_320
    shards: int = 94
    fused: bool = False

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes in the order of the files."""
        h, m = self.hidden, self.intermediate
        yield "model.language_model.embed_tokens.weight", (self.vocabulary, h)
        for layer in range(self.layers):
            prefix = f"model.language_model.layers.{layer}."
            for name, shape in self._layer(layer, h, m):
                yield prefix + name, shape
        yield "model.language_model.norm.weight", (h,)
        yield "lm_head.weight", (self.vocabulary, h)

    def _layer(self, layer: int, h: int, m: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "input_layernorm.weight", (h,)
        if layer % 4 == 3:
            yield "self_attn.q_proj.weight", (4 * h, h)
            yield "self_attn.k_proj.weight", (h // 8, h)
            yield "self_attn.v_proj.weight", (h // 8, h)
            yield "self_attn.o_proj.weight", (h, 2 * h)
            yield "self_attn.q_norm.weight", (h // 16,)
            yield "self_attn.k_norm.weight", (h // 16,)
        else:
            yield "linear_attn.in_proj_qkv.weight", (3 * h, h)
            yield "linear_attn.in_proj_z.weight", (2 * h, h)
            yield "linear_attn.in_proj_b.weight", (h // 64, h)
            yield "linear_attn.in_proj_a.weight", (h // 64, h)
            yield "linear_attn.conv1d.weight", (3 * h, 1, 4)
            yield "linear_attn.out_proj.weight", (h, 2 * h)
            yield "linear_attn.norm.weight", (h // 32,)
            yield "linear_attn.A_log", (h // 64,)
            yield "linear_attn.dt_bias", (h // 64,)
        yield "post_attention_layernorm.weight", (h,)
        yield "mlp.gate.weight", (self.experts, h)
        if self.fused:
            yield "mlp.experts.gate_up_proj", (self.experts, 2 * m, h)
            yield "mlp.experts.down_proj", (self.experts, h, m)
        else:
            for expert in range(self.experts):
                yield f"mlp.experts.{expert}.gate_proj.weight", (m, h)
                yield f"mlp.experts.{expert}.up_proj.weight", (m, h)
                yield f"mlp.experts.{expert}.down_proj.weight", (h, m)
        yield "mlp.shared_expert.gate_proj.weight", (m, h)
        yield "mlp.shared_expert.up_proj.weight", (m, h)
        yield "mlp.shared_expert.down_proj.weight", (h, m)
        yield "mlp.shared_expert_gate.weight", (1, h)


def elements(name: str, model: str, start: int, stop: int) -> NDArray[np.uint16]:
    """bfloat16 bits of elements [start, stop) of a tensor. `model`: "base", "fine-tune <n>" (each its own) or "blend",
    which is .565 of the first fine-tune and .435 of the base as mergekit's linear computes it.
    """
    base = _rounded(_drawn(_NORMAL, name, "base", start, stop))
    if model == "base":
        return base
    if model == "blend":
        tuned = decode(elements(name, "fine-tune 1", start, stop), "BF16").astype(np.float64)
        # A fused multiply-add rounds the exact sum to float32: float64 holds products of these numbers exactly.
        total = (float(np.float32(WEIGHT)) * tuned).astype(np.float32)
        rest = float(np.float32(1 - WEIGHT)) * decode(base, "BF16").astype(np.float64)
        return _rounded((total.astype(np.float64) + rest).astype(np.float32))
    depth = int(name.split(".layers.")[1].split(".")[0]) if ".layers." in name else 0
    return _rounded(decode(base, "BF16") + np.float32(1 + depth / 30) * _drawn(_HEAVY, name, model, start, stop))


def _drawn(table: NDArray[np.float32], name: str, stream: str, start: int, stop: int) -> NDArray[np.float32]:
    """A quantile for every position, by a hash of it (the finaliser of splitmix64)."""
    seed = int.from_bytes(hashlib.blake2b(f"{name}\0{stream}".encode(), digest_size=8).digest(), "little")
    with np.errstate(over="ignore"):
        x = np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return table[(x >> np.uint64(48)).astype(np.intp)]


def _rounded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """To nearest even."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


class Shard:
    """One file: `size` bytes, any of which can be read."""

    def __init__(self, model: str, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
        header, position = {}, 0
        self._model, self._names, self._ends = model, [name for name, _ in tensors], []
        for name, shape in tensors:
            size = 2 * int(np.prod(shape, dtype=np.int64))
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
            position += size
            self._ends.append(position)
        raw = json.dumps(header).encode()
        raw += b" " * (-len(raw) % 8)
        self.header = struct.pack("<Q", len(raw)) + raw
        self.size = len(self.header) + position

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop)."""
        found = [self.header[start:stop]]
        first, last = max(start - len(self.header), 0), stop - len(self.header)
        position = bisect.bisect_right(self._ends, first)
        while first < last:
            origin, end = (self._ends[position - 1] if position else 0), min(self._ends[position], last)
            begin = (first - origin) // 2
            bits = elements(self._names[position], self._model, begin, -(-(end - origin) // 2))
            skip = first - origin - 2 * begin
            found.append(bits.tobytes()[skip : skip + end - first])
            first, position = end, position + 1
        return b"".join(found)


class _GeneratedSource:
    """A byte source; `bytes` that were read of it."""

    def __init__(self, model: str) -> None:
        self.model, self.bytes = model, 0

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        self.bytes += 2 * (stop - start)
        return elements(tensor.name, self.model, start, stop)

    def ahead(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Nothing to prepare."""

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Nothing to let go of."""


@dataclass
class Repository:
    """A model of this layout: files by name, each with `size` and `read(start, stop)`."""

    model: str
    layout: Layout = field(default_factory=Layout)

    def __post_init__(self) -> None:
        tensors = list(self.layout.tensors())
        total = sum(2 * int(np.prod(shape, dtype=np.int64)) for _, shape in tensors)
        groups: list[list[tuple[str, tuple[int, ...]]]] = [[] for _ in range(self.layout.shards)]
        position = 0
        for name, shape in tensors:
            groups[min(position * self.layout.shards // total, self.layout.shards - 1)].append((name, shape))
            position += 2 * int(np.prod(shape, dtype=np.int64))
        groups = [group for group in groups if group]
        names = [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
        self.files = {name: Shard(self.model, group) for name, group in zip(names, groups, strict=True)}
        self.index = {name: file for file, group in zip(names, groups, strict=True) for name, _ in group}
        self.size = total

    def contents(self) -> dict[str, Shard | bytes]:
        """All files, as a Hub serves them: shards, index and configuration."""
        index = {"metadata": {"total_size": self.size}, "weight_map": self.index}
        return {**self.files, "model.safetensors.index.json": json.dumps(index).encode(), "config.json": b"{}"}

    def catalog(self, given: str) -> Catalog:
        """As if opened: the headers are parsed, and nothing else is read."""
        infos = {}
        for file, shard in self.files.items():
            entries = parse_header(shard.header[8:], file_size=shard.size, subject=file)
            infos |= {e.name: TensorInfo(e.name, e.dtype, e.shape, file, e.begin, e.end) for e in entries}
        reference = Reference(ReferenceKind.FOLDER, Path(given), given)
        return Catalog(reference, infos, _GeneratedSource(self.model), ())


__all__ = ["WEIGHT", "Layout", "Repository", "Shard", "elements"]
