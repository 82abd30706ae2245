"""What a Hub's refusal means, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconstruct.errors import RemoteError

__all__ = ["Asked", "refusal"]

_LOGIN = "set HF_TOKEN or run `hf auth login`"


@dataclass(frozen=True)
class Asked:
    """What was asked of a Hub: a repository, at a revision if one was named, and a file of it if it was one."""

    endpoint: str
    repository: str
    revision: str = ""
    file: str | None = None

    def __str__(self) -> str:
        place = f"{self.repository}@{self.revision}" if self.revision else self.repository
        return f"{place}/{self.file}" if self.file is not None else place

    @property
    def page(self) -> str:
        """Where people look at the repository, and ask for access."""
        return f"{self.endpoint}/{self.repository}"


def refusal(asked: Asked, status: int, headers: Mapping[str, str]) -> RemoteError:
    """The error for an answer of status 4xx that no repetition would change."""
    code = headers.get("x-error-code", "")
    if code == "GatedRepo":
        return RemoteError(
            "a gated repository, and no access to it", subject=asked.repository,
            remedy=f"Ask for access on {asked.page}, then {_LOGIN} with that account",
        )  # fmt: skip
    if code == "RevisionNotFound":
        return RemoteError(
            f"no revision {asked.revision!r}", subject=asked.repository,
            remedy=f"Give a branch, tag or commit of {asked.page}",
        )  # fmt: skip
    if code == "EntryNotFound":
        return RemoteError("no such file at this revision", subject=str(asked), remedy=f"See {asked.page}")
    if code == "RepoNotFound" or (status == 404 and asked.file is None):
        return RemoteError(
            f"no such repository on {asked.endpoint}, or a private one (nor is there a folder of that name)",
            subject=asked.repository, remedy=f"Check the name; if it is private, {_LOGIN}",
        )  # fmt: skip
    said = headers.get("x-error-message", "")
    if status in {401, 403}:
        return RemoteError(
            f"access denied (status {status}{_quoted(said)})", subject=asked.repository,
            remedy=f"If you have access on {asked.page}, {_LOGIN}; a token that has expired must be renewed",
        )  # fmt: skip
    return RemoteError(
        f"{asked.endpoint} answered with status {status}{_quoted(said)}", subject=str(asked), remedy=f"See {asked.page}"
    )


def _quoted(said: str) -> str:
    return f": {said[:200]}" if said else ""
