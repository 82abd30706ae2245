"""How a model tree is written where references are: "children:org/base", "children:finetune:org/base"."""

from __future__ import annotations

from dataclasses import dataclass

from reconstruct.checkpoints.reference import repository_named
from reconstruct.errors import ConfigurationError

__all__ = ["PREFIX", "RELATIONS", "TreeQuery"]

PREFIX = "children:"
#: What a Hub says that a repository is to its base model.
RELATIONS = ("finetune", "merge", "adapter", "quantized")


@dataclass(frozen=True)
class TreeQuery:
    """Children of `repository`; `relation`: one of RELATIONS, None for all of them."""

    repository: str
    relation: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.relation}:{self.repository}" if self.relation else f"{PREFIX}{self.repository}"

    @classmethod
    def parse(cls, given: str) -> TreeQuery:
        """Read children:org/base or children:finetune:org/base. Raises ConfigurationError for anything else."""
        relation, colon, rest = given.removeprefix(PREFIX).strip().rpartition(":")
        if colon and relation not in RELATIONS:
            raise ConfigurationError(
                f"no relation {relation!r} in a model tree", subject=given, remedy=f"There are {', '.join(RELATIONS)}"
            )
        reference = repository_named(rest)
        if reference is None:
            raise ConfigurationError(
                "names no repository of a Hub",
                subject=given,
                remedy=f"Say {PREFIX}org/base or {PREFIX}finetune:org/base",
            )
        if reference.revision is not None:
            raise ConfigurationError(
                "cards name repositories, not their revisions",
                subject=given,
                remedy=f"Say {PREFIX}{reference.location}",
            )
        return cls(str(reference.location), relation or None)
