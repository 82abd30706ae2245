"""Weights that lie elsewhere: read by ranges, kept only while they are worked on.

A range that was read is kept until others have pushed it out, so that the passes over one tensor fetch it once. Small
ones are kept in memory; large ones in a file that has no name and vanishes with its last reader: memory stays flat, and
nothing is left on the disk.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import TensorInfo
from reconstruct.checkpoints.element_ranges import element_range
from reconstruct.checkpoints.local import MappedFiles
from reconstruct.errors import CheckpointError

__all__ = ["RangeReader", "RemoteSource"]

_PART = 8 << 20  # bytes of one request where a range is larger
_IN_MEMORY = 1 << 20  # bytes up to which a range is kept in memory
_MOST = 128  # ranges that are kept: each large one holds an open file


class RangeReader(Protocol):
    """Fetches parts of files. Thread-safe."""

    def read(self, file: str, begin: int, end: int) -> bytes:
        """Bytes [begin, end) of a file, exactly those. Raises RemoteError or BudgetExhausted."""
        ...

    def whole(self, file: str) -> bytes:
        """All of a small file. Raises the same."""
        ...


@dataclass(frozen=True)
class _Kept:
    """Bytes of a shard from `begin` on; `data` is there when its future is done."""

    begin: int
    end: int
    data: Future[bytes | mmap.mmap]


class RemoteSource:
    """Byte source over a RangeReader. Thread-safe.

    `files`: shard as the catalog names it -> file as the reader does; `cached`: shard -> a copy on disk, which is read
    instead. `keep`: bytes of ranges that are kept at most, beside the last one; `workers`: requests at a time.
    """

    def __init__(
        self,
        reader: RangeReader,
        files: Mapping[str, str],
        cached: Mapping[str, Path],
        *,
        keep: int = 2 << 30,
        workers: int = 8,
    ) -> None:
        self._reader, self._files, self._cached = reader, dict(files), {s: str(path) for s, path in cached.items()}
        self._keep, self._size = keep, 0
        self._kept: OrderedDict[tuple[str, int, int], _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._local = MappedFiles()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="ranges")
        self._ahead = ThreadPoolExecutor(2, thread_name_prefix="ahead")

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Elements [start, stop): out of what is kept, or fetched as exactly this range."""
        if (path := self._cached.get(tensor.shard)) is not None:
            return self._local.read(replace(tensor, shard=path), start, stop)
        place = element_range(tensor, start, stop)
        if place.begin == place.end:
            return place.view(b"", place.begin)
        kept, mine = self._find(tensor.shard, place.begin, place.end)
        if mine:
            self._fill(tensor.shard, kept)
        return place.view(kept.data.result(), kept.begin)

    def ahead(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Begin to fetch these elements, unless they are kept or would push out half of what is."""
        if (path := self._cached.get(tensor.shard)) is not None:
            return self._local.ahead(replace(tensor, shard=path), start, stop)
        place = element_range(tensor, start, stop)
        if not 0 < place.end - place.begin <= self._keep // 2:
            return None
        kept, mine = self._find(tensor.shard, place.begin, place.end)
        if mine:
            self._ahead.submit(self._fill, tensor.shard, kept)
        return None

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Let the system reclaim the memory behind these elements; a later pass finds them on the disk again."""
        if (path := self._cached.get(tensor.shard)) is not None:
            return self._local.release(replace(tensor, shard=path), start, stop)
        place = element_range(tensor, start, stop)
        with self._lock:
            kept = self._covering(tensor.shard, place.begin, place.end)
        if kept is not None and kept.data.done() and kept.data.exception() is None:
            data = kept.data.result()
            first = (place.begin - kept.begin) // mmap.PAGESIZE * mmap.PAGESIZE
            length = place.end - kept.begin - first
            if isinstance(data, mmap.mmap) and length > 0:
                data.madvise(mmap.MADV_DONTNEED, first, length)
        return None

    def fetch(self, shard: str, begin: int, end: int) -> bytes | memoryview:
        """Bytes [begin, end) of a shard, in one request, not kept."""
        if (path := self._cached.get(shard)) is not None:
            return self._local.bytes(path, begin, end)
        return self._reader.read(self._files[shard], begin, end)

    def _covering(self, shard: str, begin: int, end: int) -> _Kept | None:
        held = (kept for key, kept in reversed(self._kept.items()) if key[0] == shard)
        return next((kept for kept in held if kept.begin <= begin and end <= kept.end), None)

    def _find(self, shard: str, begin: int, end: int) -> tuple[_Kept, bool]:
        """What holds this range or will hold it, and whether the caller has to fill it."""
        with self._lock:
            if (kept := self._covering(shard, begin, end)) is not None:
                self._kept.move_to_end((shard, kept.begin, kept.end))
                return kept, False
            kept = _Kept(begin, end, Future())
            self._kept[shard, begin, end] = kept
            self._size += end - begin
            while (self._size > self._keep or len(self._kept) > _MOST) and len(self._kept) > 1:
                _, old = self._kept.popitem(last=False)
                self._size -= old.end - old.begin
            return kept, True

    def _fill(self, shard: str, kept: _Kept) -> None:
        """Fetch a range, in parts if it is large; whoever waits for it meets the error if there is one."""
        try:
            kept.data.set_result(self._fetched(self._files[shard], kept.begin, kept.end))
        except BaseException as error:
            with self._lock:
                if self._kept.get((shard, kept.begin, kept.end)) is kept:
                    del self._kept[shard, kept.begin, kept.end]
                    self._size -= kept.end - kept.begin
            kept.data.set_exception(error)

    def _fetched(self, file: str, begin: int, end: int) -> bytes | mmap.mmap:
        if end - begin <= _IN_MEMORY:
            return self._reader.read(file, begin, end)
        room = _nameless(end - begin)

        def part(position: int) -> None:
            last = min(position + _PART, end)
            room[position - begin : last - begin] = self._reader.read(file, position, last)

        parts = [self._pool.submit(part, position) for position in range(begin, end, _PART)]
        try:
            for future in parts:
                future.result()
        finally:
            for future in parts:
                future.cancel()
        return room


def _nameless(size: int) -> mmap.mmap:
    """A mapped file without a name, of so many bytes. Raises CheckpointError where there is no room."""
    try:
        with tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise CheckpointError(
            f"no room for {size:,} bytes of the tensor that is worked on ({error.strerror})",
            subject=tempfile.gettempdir(), remedy="Name a larger folder in TMPDIR",
        ) from None  # fmt: skip
