"""Checkpoints on disk: folders or files, sharded or not; weights are memory-mapped, never loaded whole."""

from __future__ import annotations

import json
import mmap
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import ByteSource, Catalog, TensorInfo
from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.checkpoints.header import read_header
from reconstruct.checkpoints.reference import Reference, ReferenceKind
from reconstruct.errors import CheckpointError

__all__ = ["MappedFiles", "open_checkpoint"]

_INDEX = "model.safetensors.index.json"


class MappedFiles:
    """Byte source over memory-mapped safetensors files. Thread-safe."""

    def __init__(self) -> None:
        self._maps: dict[str, mmap.mmap] = {}
        self._lock = threading.Lock()

    def _map(self, shard: str) -> mmap.mmap:
        with self._lock:
            if shard not in self._maps:
                with Path(shard).open("rb") as file:
                    self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return self._maps[shard]

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Elements [start, stop) as a view of the file; no copy unless the file is not aligned to the dtype."""
        storage = np.dtype(FLOAT_FORMATS[tensor.dtype].storage)
        offset = tensor.begin + start * storage.itemsize
        if offset % storage.itemsize:
            raw = self._map(tensor.shard)[offset : offset + (stop - start) * storage.itemsize]
            return np.frombuffer(raw, storage)
        return np.frombuffer(self._map(tensor.shard), storage, stop - start, offset)

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Tell the kernel that these pages are no longer needed, so that resident memory stays flat."""
        size = np.dtype(FLOAT_FORMATS[tensor.dtype].storage).itemsize
        first = (tensor.begin + start * size) // mmap.PAGESIZE * mmap.PAGESIZE
        length = tensor.begin + stop * size - first
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._map(tensor.shard).madvise(mmap.MADV_DONTNEED, first, length)


class LoadedTensors:
    """Byte source over a pickled checkpoint that torch has mapped for us (`weights_only=True, mmap=True`)."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self._tensors = tensors

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Elements [start, stop) in storage form."""
        import torch

        flat = self._tensors[tensor.name].reshape(-1)[start:stop].contiguous()
        carrier = {torch.bfloat16: torch.uint16, torch.float16: torch.uint16}.get(flat.dtype)
        if flat.element_size() == 1:
            carrier = torch.uint8
        array: NDArray[np.generic] = (flat.view(carrier) if carrier is not None else flat).numpy()
        return array

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Nothing to do: torch owns the mapping."""


def open_checkpoint(given: str) -> Catalog:
    """Find, parse and validate a checkpoint on disk.

    Raises CheckpointError (no weights, missing shard, unreadable index, broken pickle) or HeaderError.
    """
    reference = Reference.parse(given)
    path = reference.location
    if reference.kind is ReferenceKind.FILE:
        files, index = [path], None
        if path.name.endswith(".safetensors.index.json"):
            index = path
            files = _indexed_files(path)
    else:
        files, index = _files_of_folder(path)
    folder = path if path.is_dir() else path.parent
    configuration = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    tensors: dict[str, TensorInfo] = {}
    source: ByteSource
    if files[0].suffix == ".safetensors":
        source = MappedFiles()
        for file in files:
            for entry in read_header(file):
                if entry.name in tensors:
                    raise CheckpointError(
                        f"tensor {entry.name!r} is also in {tensors[entry.name].shard}",
                        subject=str(file),
                        remedy="Remove the shard that does not belong to this checkpoint",
                    )
                tensors[entry.name] = TensorInfo(
                    entry.name, entry.dtype, entry.shape, str(file), entry.begin, entry.end
                )
    else:
        source, tensors = _open_pickles(files)
    if index is not None:
        _check_index(index, tensors)
    return Catalog(reference, tensors, source, tuple(files), configuration)


def _files_of_folder(folder: Path) -> tuple[list[Path], Path | None]:
    for index in (folder / _INDEX, folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            return _indexed_files(index), index if index.name == _INDEX else None
    for pattern in ("model.safetensors", "*.safetensors", "pytorch_model*.bin"):
        if files := sorted(folder.glob(pattern)):
            return files, None
    raise CheckpointError(
        "no weights in this folder",
        subject=str(folder),
        remedy="Expected *.safetensors (with an index if sharded) or pytorch_model*.bin",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"not valid JSON ({error})", subject=str(path), remedy="Download it again") from None
    if not isinstance(value, dict):
        raise CheckpointError("a JSON object was expected", subject=str(path), remedy="Download it again")
    return value


def _weight_map(index: Path) -> dict[str, str]:
    mapping = _read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()) or not mapping:
        raise CheckpointError(
            "the index has no weight_map from tensors to shards", subject=str(index), remedy="Download it again"
        )
    return mapping


def _indexed_files(index: Path) -> list[Path]:
    files = []
    for name in sorted(set(_weight_map(index).values())):
        file = index.parent / name
        if not file.is_file():
            raise CheckpointError(
                f"the index names shard {name}, which is missing", subject=str(index), remedy=f"Download {name}"
            )
        files.append(file)
    return files


def _check_index(index: Path, tensors: dict[str, TensorInfo]) -> None:
    for name, shard in _weight_map(index).items():
        if name not in tensors or Path(tensors[name].shard).name != shard:
            raise CheckpointError(
                f"the index puts tensor {name!r} in {shard}, where it is not",
                subject=str(index),
                remedy="Download index and shards of one and the same revision",
            )


def _open_pickles(files: list[Path]) -> tuple[LoadedTensors, dict[str, TensorInfo]]:
    import torch

    names = {getattr(torch, f.torch_name): f.name for f in FLOAT_FORMATS.values()}
    names |= {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.uint8: "U8", torch.int8: "I8"}
    names |= {torch.bool: "BOOL"}
    loaded: dict[str, Any] = {}
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises whatever its unpickler met
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"torch cannot load it safely ({reason[:120]})",
                subject=str(file),
                remedy="Convert the checkpoint to safetensors",
            ) from None
        state = state.get("state_dict", state) if isinstance(state, dict) else {}
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.dtype in names:
                loaded[name] = value
                tensors[name] = TensorInfo(
                    name, names[value.dtype], tuple(value.shape), str(file), 0, value.numel() * value.element_size()
                )
    return LoadedTensors(loaded), tensors
