"""Checkpoints on disk: folders or files, sharded or not; weights are memory-mapped, never loaded whole."""

from __future__ import annotations

import mmap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import ByteSource, Catalog, FileState, TensorInfo
from reconstruct.checkpoints.element_ranges import element_range
from reconstruct.checkpoints.header import read_header
from reconstruct.checkpoints.reference import Reference
from reconstruct.checkpoints.shards import check_index, joined
from reconstruct.checkpoints.weight_choice import weight_map
from reconstruct.checkpoints.weight_files import find_weights, read_json, readable

if TYPE_CHECKING:
    import torch

__all__ = ["MappedFiles", "file_state", "open_local"]


class MappedFiles:
    """Byte source over memory-mapped safetensors files. Thread-safe."""

    def __init__(self) -> None:
        self._maps: dict[str, mmap.mmap] = {}
        self._lock = threading.Lock()

    def _map(self, shard: str) -> mmap.mmap:
        with self._lock:
            if shard not in self._maps:
                with readable(Path(shard)), Path(shard).open("rb") as file:
                    self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return self._maps[shard]

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Elements [start, stop) as a view of the file; no copy unless the file is not aligned to the dtype."""
        return element_range(tensor, start, stop).view(self._map(tensor.shard), 0)

    def bytes(self, shard: str, begin: int, end: int) -> memoryview:
        """Bytes [begin, end) of a file, as a view of it."""
        return memoryview(self._map(shard))[begin:end]

    def ahead(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Have the kernel read these pages while others are worked on."""
        self._advise("MADV_WILLNEED", tensor, start, stop)

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Tell the kernel that these pages are no longer needed, so that resident memory stays flat."""
        self._advise("MADV_DONTNEED", tensor, start, stop)

    def _advise(self, advice: str, tensor: TensorInfo, start: int, stop: int) -> None:
        asked = element_range(tensor, start, stop)
        first = asked.begin // mmap.PAGESIZE * mmap.PAGESIZE
        length = asked.end - first
        if length > 0 and hasattr(mmap, advice):
            self._map(tensor.shard).madvise(getattr(mmap, advice), first, length)


def open_local(reference: Reference) -> Catalog:
    """Parse and validate a checkpoint on disk: `reference` of kind FOLDER or FILE.

    Raises CheckpointError (no weights, missing shard, unreadable file, broken pickle) or HeaderError.
    """
    files, index = find_weights(reference)
    path = reference.path
    described = (path if path.is_dir() else path.parent) / "config.json"
    configuration = read_json(described) if described.is_file() else {}
    source, listed = _open_mapped(files) if files[0].suffix == ".safetensors" else _open_pickles(files)
    tensors = joined(listed)
    if index is not None:
        check_index(weight_map(read_json(index), str(index)), tensors, str(index))
    return Catalog(reference, tensors, source, tuple(file_state(file) for file in files), configuration)


def file_state(file: Path) -> FileState:
    """What tells whether a file on disk has changed. Raises CheckpointError."""
    with readable(file):
        status = file.stat()
    return FileState(file.name, status.st_size, str(status.st_mtime_ns))


def _open_mapped(files: list[Path]) -> tuple[ByteSource, list[TensorInfo]]:
    listed = []
    for file in files:
        with readable(file):
            entries = read_header(file)
        listed += [TensorInfo(e.name, e.dtype, e.shape, str(file), e.begin, e.end) for e in entries]
    return MappedFiles(), listed


def _open_pickles(files: list[Path]) -> tuple[ByteSource, list[TensorInfo]]:
    from reconstruct.checkpoints.pickles import LoadedTensors, open_pickle  # imports torch: only where it is needed

    loaded: dict[str, torch.Tensor] = {}
    listed: list[TensorInfo] = []
    for file in files:
        tensors, infos = open_pickle(file)
        loaded |= tensors
        listed += infos
    return LoadedTensors(loaded), listed
