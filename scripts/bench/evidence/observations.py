"""What is true of a case beside what the program found: the lines of cases.jsonl and results.jsonl, joined."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from case import Case

__all__ = [
    "ACCUSATIONS", "Coefficient", "Condition", "Finding", "Observation", "main_runs", "read_observations",
]  # fmt: skip

#: Verdicts that call the suspect a merge of the candidates.
ACCUSATIONS = frozenset({"reproduced", "merge_then_modified", "merge_consistent"})


@dataclass(frozen=True)
class Coefficient:
    """Estimates of one source's share: final, its certified bounds, and three estimators. NaN: not made."""

    estimate: float
    low: float
    high: float
    least_squares: float
    sum_to_one: float
    interval: float

    @classmethod
    def of(cls, values: Mapping[str, float | None]) -> Self:
        """From one decoded entry of a result."""
        return cls(**{f.name: _number(values.get(f.name)) for f in fields(cls)})


@dataclass(frozen=True)
class Condition:
    """A measured number beside its threshold, and whether the condition held."""

    name: str
    value: float
    threshold: float
    passed: bool


@dataclass(frozen=True)
class Finding:
    """One run of the program on a case. `verdict`: "refused" where the program gave an error in its place. `sweep`:
    threshold -> its other values, with the verdicts that they would give; `budget`, a share of all bytes, and `sample`,
    elements a tensor: None in the runs that read everything; `largest`: elements of the largest matrix; `untouched`:
    estimated share.
    """

    case: str
    verdict: str
    origin: str = ""
    reasons: tuple[Condition, ...] = ()
    coefficients: Mapping[str, Coefficient] = field(default_factory=dict)
    explained: float = math.nan
    untouched: float = math.nan
    largest: int = 0
    sweep: Mapping[str, Mapping[float, str]] = field(default_factory=dict)
    budget: float | None = None
    sample: int | None = None
    seconds: float = math.nan
    program: str = ""

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """From one decoded line of results.jsonl; keys that are not known here are passed over."""
        if line["verdict"] is None:
            error = Condition(line["error"], math.nan, math.nan, passed=False)
            return cls(line["case"], "refused", reasons=(error,), budget=line["budget"], sample=line["sample"])
        return cls(
            case=line["case"],
            verdict=line["verdict"],
            origin=line["origin"],
            reasons=tuple(
                Condition(r["name"], _number(r["value"]), _number(r["threshold"]), r["passed"]) for r in line["reasons"]
            ),
            coefficients={path: Coefficient.of(values) for path, values in line["coefficients"].items()},
            explained=_number(line["explained"]),
            untouched=_number(line["untouched"]),
            largest=line["largest"],
            sweep={key: {float(v): verdict for v, verdict in pairs} for key, pairs in line["sweep"].items()},
            budget=line["budget"],
            sample=line["sample"],
            seconds=_number(line["seconds"]),
            program=line["program"],
        )

    @property
    def accuses(self) -> bool:
        """Whether it calls the suspect a merge of the candidates."""
        return self.verdict in ACCUSATIONS


@dataclass(frozen=True)
class Observation:
    """A case and one run on it."""

    truth: Case
    finding: Finding

    @property
    def right(self) -> bool:
        """Whether the verdict is one of those that are right for the case."""
        return self.finding.verdict in self.truth.expected

    @property
    def false_accusation(self) -> bool:
        """Whether the verdict says of the models something that accuses one of them and is not so."""
        return self.finding.verdict in self.truth.forbidden


def read_observations(work: Path) -> list[Observation]:
    """All runs in `work`, in the order of the results. Raises KeyError for a result whose case is not listed."""
    truths = {truth.name: truth for truth in map(Case.of, _lines(work / "cases.jsonl"))}
    return [Observation(truths[f.case], f) for f in map(Finding.of, _lines(work / "results.jsonl"))]


def main_runs(observations: Iterable[Observation]) -> list[Observation]:
    """Those that read everything: what all tables but that of budgets are made of."""
    return [o for o in observations if o.finding.budget is None and o.finding.sample is None]


def _lines(path: Path) -> list[dict[str, Any]]:
    """A last line that a stopped run cut off is left out."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
