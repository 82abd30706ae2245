"""Checkpoints on disk: folders or files, sharded or not; weights are memory-mapped, never loaded whole."""

from __future__ import annotations

import mmap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import ByteSource, Catalog, TensorInfo
from reconstruct.checkpoints.header import read_header
from reconstruct.checkpoints.reference import Reference
from reconstruct.checkpoints.weight_files import find_weights, read_json, readable, weight_map
from reconstruct.errors import CheckpointError
from reconstruct.kernels.formats import FLOAT_FORMATS

if TYPE_CHECKING:
    import torch

__all__ = ["MappedFiles", "open_checkpoint"]


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
        storage = np.dtype(FLOAT_FORMATS[tensor.dtype].storage)
        if not 0 <= start <= stop <= tensor.elements:
            raise ValueError(f"elements {start} to {stop} of a tensor of {tensor.elements}")
        offset = tensor.begin + start * storage.itemsize
        if offset % storage.itemsize:
            raw = self._map(tensor.shard)[offset : offset + (stop - start) * storage.itemsize]
            return np.frombuffer(raw, storage)
        return np.frombuffer(self._map(tensor.shard), storage, stop - start, offset)

    def ahead(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Have the kernel read these pages while others are worked on."""
        self._advise("MADV_WILLNEED", tensor, start, stop)

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Tell the kernel that these pages are no longer needed, so that resident memory stays flat."""
        self._advise("MADV_DONTNEED", tensor, start, stop)

    def _advise(self, advice: str, tensor: TensorInfo, start: int, stop: int) -> None:
        size = np.dtype(FLOAT_FORMATS[tensor.dtype].storage).itemsize
        first = (tensor.begin + start * size) // mmap.PAGESIZE * mmap.PAGESIZE
        length = tensor.begin + stop * size - first
        if length > 0 and hasattr(mmap, advice):
            self._map(tensor.shard).madvise(getattr(mmap, advice), first, length)


def open_checkpoint(given: str) -> Catalog:
    """Find, parse and validate a checkpoint on disk.

    Raises CheckpointError (no weights, missing shard, unreadable file, broken pickle) or HeaderError.
    """
    reference = Reference.parse(given)
    files, index = find_weights(reference)
    described = (reference.location if reference.location.is_dir() else reference.location.parent) / "config.json"
    configuration = read_json(described) if described.is_file() else {}
    source, listed = _open_mapped(files) if files[0].suffix == ".safetensors" else _open_pickles(files)
    tensors: dict[str, TensorInfo] = {}
    for info in listed:
        if info.name in tensors:
            raise CheckpointError(
                f"tensor {info.name!r} is also in {tensors[info.name].shard}",
                subject=info.shard,
                remedy="Remove the shard that does not belong to this checkpoint",
            )
        tensors[info.name] = info
    if index is not None:
        _check_index(index, tensors)
    return Catalog(reference, tensors, source, tuple(files), configuration)


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


def _check_index(index: Path, tensors: dict[str, TensorInfo]) -> None:
    for name, shard in weight_map(index).items():
        if name not in tensors or Path(tensors[name].shard).name != shard:
            raise CheckpointError(
                f"the index puts tensor {name!r} in {shard}, where it is not",
                subject=str(index),
                remedy="Download index and shards of one and the same revision",
            )
