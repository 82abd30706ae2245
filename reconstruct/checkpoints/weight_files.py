"""Which files hold the weights of a checkpoint on disk; what is none, or half of one, is refused with the reason."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconstruct.checkpoints.reference import Reference, ReferenceKind
from reconstruct.checkpoints.weight_choice import (
    FileListing,
    choose_weights,
    json_object,
    refuse_foreign_content,
    weight_map,
)
from reconstruct.errors import CheckpointError

__all__ = ["find_weights", "read_json", "readable"]


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
    path = reference.path
    folder, named = (path, None) if reference.kind is ReferenceKind.FOLDER else (path.parent, path.name)
    with readable(folder):
        names = frozenset(file.name for file in folder.iterdir() if file.exists())
    choice = choose_weights(
        FileListing(str(folder), names, lambda index: weight_map(read_json(folder / index), str(folder / index))), named
    )
    files = [folder / name for name in choice.files]
    for file in files:
        with readable(file), file.open("rb") as stream:
            head = stream.read(200)
        refuse_foreign_content(head, str(file))
    return files, folder / choice.index if choice.index is not None else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError."""
    with readable(path):
        raw = path.read_bytes()
    return json_object(raw, str(path))
