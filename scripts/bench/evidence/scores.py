"""From observations to numbers: how often the verdict is right, whom it accuses falsely, how far it is off."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from causes import telling_conditions
from observations import Coefficient, Observation
from proportions import Proportion, proportion

__all__ = [
    "EXACT", "METHODS", "Miss", "accused_innocents", "calibration", "coefficient_errors", "confusion", "detection",
    "exact_merges", "false_accusations", "misses", "untouched_errors",
]  # fmt: skip

#: Ways to estimate coefficients, worst first: fields of observations.Coefficient.
METHODS = ("least_squares", "sum_to_one", "interval", "estimate")
#: A coefficient is exactly the round one: decimals that a recipe would be written with.
EXACT = 1e-6
_LAST_BITS = 1e-12
_MATERIAL = 0.05  # of a share that a reader takes for a part in the merge; the program's own "consistent material"


def confusion(observations: Iterable[Observation]) -> dict[tuple[str, str], Counter[str]]:
    """(sort, group) -> verdicts and how often each was given."""
    table: dict[tuple[str, str], Counter[str]] = {}
    for o in observations:
        table.setdefault((o.truth.sort, o.truth.group), Counter())[o.finding.verdict] += 1
    return table


def false_accusations(observations: Iterable[Observation]) -> Proportion:
    """Of the suspects that are no merge of the candidates: how many were given a forbidden verdict."""
    return proportion(o.false_accusation for o in observations if not o.truth.is_merge)


def accused_innocents(observations: Iterable[Observation]) -> dict[str, list[str]]:
    """Case -> candidates that took no part in a true merge, and yet have a share of .05 in the recipe found."""
    found: dict[str, list[str]] = {}
    for o in observations:
        if o.finding.accuses and o.truth.is_merge and o.truth.coefficients:
            true = o.truth.coefficients
            innocent = [path for path, c in o.finding.coefficients.items()
                        if abs(true.get(path, 0.0)) < 1e-9 and abs(c.estimate) >= _MATERIAL]  # fmt: skip
            if innocent:
                found[o.truth.name] = innocent
    return found


def detection(observations: Iterable[Observation]) -> dict[tuple[str, str], Proportion]:
    """(sort, group) of merges, modified or not -> how many were given a verdict that is right."""
    groups: dict[tuple[str, str], list[bool]] = {}
    for o in observations:
        if o.truth.is_merge:
            groups.setdefault((o.truth.sort, o.truth.group), []).append(o.right)
    return {group: proportion(hits) for group, hits in groups.items()}


def exact_merges(observations: Iterable[Observation]) -> Proportion:
    """Of the unmodified merges with one true number a source: how many are reproduced with exactly those numbers."""
    return proportion(
        o.finding.verdict == "reproduced" and all(e <= EXACT for e in _errors(o, "estimate").values())
        for o in observations
        if o.truth.sort == "merge" and o.truth.coefficients
    )


def coefficient_errors(observations: Iterable[Observation]) -> dict[str, dict[str, float]]:
    """Method -> case -> largest distance of a coefficient from its true number.

    Of merges with true numbers, in cases for which every method made an estimate of every source, so that all are
    compared on the same ones. Without a base, least squares sums to one by itself.
    """
    errors: dict[str, dict[str, float]] = {method: {} for method in METHODS}
    for o in observations:
        if o.truth.is_merge and o.truth.coefficients:
            worst = {method: max(_errors(o, method).values()) for method in METHODS}
            if o.truth.base is None:
                worst["sum_to_one"] = worst["least_squares"]
            if all(map(math.isfinite, worst.values())):
                for method, error in worst.items():
                    errors[method][o.truth.name] = error
    return errors


def calibration(observations: Iterable[Observation]) -> tuple[Proportion, dict[str, float]]:
    """Of the cases with certified bounds and true numbers: how many hold every truth; and case -> how far the worst
    truth lies outside, for those that do not.
    """
    outside: dict[str, float] = {}
    for o in observations:
        if o.finding.origin == "certified" and o.truth.coefficients:
            found = o.finding.coefficients
            outside[o.truth.name] = max(_outside(found[path], v) for path, v in o.truth.coefficients.items())
    return proportion(d <= 0 for d in outside.values()), {name: d for name, d in outside.items() if d > 0}


def _outside(c: Coefficient, value: float) -> float:
    """How far a value lies outside the bounds, negative inside; infinite where there are none."""
    distance = max(c.low - value, value - c.high)
    return distance if math.isfinite(distance) else math.inf


def untouched_errors(observations: Iterable[Observation]) -> dict[str, tuple[float, float]]:
    """Case -> (true, estimated) untouched share, where there is a true one and the verdict says that it was seen."""
    return {
        o.truth.name: (o.truth.untouched, o.finding.untouched)
        for o in observations
        if o.truth.untouched is not None and o.finding.verdict == "merge_then_modified"
    }


@dataclass(frozen=True)
class Miss:
    """A verdict that is not a right one. `telling`: see causes.py, as (name, value, threshold)."""

    name: str
    sort: str
    group: str
    verdict: str
    expected: tuple[str, ...]
    false_accusation: bool
    telling: tuple[tuple[str, float, float], ...]


def misses(observations: Iterable[Observation]) -> list[Miss]:
    """All of them, false accusations first."""
    found = [
        Miss(o.truth.name, o.truth.sort, o.truth.group, o.finding.verdict, tuple(sorted(o.truth.expected)),
             o.false_accusation, tuple((r.name, r.value, r.threshold) for r in telling_conditions(o)))
        for o in observations if not o.right
    ]  # fmt: skip
    return sorted(found, key=lambda miss: (not miss.false_accusation, miss.sort, miss.group, miss.name))


def _errors(o: Observation, method: str) -> Mapping[str, float]:
    """Source -> distance of a method's coefficient from the true number, 0 for what only the last bits of a float64
    tell apart; infinite where it made none.
    """
    assert o.truth.coefficients is not None
    distances = {}
    for path, true in o.truth.coefficients.items():
        found = o.finding.coefficients.get(path)
        distance = math.inf if found is None else abs(getattr(found, method) - true)
        distances[path] = (distance if distance > _LAST_BITS else 0.0) if math.isfinite(distance) else math.inf
    return distances
