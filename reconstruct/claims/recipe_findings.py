"""What is wrong with a claimed recipe, by line: errors that end its reading, and findings that are noted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from reconstruct.claims.recipe_yaml import LocatedDocument
from reconstruct.errors import ConfigurationError

__all__ = ["Finding", "Notebook", "suggestion"]


@dataclass(frozen=True)
class Finding:
    """Something that mergekit accepts silently, or that leaves its output open. `path`: "models[1].parameters.t"."""

    line: int | None
    path: str
    message: str


class Notebook:
    """Collects the findings of one document, and raises its errors; both know their line."""

    def __init__(self, document: LocatedDocument, location: str) -> None:
        self.document, self.location = document, location
        self._findings: dict[Finding, None] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """In the order of lines, each once."""
        return tuple(sorted(self._findings, key=lambda finding: finding.line or 0))

    def note(self, path: str, message: str, *, at: str | None = None) -> None:
        """A finding about `path`; of something that is absent, the line is that of `at`."""
        self._findings[Finding(self.document.line(path if at is None else at), path, message)] = None

    def fail(self, path: str, message: str, remedy: str, *, at: str | None = None) -> NoReturn:
        """End the reading with an error about `path`."""
        line = self.document.line(path if at is None else at)
        label = f"{path}: " if path else ""
        raise ConfigurationError(f"line {line}: {label}{message}", subject=self.location, remedy=remedy)


def suggestion(word: str, known: Iterable[str]) -> str:
    """The question after a misspelt word, or nothing where no known word is near."""
    near = difflib.get_close_matches(word[:80], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
