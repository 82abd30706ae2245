"""A reference says which checkpoint is meant: a folder, a file, a repository at a revision, or a URL."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reconstruct.checkpoints.weight_choice import WEIGHT_SUFFIXES
from reconstruct.errors import CheckpointError

__all__ = ["Reference", "ReferenceKind", "base_and_adapter", "repository_named"]

_SCHEME = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.+)$")
#: What the Hugging Face Hub allows as the name of an organisation or user, and of a repository.
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"^(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>[^\s@?#]+))?$")
_HUB_PAGE = re.compile(r"^https?://(?:huggingface\.co|hf\.co)/")


class ReferenceKind(StrEnum):
    """Where a checkpoint lies."""

    FOLDER = "folder"
    FILE = "file"
    REPOSITORY = "repository"
    URL = "url"


@dataclass(frozen=True)
class Reference:
    """One checkpoint as the user named it. `given` is kept to the letter: reports speak the user's words.

    `location`: an absolute path; for a repository "org/name", for a URL the URL. `revision`: of a repository, the
    branch, tag or commit that was asked for, and in a Catalog the commit that it stood for.
    """

    kind: ReferenceKind
    location: Path | str
    given: str
    revision: str | None = None

    @property
    def path(self) -> Path:
        """The folder or file on disk. Raises CheckpointError if there is none."""
        if isinstance(self.location, Path):
            return self.location
        raise CheckpointError(
            "not on this machine", subject=self.given, remedy="Download it first, and give the folder"
        )

    @property
    def address(self) -> str:
        """What names the same checkpoint later and from any working directory: "org/name@commit", an absolute path."""
        return f"{self.location}@{self.revision}" if self.revision is not None else str(self.location)

    @classmethod
    def parse(cls, given: str) -> Reference:
        """What lies at the path `given`, else a URL ("s3://bucket/model"), else a repository ("org/name@revision").

        Paths are made absolute. Links are not resolved: a download cache stores files under their digests, and the
        link alone has the name. Nothing is looked up on a network. Raises CheckpointError for what is none of these.
        """
        try:
            path = Path(given).expanduser().absolute()
            if path.is_dir():
                return cls(ReferenceKind.FOLDER, path, given)
            if path.is_file():
                return cls(ReferenceKind.FILE, path, given)
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path, the home of an unknown user
            reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
            raise CheckpointError(reason, subject=given, remedy="Check the path") from None
        if path.is_symlink():
            raise CheckpointError(
                f"a link to {path.readlink()}, where nothing lies",
                subject=given,
                remedy="Download the checkpoint again",
            )
        if match := _SCHEME.match(given):
            return _parse_url(given, match["scheme"].lower(), match["rest"])
        if (match := _REPOSITORY.match(given)) and not _is_file_name(match):
            return cls(ReferenceKind.REPOSITORY, match["repository"], given, match["revision"])
        raise CheckpointError(
            "no such file or folder",
            subject=given,
            remedy="Give a folder with *.safetensors, one weights file, or a repository as org/name@revision",
        )


def repository_named(name: str) -> Reference | None:
    """The repository of that name on a Hub, whatever lies on disk; None for what can be none."""
    try:
        return Reference.parse(f"hf://{name}")
    except CheckpointError:
        return None


def base_and_adapter(given: str) -> tuple[str, str] | None:
    """The two references of "base+adapter", as mergekit writes it; None for what is no such pair.

    A "+" may stand in paths and in names of branches, too: what is there is meant as it is, and a pair only where both
    of its parts can be references.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if Path(given).expanduser().exists():
            return None
    for match in re.finditer(r"\+", given):
        pair = given[: match.start()], given[match.end() :]
        with contextlib.suppress(CheckpointError):
            if all(Reference.parse(part) for part in pair):
                return pair
    return None


def _parse_url(given: str, scheme: str, rest: str) -> Reference:
    if scheme == "hf":
        # Read as a repository, by our own checked requests: the file system behind this scheme takes whatever a server
        # answers for the range that was asked for.
        if match := _REPOSITORY.match(rest.rstrip("/")):
            return Reference(ReferenceKind.REPOSITORY, match["repository"], given, match["revision"])
        raise CheckpointError("no whole model repository", subject=given, remedy="Give org/name@revision")
    if _HUB_PAGE.match(given):
        raise CheckpointError("a page for people", subject=given, remedy="Give the repository as org/name@revision")
    return Reference(ReferenceKind.URL, given.rstrip("/"), given)


def _is_file_name(match: re.Match[str]) -> bool:
    """Whether "a/b" ends like a weights file: then a path was meant."""
    return match["revision"] is None and Path(match["repository"]).suffix in WEIGHT_SUFFIXES
