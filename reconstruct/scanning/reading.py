"""The planned rows of one model: read once, kept as a small checkpoint in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.fetch import Request, fetch_ranges
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import NonFiniteError
from reconstruct.kernels.formats import decode
from reconstruct.row_sampling import RowRange
from reconstruct.sampled_checkpoint import write_sampled
from reconstruct.scanning.rows import ScanRows

__all__ = ["open_rows", "read_rows"]

_WORKERS = 16  # requests under way at once, where they are requests


def read_rows(
    path: Path, rows: ScanRows, catalog: Catalog, tensors: Sequence[AlignedTensor], advance: Callable[[int], None]
) -> int:
    """Read the rows of `tensors` (see `pairing`) and write them to `path`, whole or not at all; bytes read.

    Raises NonFiniteError for NaN or infinite weights, StoreError for a full disk, and what the source raises.
    """
    wanted: dict[Request, list[RowRange]] = {}  # a tied tensor serves two
    for item in rows.ranges:
        wanted.setdefault((tensors[item.tensor].sources[0], item.start, item.stop), []).append(item)
    bits: dict[RowRange, NDArray[np.generic]] = {}
    size = 0
    for request, array in fetch_ranges(catalog, list(wanted), _WORKERS, gap=0):
        info, start, stop = request
        if not np.isfinite(decode(array, info.dtype)).all():
            raise NonFiniteError(
                f"NaN or infinite weights in {info.name}", subject=catalog.reference.given, remedy="Repair the file"
            )
        bits |= dict.fromkeys(wanted[request], array)
        size += info.cost(start, stop)
        advance(info.cost(start, stop))
    write_sampled(path, 0, catalog, tensors, rows.ranges, lambda item, _dtype: bits[item], {"verb": "scan"})
    return size


def open_rows(path: Path, given: str) -> Catalog:
    """A file of `read_rows` under the model's own name. Raises CheckpointError for one that is missing or damaged."""
    return open_checkpoint(str(path)).named(given)
