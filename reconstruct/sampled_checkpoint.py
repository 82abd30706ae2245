"""The rows that a verdict rests on, as small safetensors files in the run folder: one a model, in its own dtypes.

A sampled tensor is [rows read, row length] (a vector as it is) under the suspect's name; the file's metadata says for
each which rows they are, of which shape and tensor, in which file. Everything after the reading works on these files as
on any checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.alignment import AlignedTensor, Alignment
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import StoreError
from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.row_sampling import ROW_PLAN, RowRange, row_length

__all__ = ["file_of_model", "open_sampled", "write_sampled"]

_Bits = Callable[[RowRange, str], NDArray[np.generic]]


def file_of_model(folder: Path, model: int) -> Path:
    """Where the sampled rows of a model lie; 0 is the suspect."""
    return folder / ("suspect.safetensors" if model == 0 else f"source-{model}.safetensors")


def write_sampled(
    path: Path,
    model: int,
    catalog: Catalog,
    tensors: Sequence[AlignedTensor],
    ranges: Sequence[RowRange],
    bits: _Bits,
    facts: dict[str, str],
) -> None:
    """Write the ranges of one model, whole or not at all. `bits`: (range, dtype) -> its elements in storage form;
    `facts`: further metadata. Raises StoreError where the file cannot be written.
    """
    header: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    position = 0
    chosen = _by_tensor(ranges)
    for index, parts in chosen.items():
        tensor, info = tensors[index], tensors[index].sources[model]
        length = row_length(tensor)
        size = sum(part.stop - part.start for part in parts) * np.dtype(FLOAT_FORMATS[info.dtype].storage).itemsize
        header[tensor.name] = {
            "dtype": info.dtype, "shape": _shape(tensor, parts), "data_offsets": [position, position + size]
        }  # fmt: skip
        rows[tensor.name] = {
            "tensor": info.name, "file": Path(info.shard).name, "shape": info.shape,
            "rows": [[part.start // length, part.stop // length] for part in parts],
        }  # fmt: skip
        position += size
    header["__metadata__"] = facts | {
        "format": "pt", "model": catalog.reference.given, "revision": catalog.reference.revision or "",
        "row_plan": ROW_PLAN, "rows": json.dumps(rows),
    }  # fmt: skip
    raw = json.dumps(header, ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    draft = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(struct.pack("<Q", len(raw)) + raw)
            for index, parts in chosen.items():
                for part in parts:
                    file.write(bits(part, tensors[index].sources[model].dtype).tobytes())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"cannot be written ({error})", subject=str(path), remedy="Make room, and resume") from None


def open_sampled(
    folder: Path, catalogs: Sequence[Catalog], alignment: Alignment, ranges: Sequence[RowRange]
) -> tuple[list[Catalog], Alignment]:
    """The sampled files of all models under the models' own names, and what is compared of them.

    Raises CheckpointError or StoreError for files that are missing, damaged or of another plan.
    """
    opened = []
    for model, catalog in enumerate(catalogs):
        opened.append(open_checkpoint(str(file_of_model(folder, model))).named(catalog.reference.given))
    return opened, Alignment(tuple(_sampled(opened, alignment, ranges, folder)), alignment.left_out)


def _sampled(
    opened: Sequence[Catalog], alignment: Alignment, ranges: Sequence[RowRange], folder: Path
) -> Iterator[AlignedTensor]:
    for index, parts in _by_tensor(ranges).items():
        tensor = alignment.tensors[index]
        shape = tuple(_shape(tensor, parts))
        sources = [catalog.tensors.get(tensor.name) for catalog in opened]
        if any(source is None or source.shape != shape for source in sources):
            raise StoreError(
                f"not the rows of {tensor.name} that were planned", subject=str(folder), remedy="Start a new run"
            )
        total, read = tensor.elements // row_length(tensor), shape[0] if tensor.is_matrix else 1
        note = (f"{read:,} of {total:,} rows were read",) if read < total else ()
        yield replace(tensor, shape=shape, sources=tuple(s for s in sources if s), notes=(*tensor.notes, *note))


def _by_tensor(ranges: Sequence[RowRange]) -> dict[int, list[RowRange]]:
    """Position in the alignment -> its ranges, both ascending."""
    found: dict[int, list[RowRange]] = {}
    for item in sorted(ranges, key=lambda r: (r.tensor, r.start)):
        found.setdefault(item.tensor, []).append(item)
    return found


def _shape(tensor: AlignedTensor, parts: Sequence[RowRange]) -> list[int]:
    """[rows read, row length]; a vector's and a whole tensor's own shape."""
    read = sum(part.stop - part.start for part in parts)
    if read == math.prod(tensor.shape):
        return list(tensor.shape)
    length = row_length(tensor)
    return [read // length, length]
