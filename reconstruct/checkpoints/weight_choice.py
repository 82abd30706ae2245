"""Which of the files in a folder, repository or bucket hold the weights of its checkpoint: decided by their names and
the index alone. What is no checkpoint, or half of one, is refused with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from reconstruct.errors import CheckpointError

__all__ = ["INDEX_SUFFIX", "PICKLES", "WEIGHT_SUFFIXES", "FileListing", "WeightChoice", "choose_weights", "json_object",
           "only_an_adapter", "refuse_foreign_content", "weight_map"]  # fmt: skip

INDEX_SUFFIX = ".index.json"
PICKLES = {".bin", ".pt", ".pth", ".ckpt"}
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.\w+)$")
#: What people keep beside weights or instead of them, and what to do about it.
_FOREIGN = {
    ".gguf": "GGUF files are not supported; use the original safetensors",
    ".h5": "TensorFlow weights are not supported; use safetensors",
    ".msgpack": "Flax weights are not supported; use safetensors",
    ".onnx": "ONNX graphs are not supported; use safetensors",
}
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
#: Suffixes of what people name when they mean a file.
WEIGHT_SUFFIXES = {".safetensors", ".json", *PICKLES, *_FOREIGN}


@dataclass(frozen=True)
class FileListing:
    """The files in one place. `location` names the place in errors; `remote`: whether it is out of the user's hands.

    `weight_map`: name of an index -> its map from tensors to shards, read when it is needed. Raises CheckpointError.
    """

    location: str
    names: frozenset[str]
    weight_map: Callable[[str], dict[str, str]]
    remote: bool = False

    def address(self, name: str) -> str:
        """How errors name a file of this place."""
        return f"{self.location}/{name}"

    def get(self, name: str) -> str:
        """What to do about a file that is missing."""
        return f"Its publisher has to add {name}" if self.remote else f"Download {name}"


@dataclass(frozen=True)
class WeightChoice:
    """Names of the weight files, and of the index if there is one. Either all are safetensors or none is."""

    files: tuple[str, ...]
    index: str | None

    @property
    def pickled(self) -> bool:
        """Whether torch pickled them."""
        return not self.files[0].endswith(".safetensors")


def choose_weights(listing: FileListing, named: str | None = None) -> WeightChoice:
    """The weights of a place, or those of the one file (or index) in it that is `named`. Raises CheckpointError."""
    if named is None:
        choice = _of_folder(listing)
    elif named.endswith(INDEX_SUFFIX):
        choice = WeightChoice(_indexed(listing, named), named)
    else:
        choice = WeightChoice((named,), None)
    for name in choice.files:
        _refuse_foreign_name(listing, name)
    if len({name.endswith(".safetensors") for name in choice.files}) > 1:
        place = listing.location if named is None else listing.address(named)
        raise CheckpointError(
            "safetensors and pickles are mixed", subject=place, remedy="Name one file, or the index of one kind"
        )
    return choice


def _of_folder(listing: FileListing) -> WeightChoice:
    names = listing.names
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        whole, index = f"{stem}{suffix}", f"{stem}{suffix}{INDEX_SUFFIX}"
        if whole in names and index in names and whole not in listing.weight_map(index).values():
            raise CheckpointError(
                f"two checkpoints in one folder: {whole}, and the shards of {index}",
                subject=listing.location,
                remedy="Name the one that is meant by its file",
            )
        if index in names:
            return WeightChoice(_indexed(listing, index), index)
        if whole in names:
            return WeightChoice((whole,), None)
        files = [name for name in sorted(names) if name.endswith(suffix) and name not in _ADAPTER]
        usual = [name for name in files if name.startswith(stem)]
        if chosen := usual or (files if suffix == ".safetensors" else []):
            _check_complete(listing, chosen)
            return WeightChoice(tuple(chosen), None)
    raise _no_weights(listing)


def _no_weights(listing: FileListing) -> CheckpointError:
    if any(name in listing.names for name in _ADAPTER):
        return only_an_adapter(listing.location)
    names = sorted(listing.names)
    if foreign := [name for name in names if _suffix(name) in _FOREIGN]:
        return CheckpointError(
            f"no weights that can be read, only {foreign[0]}",
            subject=listing.location,
            remedy=_FOREIGN[_suffix(foreign[0])],
        )
    if pickles := [name for name in names if _suffix(name) in PICKLES]:
        return CheckpointError(
            f"no weights under a usual name; there is {pickles[0]}",
            subject=listing.location,
            remedy=f"If that is the model, give {listing.address(pickles[0])}",
        )
    what = "repository" if listing.remote else "folder"
    remedy = "Expected *.safetensors (with an index if sharded) or pytorch_model*.bin"
    return CheckpointError(f"no weights in this {what}", subject=listing.location, remedy=remedy)


def only_an_adapter(location: str) -> CheckpointError:
    """The error for an adapter where full weights are needed."""
    return CheckpointError(
        "only an adapter, no full weights", subject=location,
        remedy="Merge the adapter into its base model first (merge_and_unload in peft)",
    )  # fmt: skip


def _check_complete(listing: FileListing, files: list[str]) -> None:
    """Without an index, the names of shards still tell how many there must be."""
    for file in files:
        if match := _SHARD.match(file):
            total = int(match["total"])
            wanted = [f"{match['stem']}-{n:05d}-of-{total:05d}{match['suffix']}" for n in range(1, total + 1)]
            if missing := [name for name in wanted if name not in files]:
                raise CheckpointError(
                    f"{len(missing)} of {total} shards are missing, first {missing[0]}",
                    subject=listing.location,
                    remedy=listing.get(missing[0]),
                )


def _indexed(listing: FileListing, index: str) -> tuple[str, ...]:
    files = sorted(set(listing.weight_map(index).values()))
    for name in files:
        if PurePosixPath(name).name != name:
            raise CheckpointError(
                f"the index names shard {name!r}, which is not a file beside it",
                subject=listing.address(index),
                remedy="Shards must lie in the folder of their index",
            )
        if name not in listing.names:
            raise CheckpointError(
                f"the index names shard {name}, which is missing",
                subject=listing.address(index),
                remedy=listing.get(name),
            )
    return tuple(files)


def _refuse_foreign_name(listing: FileListing, name: str) -> None:
    subject, suffix = listing.address(name), _suffix(name)
    if name in _ADAPTER:
        raise CheckpointError(
            "an adapter, no full weights", subject=subject, remedy="Merge the adapter into its base model first"
        )
    if suffix in _FOREIGN:
        raise CheckpointError("not a format that can be read", subject=subject, remedy=_FOREIGN[suffix])
    if suffix != ".safetensors" and suffix not in PICKLES:
        raise CheckpointError(
            "not a weights file by its name",
            subject=subject,
            remedy=f"Give a folder, *.safetensors, its index, or a pickle ({', '.join(sorted(PICKLES))})",
        )


def refuse_foreign_content(head: bytes, subject: str, *, remote: bool = False) -> None:
    """Files that are known to be something else than weights by their first bytes. Raises CheckpointError."""
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            "a Git LFS pointer of a few lines, not the weights it stands for",
            subject=subject,
            remedy="Its publisher has to upload the file itself"
            if remote
            else "Run `git lfs pull` in its folder, or download the file itself",
        )
    if head.startswith(b"GGUF"):
        raise CheckpointError("not a format that can be read", subject=subject, remedy=_FOREIGN[".gguf"])


def json_object(raw: bytes, subject: str) -> dict[str, Any]:
    """A JSON object from the bytes of a file. Raises CheckpointError."""
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"not valid JSON ({error})", subject=subject, remedy="Download it again") from None
    if not isinstance(value, dict):
        raise CheckpointError("a JSON object was expected", subject=subject, remedy="Download it again")
    return value


def weight_map(index: dict[str, Any], subject: str) -> dict[str, str]:
    """Tensor name -> shard, from the content of an index. Raises CheckpointError."""
    mapping = index.get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()) or not mapping:
        raise CheckpointError(
            "the index has no weight_map from tensors to shards", subject=subject, remedy="Download it again"
        )
    return mapping


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix
