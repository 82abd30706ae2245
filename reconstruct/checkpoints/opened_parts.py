"""What had to be read of remote files to open them (headers, indices, configurations), for the next time.

A run keeps it, so that one that goes on after a cut-off does not pay for it again. Found by the name and version of the
file: on a Hub a digest of its content, so that an index that models share is read once; elsewhere an ETag or a time,
which means something in its own place alone. What has no version is not kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, MutableMapping

from reconstruct.checkpoints.catalog import FileState
from reconstruct.checkpoints.remote_source import RangeReader

__all__ = ["OpenedParts", "RememberedReads"]

#: Place, name and version of a file, and range -> the bytes. Shared by threads: its items are only ever added.
OpenedParts = MutableMapping[str, bytes]


class RememberedReads:
    """A RangeReader over another one that reads nothing twice. For small parts: all are kept in memory.

    `place`: within which versions tell files apart; "" where they are digests of the content.
    """

    def __init__(
        self, reader: RangeReader, files: Mapping[str, FileState], parts: OpenedParts, place: str = ""
    ) -> None:  # fmt: skip
        self._reader, self._files, self._parts, self._place = reader, files, parts, place

    def read(self, file: str, begin: int, end: int) -> bytes:
        """See `RangeReader`."""
        return self._remembered(file, f"{begin}-{end}", end - begin, lambda: self._reader.read(file, begin, end))

    def whole(self, file: str) -> bytes:
        """See `RangeReader`."""
        return self._remembered(file, "whole", self._files[file].size, lambda: self._reader.whole(file))

    def _remembered(self, file: str, part: str, size: int, read: Callable[[], bytes]) -> bytes:
        state = self._files[file]
        key = json.dumps([self._place, file, state.version, state.size, part])
        found = self._parts.get(key) if state.version else None
        if found is not None and len(found) == size:
            return found
        data = read()
        if state.version:
            self._parts[key] = data
        return data
