"""A catalog lists the tensors of one checkpoint across its shards. No weights are read to make it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.reference import Reference

__all__ = ["ByteSource", "Catalog", "TensorInfo"]


@dataclass(frozen=True)
class TensorInfo:
    """One named array: where its bytes are and what they mean. `begin`, `end`: byte positions in `shard`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class ByteSource(Protocol):
    """Gives the bits of part of a tensor, and forgets them when told."""

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Elements [start, stop) of the flattened tensor in storage form (see `dtypes`), 1-D, read-only."""
        ...

    def ahead(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Elements [start, stop) will be read soon."""
        ...

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Let go of the memory behind elements [start, stop)."""
        ...


@dataclass(frozen=True)
class Catalog:
    """All tensors of one checkpoint, its configuration, and the source of its bytes."""

    reference: Reference
    tensors: dict[str, TensorInfo]
    source: ByteSource
    files: tuple[Path, ...]
    configuration: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Number of elements over all tensors."""
        return sum(t.elements for t in self.tensors.values())

    def fingerprint(self) -> str:
        """Names, dtypes, shapes, offsets, and every file's name, size and modification time, as a SHA-256 digest."""
        digest = hashlib.sha256()
        for path in self.files:
            status = path.stat()
            digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]  # the folder is not part of it: a moved checkpoint is the same checkpoint
            place = (Path(tensor.shard).name, tensor.begin, tensor.end)
            digest.update(repr((name, tensor.dtype, tensor.shape, *place)).encode())
        return digest.hexdigest()
