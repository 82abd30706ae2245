"""From the listing of a place on a network to a catalog: the same for repositories and for buckets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconstruct.checkpoints.catalog import Catalog, FileState, TensorInfo
from reconstruct.checkpoints.header import HeaderEntry, read_header
from reconstruct.checkpoints.reference import Reference
from reconstruct.checkpoints.remote_headers import read_headers
from reconstruct.checkpoints.remote_source import RangeReader, RemoteSource
from reconstruct.checkpoints.shards import check_index, joined
from reconstruct.checkpoints.weight_choice import FileListing, WeightChoice, choose_weights, json_object, weight_map
from reconstruct.checkpoints.weight_files import read_json, readable
from reconstruct.errors import CheckpointError

__all__ = ["remote_catalog"]


def remote_catalog(
    reference: Reference,
    files: Mapping[str, FileState],
    reader: RangeReader,
    *,
    location: str,
    cached: Mapping[str, Path],
    named: str | None = None,
    download: str,
) -> Catalog:
    """Choose the weights among `files` and read their headers; no weights are read.

    `location`: what errors and shards are named after ("org/name@commit"); `cached`: copies on disk of some files,
    which are read instead; `named`: the one file that is meant; `download`: the remedy for what is read only from disk.

    Raises CheckpointError (no weights, half of them, pickles), HeaderError, and what the reader raises.
    """
    documents: dict[str, dict[str, Any]] = {}

    def document(name: str) -> dict[str, Any]:
        if name not in documents:
            path = cached.get(name)
            subject = f"{location}/{name}"
            documents[name] = read_json(path) if path is not None else json_object(reader.whole(name), subject)
        return documents[name]

    def mapping(index: str) -> dict[str, str]:
        return weight_map(document(index), f"{location}/{index}")

    choice = choose_weights(FileListing(location, frozenset(files), mapping, remote=True), named)
    if choice.pickled:
        raise CheckpointError(
            "pickled weights are not read from afar", subject=f"{location}/{choice.files[0]}", remedy=download
        )
    configuration = document("config.json") if "config.json" in files else {}
    index = mapping(choice.index) if choice.index is not None else None
    headers = _headers(choice, files, reader, location, cached, index)
    shards = {name: f"{location}/{name}" for name in choice.files}
    tensors = joined(
        TensorInfo(e.name, e.dtype, e.shape, shards[name], e.begin, e.end)
        for name in choice.files
        for e in headers[name]
    )
    if index is not None:
        check_index(index, tensors, f"{location}/{choice.index}")
    source = RemoteSource(
        reader,
        {shard: name for name, shard in shards.items()},
        {shards[name]: cached[name] for name in choice.files if name in cached},
    )
    return Catalog(reference, tensors, source, tuple(files[name] for name in choice.files), configuration)


def _headers(
    choice: WeightChoice, files: Mapping[str, FileState], reader: RangeReader, location: str,
    cached: Mapping[str, Path], index: Mapping[str, str] | None,
) -> dict[str, list[HeaderEntry]]:  # fmt: skip
    headers = {}
    for name in choice.files:
        if name in cached:
            with readable(cached[name]):
                headers[name] = read_header(cached[name])
    distant = [name for name in choice.files if name not in cached]
    return headers | read_headers(
        reader, {name: files[name].size for name in distant}, {name: f"{location}/{name}" for name in distant}, index
    )
