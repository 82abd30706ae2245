"""What a fake Hub serves: repositories of several commits, whose files are bytes, paths, or made on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Commit", "Content", "FakeRepository", "Fault", "Given", "InMemory"]

_PIECE = 1 << 16


class Content(Protocol):
    """What a file holds, made on demand."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, stop: int) -> bytes: ...


@dataclass(frozen=True)
class InMemory:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int) -> bytes:
        return self.data[start:stop]


@dataclass(frozen=True)
class _File:
    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, start: int, stop: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


Given = Path | Mapping[str, bytes | Path | Content]


@dataclass
class Commit:
    """One state of a repository."""

    sha: str
    files: dict[str, Content]
    _etags: dict[str, str] = field(default_factory=dict)

    def etag(self, name: str) -> str:
        """As for git blobs and LFS objects: a digest; of the name, the size and the middle where the content is made on
        demand.
        """
        content = self.files[name]
        if isinstance(content, InMemory | _File) and content.size < 1 << 24:
            return hashlib.sha256(content.read(0, content.size)).hexdigest()
        if name not in self._etags:  # models of one layout begin alike
            middle = content.read(content.size // 2, min(content.size // 2 + 4096, content.size))
            self._etags[name] = hashlib.sha256(f"{self.sha}/{name}/{content.size}".encode() + middle).hexdigest()
        return self._etags[name]


@dataclass
class Fault:
    """`times` is counted down at every answer that it spoils; None: always. `file`: None for any, "" for the API."""

    kind: str
    file: str | None
    times: int | None
    value: Any
    after: int


class FakeRepository:
    """Commits and the names that point to them. `storage`: weights are redirected; `gated`, `private`: who may read.
    `base_models`: name -> relation ("" for none), as its card says; `downloads` of it.
    """

    def __init__(
        self, files: Given, *, storage: bool = False, gated: bool = False, private: bool = False,
        base_models: Mapping[str, str] | None = None, downloads: int = 0,
    ) -> None:  # fmt: skip
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.storage, self.gated, self.private = storage, gated, private
        self.base_models, self.downloads = dict(base_models or {}), downloads
        self.commit(files)

    def commit(self, files: Given, branch: str = "main") -> str:
        """Add a state and point a branch to it; returns its sha."""
        if isinstance(files, Path):
            files = {path.name: path for path in sorted(files.iterdir()) if path.is_file()}
        contents = {name: _content(value) for name, value in files.items()}
        digest = hashlib.sha1(f"commit {len(self.commits)}".encode())
        for name, content in sorted(contents.items()):
            digest.update(f"{name} {content.size} ".encode() + content.read(0, min(content.size, _PIECE)))
        sha = digest.hexdigest()
        self.commits[sha] = Commit(sha, contents)
        self.branches[branch] = sha
        return sha

    @property
    def tags(self) -> list[str]:
        """As a Hub makes them of a card: each base model by itself, and with its relation."""
        found = [f"base_model:{base}" for base in self.base_models]
        return found + [f"base_model:{relation}:{base}" for base, relation in self.base_models.items() if relation]

    @property
    def sha(self) -> str:
        """Where main points."""
        return self.branches["main"]

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch, tag or sha means."""
        return self.commits.get(self.branches.get(revision, revision))


def _content(value: bytes | Path | Content) -> Content:
    if isinstance(value, bytes):
        return InMemory(value)
    return _File(value) if isinstance(value, Path) else value
