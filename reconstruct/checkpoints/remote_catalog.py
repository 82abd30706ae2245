"""From the listing of a place on a network to a catalog or an adapter: the same for repositories and for buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconstruct.checkpoints.adapters import CONFIGURATION, Adapter, adapter_weights, undescribed
from reconstruct.checkpoints.catalog import Catalog, FileState, TensorInfo
from reconstruct.checkpoints.header import HeaderEntry, read_header
from reconstruct.checkpoints.opened_parts import OpenedParts, RememberedReads
from reconstruct.checkpoints.reference import Reference
from reconstruct.checkpoints.remote_headers import read_headers
from reconstruct.checkpoints.remote_source import RangeReader, RemoteSource
from reconstruct.checkpoints.shards import check_index, joined
from reconstruct.checkpoints.weight_choice import FileListing, choose_weights, json_object, weight_map
from reconstruct.checkpoints.weight_files import read_json, readable
from reconstruct.errors import CheckpointError

__all__ = ["RemotePlace", "remote_model"]


@dataclass(frozen=True)
class RemotePlace:
    """Files in one place, and how they are read. `location`: what errors and shards are named after
    ("org/name@commit"); `cached`: copies on disk of some files, which are read instead; `download`: the remedy for what
    is read only from disk; `parts`: what was read to open files, filled here and asked first; `digests`: whether the
    versions of the files are digests of their content.
    """

    files: Mapping[str, FileState]
    reader: RangeReader
    location: str
    download: str
    cached: Mapping[str, Path] = field(default_factory=dict)
    parts: OpenedParts = field(default_factory=dict)
    digests: bool = False
    _documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def _opening(self) -> RangeReader:
        return RememberedReads(self.reader, self.files, self.parts, "" if self.digests else self.location)

    def address(self, name: str) -> str:
        """How errors name a file, and tensors their shard."""
        return f"{self.location}/{name}"

    def document(self, name: str) -> dict[str, Any]:
        """A JSON object, read once."""
        if name not in self._documents:
            path = self.cached.get(name)
            self._documents[name] = (
                read_json(path) if path is not None else json_object(self._opening.whole(name), self.address(name))
            )
        return self._documents[name]

    def weight_map(self, index: str) -> dict[str, str]:
        """Tensor -> shard, of an index."""
        return weight_map(self.document(index), self.address(index))

    def refuse_pickle(self, name: str) -> None:
        """Raises CheckpointError."""
        if not name.endswith(".safetensors"):
            raise CheckpointError(
                "pickled weights are not read from afar", subject=self.address(name), remedy=self.download
            )

    def tensors(self, names: Sequence[str], index: Mapping[str, str] | None = None) -> dict[str, TensorInfo]:
        """Those of some weight files, by their headers. `index`: its weight map, if there is one."""
        headers = self._headers(names, index)
        return joined(
            TensorInfo(e.name, e.dtype, e.shape, self.address(name), e.begin, e.end)
            for name in names
            for e in headers[name]
        )

    def source(self, names: Sequence[str]) -> RemoteSource:
        """Of the bytes of some weight files."""
        return RemoteSource(
            self.reader,
            {self.address(name): name for name in names},
            {self.address(name): self.cached[name] for name in names if name in self.cached},
        )

    def _headers(self, names: Sequence[str], index: Mapping[str, str] | None) -> dict[str, list[HeaderEntry]]:
        headers = {}
        for name in names:
            if name in self.cached:
                with readable(self.cached[name]):
                    headers[name] = read_header(self.cached[name])
        distant = [name for name in names if name not in self.cached]
        sizes = {name: self.files[name].size for name in distant}
        return headers | read_headers(self._opening, sizes, {name: self.address(name) for name in distant}, index)


def remote_model(reference: Reference, place: RemotePlace, named: str | None = None) -> Catalog | Adapter:
    """Choose the weights of a place and read their headers; no weights are read. An adapter where there is no more.

    `named`: the one file that is meant. Raises CheckpointError (no weights, half of them, pickles), HeaderError, and
    what the reader raises.
    """
    if named is None and (weights := adapter_weights(place.files)) is not None:
        return _adapter(reference, place, weights)
    choice = choose_weights(FileListing(place.location, frozenset(place.files), place.weight_map, remote=True), named)
    place.refuse_pickle(choice.files[0])
    configuration = place.document("config.json") if "config.json" in place.files else {}
    index = place.weight_map(choice.index) if choice.index is not None else None
    tensors = place.tensors(choice.files, index)
    if index is not None:
        check_index(index, tensors, f"{place.location}/{choice.index}")
    files = tuple(place.files[name] for name in choice.files)
    return Catalog(reference, tensors, place.source(choice.files), files, configuration)


def _adapter(reference: Reference, place: RemotePlace, weights: str) -> Adapter:
    place.refuse_pickle(weights)
    if CONFIGURATION not in place.files:
        raise undescribed(place.location)
    return Adapter(
        reference, place.document(CONFIGURATION), place.tensors([weights]), place.source([weights]),
        (place.files[CONFIGURATION], place.files[weights]), place.address(CONFIGURATION), place.address(weights),
    )  # fmt: skip
