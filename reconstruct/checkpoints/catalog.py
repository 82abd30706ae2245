"""A catalog lists the tensors of one checkpoint across its shards. No weights are read to make it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.reference import Reference, ReferenceKind, base_and_adapter

__all__ = ["ByteSource", "Catalog", "DerivedTensor", "DerivingSource", "FileState", "TensorInfo", "stored_parts"]


@dataclass(frozen=True, slots=True)
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

    def cost(self, start: int, stop: int) -> int:
        """Bytes that are read for elements [start, stop) of the flattened tensor."""
        return (stop - start) * ((self.end - self.begin) // max(self.elements, 1))


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


@dataclass(frozen=True, slots=True)
class DerivedTensor(TensorInfo):
    """A tensor that no file holds as it is: computed from stored ones, some elements at a time.

    `dtype` is what it is served as, `begin` 0 and `end` its size in bytes; `shard` says what it is derived from and is
    no path: nobody can take the first bytes of a file for it.
    """

    @staticmethod
    def place(main: TensorInfo) -> str:
        """What stands for the shard of a tensor derived (mainly) from `main`."""
        return main.shard if isinstance(main, DerivedTensor) else f"derived from {main.shard}"

    @property
    def note(self) -> str | None:
        """What a report should say of how it came about."""
        return None

    @property
    def gapped(self) -> bool:
        """Whether its numbers are known to lie on a lattice with gaps, however many of them hide these."""
        return False

    def reads(self, start: int, stop: int) -> Sequence[tuple[TensorInfo, int, int]]:
        """The tensors, and which elements of each, that elements [start, stop) are computed from."""
        raise NotImplementedError

    def compute(self, source: ByteSource, start: int, stop: int) -> NDArray[np.generic]:
        """Elements [start, stop) of the flattened tensor in storage form, 1-D; the same for any range around them."""
        raise NotImplementedError

    def cost(self, start: int, stop: int) -> int:
        """Bytes that are read for elements [start, stop)."""
        return sum(info.cost(first, last) for info, first, last in self.reads(start, stop))


class DerivingSource:
    """Byte source that computes derived tensors from those of another source, and passes stored ones on."""

    def __init__(self, stored: ByteSource) -> None:
        self.stored = stored

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Elements [start, stop) of a stored or derived tensor in storage form."""
        if not isinstance(tensor, DerivedTensor):
            return self.stored.read(tensor, start, stop)
        if not 0 <= start <= stop <= tensor.elements:
            raise ValueError(f"elements {start} to {stop} of a tensor of {tensor.elements}")
        return tensor.compute(self, start, stop)

    def ahead(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Elements [start, stop) will be read soon, or what they are computed from."""
        for part, first, last in stored_parts(tensor, start, stop):
            self.stored.ahead(part, first, last)

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Let go of the memory behind elements [start, stop)."""
        for part, first, last in stored_parts(tensor, start, stop):
            self.stored.release(part, first, last)


def stored_parts(tensor: TensorInfo, start: int, stop: int) -> list[tuple[TensorInfo, int, int]]:
    """The stored tensors, and which elements of each, that elements [start, stop) are read from: itself, if stored."""
    if not isinstance(tensor, DerivedTensor):
        return [(tensor, start, stop)]
    return [stored for part in tensor.reads(start, stop) for stored in stored_parts(*part)]


@dataclass(frozen=True)
class Catalog:
    """All tensors of one checkpoint, its configuration, and the source of its bytes, which also serves derived ones.
    `adapted`: the base, where `reference` is an adapter to it.
    """

    reference: Reference
    tensors: dict[str, TensorInfo]
    source: ByteSource
    files: tuple[FileState, ...]
    configuration: dict[str, Any] = field(default_factory=dict)
    adapted: Reference | None = None

    def __post_init__(self) -> None:
        # Alignment makes derived tensors of any catalog, whoever opened it.
        if not isinstance(self.source, DerivingSource):
            object.__setattr__(self, "source", DerivingSource(self.source))

    @property
    def references(self) -> tuple[Reference, ...]:
        """What it is made of: one checkpoint, or a base and an adapter."""
        return (self.reference,) if self.adapted is None else (self.adapted, self.reference)

    @property
    def address(self) -> str:
        """What names the same model later: "org/name@commit", an absolute path; "base+adapter" of these."""
        return "+".join(reference.address for reference in self.references)

    @property
    def pair(self) -> str | None:
        """How mergekit names an adapter with its base: "base+adapter", by their names as given; None for others."""
        if self.adapted is None:
            return None
        given = self.reference.given
        # Whoever gave the pair gave its name.
        return given if base_and_adapter(given) is not None else f"{self.adapted.given}+{given}"

    def named(self, given: str) -> Catalog:
        """The same checkpoint under the name that the user, or a run, knows it by."""
        return replace(self, reference=replace(self.reference, given=given))

    @property
    def parameters(self) -> int:
        """Number of elements over all tensors."""
        return sum(t.elements for t in self.tensors.values())

    def fingerprint(self) -> str:
        """Names, dtypes, shapes, offsets, every file's name, size and version, and a repository's name and commit, as a
        SHA-256 digest.
        """
        digest = hashlib.sha256()
        for reference in self.references:
            if reference.kind is ReferenceKind.REPOSITORY:
                digest.update(f"{reference.address}\0".encode())
        for file in self.files:
            digest.update(f"{file.name}\0{file.size}\0{file.version}\0".encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]  # the folder is not part of it: a moved checkpoint is the same checkpoint
            place = (PurePath(tensor.shard).name, tensor.begin, tensor.end)
            digest.update(repr((name, tensor.dtype, tensor.shape, *place)).encode())
        return digest.hexdigest()
