"""What was read under a budget, kept at once: a fetch that was cut off goes on where it stopped and pays nothing twice.

One SQLite file (WAL) beside the sampled checkpoints; a row a range: model, tensor, elements and bytes. It is deleted
when the run is finished: by then the sampled checkpoints hold all of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.fetch import Request, fetch_ranges
from reconstruct.errors import StoreError
from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.row_sampling import RowRange

__all__ = ["FetchedRanges"]

_WORKERS = 16  # requests under way at once, where they are requests
_TABLE = """
create table if not exists fetched (
    model integer, tensor integer, start integer, stop integer, bits blob not null,
    primary key (model, tensor, start, stop)
)
"""


class FetchedRanges:
    """Open on a folder (made if need be); a context manager. Raises StoreError where no file can be kept."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "fetched.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path)
            self._connection.execute("pragma journal_mode=wal")
            self._connection.execute("pragma synchronous=normal")
            self._connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"what is read cannot be kept here ({error})", subject=str(folder), remedy="Say folder=<another folder>"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def fetch(
        self,
        model: int,
        catalog: Catalog,
        tensors: Sequence[AlignedTensor],
        ranges: Sequence[RowRange],
        advance: Callable[[int], None],
    ) -> None:
        """Read what is not here yet of one model (its position, the suspect is 0) and keep each range at once.

        `advance` is told the bytes of every range. Raises StoreError for a disk that is full, and what the catalog's
        source raises, BudgetExhausted among it.
        """
        here = set(
            self._connection.execute("select tensor, start, stop from fetched where model = ?", (model,)).fetchall()
        )
        missing: dict[Request, list[RowRange]] = {}  # a tied tensor serves two
        for item in ranges:
            wanted = (tensors[item.tensor].sources[model], item.start, item.stop)
            if (item.tensor, item.start, item.stop) in here:
                advance(wanted[0].cost(item.start, item.stop))
            else:
                missing.setdefault(wanted, []).append(item)
        for got, bits in fetch_ranges(catalog, list(missing), _WORKERS, gap=0):  # nothing that was not planned
            raw = np.ascontiguousarray(bits).tobytes()
            rows = [(model, item.tensor, item.start, item.stop, raw) for item in missing[got]]
            try:
                with self._connection:
                    self._connection.executemany("insert into fetched values (?, ?, ?, ?, ?)", rows)
            except sqlite3.Error as error:
                raise StoreError(
                    f"cannot be written ({error})", subject=str(self._path), remedy="Make room, and resume the run"
                ) from None
            advance(got[0].cost(got[1], got[2]) * len(rows))

    def bits(self, model: int, item: RowRange, dtype: str) -> NDArray[np.generic]:
        """A range that was fetched, in storage form. Raises StoreError if it was not."""
        row = self._connection.execute(
            "select bits from fetched where model = ? and tensor = ? and start = ? and stop = ?",
            (model, item.tensor, item.start, item.stop),
        ).fetchone()
        storage = np.dtype(FLOAT_FORMATS[dtype].storage)
        if row is None or len(row[0]) != (item.stop - item.start) * storage.itemsize:
            raise StoreError("a range is missing", subject=str(self._path), remedy="Resume the run")
        return np.frombuffer(row[0], storage)

    def delete(self) -> None:
        """Close the file and remove it."""
        self._connection.close()
        for path in (self._path, *(self._path.with_name(self._path.name + end) for end in ("-wal", "-shm"))):
            path.unlink(missing_ok=True)
