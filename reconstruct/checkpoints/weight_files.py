"""Which files hold the weights of a checkpoint on disk; what is none, or half of one, is refused with the reason."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconstruct.checkpoints.reference import Reference, ReferenceKind
from reconstruct.errors import CheckpointError

__all__ = ["find_weights", "read_json", "readable", "weight_map"]

_INDEX_SUFFIX = ".index.json"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt"}
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.\w+)$")
#: What people keep beside weights or instead of them, and what to do about it.
_FOREIGN = {
    ".gguf": "GGUF files are not supported; use the original safetensors",
    ".h5": "TensorFlow weights are not supported; use safetensors",
    ".msgpack": "Flax weights are not supported; use safetensors",
    ".onnx": "ONNX graphs are not supported; use safetensors",
}
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to read `path` into a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"cannot be read ({error.strerror or error})",
            subject=str(path),
            remedy="Check the file and its permissions",
        ) from None


def find_weights(reference: Reference) -> tuple[list[Path], Path | None]:
    """The weight files, and the index if there is one. Raises CheckpointError."""
    path = reference.location
    with readable(path):
        if reference.kind is ReferenceKind.FOLDER:
            files, index = _of_folder(path)
        elif path.name.endswith(_INDEX_SUFFIX):
            files, index = _indexed(path), path
        else:
            files, index = [path], None
    for file in files:
        _refuse_foreign(file)
    if len({file.suffix == ".safetensors" for file in files}) > 1:
        raise CheckpointError(
            "safetensors and pickles are mixed", subject=str(path), remedy="Name one file, or the index of one kind"
        )
    return files, index


def _of_folder(folder: Path) -> tuple[list[Path], Path | None]:
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        whole, index = folder / f"{stem}{suffix}", folder / f"{stem}{suffix}{_INDEX_SUFFIX}"
        if whole.exists() and index.exists() and whole.name not in weight_map(index).values():
            raise CheckpointError(
                f"two checkpoints in one folder: {whole.name}, and the shards of {index.name}",
                subject=str(folder),
                remedy="Name the one that is meant by its file",
            )
        if index.exists():
            return _indexed(index), index
        if whole.exists():
            return [whole], None
        files = [f for f in sorted(folder.glob(f"{stem}*{suffix}")) if f.name not in _ADAPTER]
        if not files and suffix == ".safetensors":
            files = [f for f in sorted(folder.glob(f"*{suffix}")) if f.name not in _ADAPTER]
        if files:
            _check_complete(files)
            return files, None
    raise _no_weights(folder)


def _no_weights(folder: Path) -> CheckpointError:
    remedy = "Expected *.safetensors (with an index if sharded) or pytorch_model*.bin"
    if any((folder / name).exists() for name in _ADAPTER):
        return CheckpointError(
            "only an adapter, no full weights",
            subject=str(folder),
            remedy="Merge the adapter into its base model first (merge_and_unload in peft)",
        )
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    foreign = [name for name in names if Path(name).suffix in _FOREIGN]
    if foreign:
        return CheckpointError(
            f"no weights that can be read, only {foreign[0]}",
            subject=str(folder),
            remedy=_FOREIGN[Path(foreign[0]).suffix],
        )
    pickles = [name for name in names if Path(name).suffix in _PICKLES]
    if pickles:
        return CheckpointError(
            f"no weights under a usual name; there is {pickles[0]}",
            subject=str(folder),
            remedy=f"If that is the model, give {folder / pickles[0]}",
        )
    return CheckpointError("no weights in this folder", subject=str(folder), remedy=remedy)


def _check_complete(files: list[Path]) -> None:
    """Without an index, the names of shards still tell how many there must be."""
    have = {file.name for file in files}
    for file in files:
        if match := _SHARD.match(file.name):
            total = int(match["total"])
            wanted = [f"{match['stem']}-{n:05d}-of-{total:05d}{match['suffix']}" for n in range(1, total + 1)]
            if missing := [name for name in wanted if name not in have]:
                raise CheckpointError(
                    f"{len(missing)} of {total} shards are missing, first {missing[0]}",
                    subject=str(file.parent),
                    remedy=f"Download {missing[0]}",
                )


def _refuse_foreign(path: Path) -> None:
    """Files that are known to be something else than weights, by name or first bytes."""
    if path.name in _ADAPTER:
        raise CheckpointError(
            "an adapter, no full weights", subject=str(path), remedy="Merge the adapter into its base model first"
        )
    with readable(path), path.open("rb") as file:
        head = file.read(200)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            "a Git LFS pointer of a few lines, not the weights it stands for",
            subject=str(path),
            remedy="Run `git lfs pull` in its folder, or download the file itself",
        )
    if head.startswith(b"GGUF") or path.suffix in _FOREIGN:
        suffix = ".gguf" if head.startswith(b"GGUF") else path.suffix
        raise CheckpointError("not a format that can be read", subject=str(path), remedy=_FOREIGN[suffix])
    if path.suffix != ".safetensors" and path.suffix not in _PICKLES:
        raise CheckpointError(
            "not a weights file by its name",
            subject=str(path),
            remedy=f"Give a folder, *.safetensors, its index, or a pickle ({', '.join(sorted(_PICKLES))})",
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError."""
    try:
        with readable(path):
            value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"not valid JSON ({error})", subject=str(path), remedy="Download it again") from None
    if not isinstance(value, dict):
        raise CheckpointError("a JSON object was expected", subject=str(path), remedy="Download it again")
    return value


def weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> shard, from an index. Raises CheckpointError."""
    mapping = read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()) or not mapping:
        raise CheckpointError(
            "the index has no weight_map from tensors to shards", subject=str(index), remedy="Download it again"
        )
    return mapping


def _indexed(index: Path) -> list[Path]:
    files = []
    for name in sorted(set(weight_map(index).values())):
        file = index.parent / name
        if file.parent != index.parent or Path(name).name != name:
            raise CheckpointError(
                f"the index names shard {name!r}, which is not a file beside it",
                subject=str(index),
                remedy="Shards must lie in the folder of their index",
            )
        if not file.is_file():
            raise CheckpointError(
                f"the index names shard {name}, which is missing", subject=str(index), remedy=f"Download {name}"
            )
        files.append(file)
    return files
