"""A catalog lists the tensors of one checkpoint across its shards. No weights are read to make it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.reference import Reference, ReferenceKind

__all__ = ["ByteSource", "Catalog", "FileState", "TensorInfo"]


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


@dataclass(frozen=True)
class FileState:
    """A weight file as it was found. `version` changes with its content: modification time on disk, ETag elsewhere."""

    name: str
    size: int
    version: str


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
    files: tuple[FileState, ...]
    configuration: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Number of elements over all tensors."""
        return sum(t.elements for t in self.tensors.values())

    def fingerprint(self) -> str:
        """Names, dtypes, shapes, offsets, every file's name, size and version, and a repository's name and commit, as a
        SHA-256 digest.
        """
        digest = hashlib.sha256()
        if self.reference.kind is ReferenceKind.REPOSITORY:
            digest.update(f"{self.reference.address}\0".encode())
        for file in self.files:
            digest.update(f"{file.name}\0{file.size}\0{file.version}\0".encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]  # the folder is not part of it: a moved checkpoint is the same checkpoint
            place = (PurePath(tensor.shard).name, tensor.begin, tensor.end)
            digest.update(repr((name, tensor.dtype, tensor.shape, *place)).encode())
        return digest.hexdigest()
