"""One case: a suspect, candidates, what is true, and which verdicts are right or would accuse the innocent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """`sort`: the truth about the suspect and these candidates; `group`: what kind of case. Models are paths below the
    folder of all models. `families`: hypotheses, None for the default. `expected`: verdicts that are right;
    `forbidden`: those that accuse falsely, or take the wrong one of parent and child. `coefficients`: true numbers by
    model, where there is one for the whole model; `untouched`: true share of decisive elements that nothing changed
    after a merge; `strength` of what came after it, in units of its group.
    """

    name: str
    family: str
    half: Literal["tuning", "reporting"]
    sort: Literal["merge", "modified merge", "no merge"]
    group: str
    suspect: str
    parents: tuple[str, ...]
    base: str | None
    expected: tuple[str, ...]
    forbidden: tuple[str, ...]
    families: tuple[str, ...] | None = None
    coefficients: Mapping[str, float] | None = None
    untouched: float | None = None
    strength: float | None = None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """From one decoded line of cases.jsonl; keys that are not known here are passed over."""
        known = {key: line[key] for key in (f.name for f in fields(cls)) if key in line}
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in known.items()})

    @property
    def is_merge(self) -> bool:
        """Whether the suspect is a merge of the candidates, whatever was done to it afterwards."""
        return self.sort != "no merge"
