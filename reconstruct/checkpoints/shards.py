"""The tensors of all shards as one checkpoint: none of them twice, and each where the index says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath

from reconstruct.checkpoints.catalog import TensorInfo
from reconstruct.errors import CheckpointError

__all__ = ["check_index", "joined"]


def joined(listed: Iterable[TensorInfo]) -> dict[str, TensorInfo]:
    """By name, in the given order. Raises CheckpointError for a tensor that is in two shards."""
    tensors: dict[str, TensorInfo] = {}
    for info in listed:
        if info.name in tensors:
            raise CheckpointError(
                f"tensor {info.name!r} is also in {tensors[info.name].shard}",
                subject=info.shard,
                remedy="Remove the shard that does not belong to this checkpoint",
            )
        tensors[info.name] = info
    return tensors


def check_index(mapping: Mapping[str, str], tensors: Mapping[str, TensorInfo], subject: str) -> None:
    """Raises CheckpointError for a tensor that is not where the index (`subject`) says."""
    for name, shard in mapping.items():
        if name not in tensors or PurePath(tensors[name].shard).name != shard:
            raise CheckpointError(
                f"the index puts tensor {name!r} in {shard}, where it is not",
                subject=subject,
                remedy="Download index and shards of one and the same revision",
            )
