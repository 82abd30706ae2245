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
        """Make a path absolute. Raises CheckpointError if nothing lies there.

        Links are not resolved: a download cache stores files under their digests, and the link alone has the name.
        """
        path = Path(given).expanduser().absolute()
        try:
            if path.is_dir():
                return cls(ReferenceKind.FOLDER, path, given)
            if path.is_file():
                return cls(ReferenceKind.FILE, path, given)
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
            raise CheckpointError(reason, subject=given, remedy="Check the path") from None
        if path.is_symlink():
            raise CheckpointError(
                f"a link to {path.readlink()}, where nothing lies",
                subject=given,
                remedy="Download the checkpoint again",
            )
        hint = "Give a folder with *.safetensors, or one weights file"
        if path.suffix == "" and given.count("/") == 1 and not given.startswith((".", "/", "~")):
            hint += "; repositories on a hub must be downloaded first"
        raise CheckpointError("no such file or folder", subject=given, remedy=hint)
