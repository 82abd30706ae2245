"""A reference says which checkpoint is meant: a folder, a file, or a repository at a revision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reconstruct.errors import CheckpointError

__all__ = ["Reference", "ReferenceKind"]


class ReferenceKind(StrEnum):
    """Where a checkpoint lies."""

    FOLDER = "folder"
    FILE = "file"


@dataclass(frozen=True)
class Reference:
    """One checkpoint as the user named it. `given` is kept to the letter: reports speak the user's words."""

    kind: ReferenceKind
    location: Path
    given: str
    revision: str | None = None

    @classmethod
    def parse(cls, given: str) -> Reference:
        """Resolve a path. Raises CheckpointError if nothing lies there."""
        path = Path(given).expanduser()
        if path.is_dir():
            return cls(ReferenceKind.FOLDER, path.resolve(), given)
        if path.is_file():
            return cls(ReferenceKind.FILE, path.resolve(), given)
        hint = "Give a folder with *.safetensors, or one weights file"
        if path.suffix == "" and given.count("/") == 1 and not given.startswith((".", "/", "~")):
            hint += "; repositories on a hub must be downloaded first"
        raise CheckpointError("no such file or folder", subject=given, remedy=hint)
