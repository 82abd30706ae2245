"""What it takes to be seen: detection of modified merges against how much was left, and how much was done."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import geometric_mean

from observations import Observation
from proportions import Proportion, proportion

__all__ = ["LARGE", "SHARE_EDGES", "PowerBin", "power", "proved", "strengths"]

#: True untouched shares that bins of a power curve lie between.
SHARE_EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
#: Elements of the largest matrix, from which a share of 1 % should be seen.
LARGE = 1_000_000
_ALIKE = 1.6  # factor between strengths that are taken together


def proved(o: Observation) -> bool:
    """Whether the verdict rests on weights that sit where a merge left them, and is more than a lead."""
    return o.finding.verdict in {"reproduced", "merge_then_modified"}


@dataclass(frozen=True)
class PowerBin:
    """Detection between two untouched shares; `center`: the median of those in between, NaN in an empty bin."""

    low: float
    high: float
    center: float
    rate: Proportion


def power(
    observations: Iterable[Observation], seen: Callable[[Observation], bool] = lambda o: o.right
) -> list[PowerBin]:
    """Detection by true untouched share, in bins [low, high) between SHARE_EDGES; the last bin is closed.

    Cases without such a share take no part. Bins without a case are kept.
    """
    valued = [(o.truth.untouched, seen(o)) for o in observations if o.truth.untouched is not None]
    edges = SHARE_EDGES
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = sorted((v, r) for v, r in valued if low <= v < high or v == high == edges[-1])
        center = inside[len(inside) // 2][0] if inside else math.nan
        bins.append(PowerBin(low, high, center, proportion(right for _, right in inside)))
    return bins


def strengths(observations: Iterable[Observation]) -> dict[str, dict[float, Proportion]]:
    """Group of modified merges -> strength of the modification, rising -> detection.

    Strengths within a factor of 1.6 are taken together, under their geometric mean: families differ a little in theirs.
    """
    groups: dict[str, list[tuple[float, bool]]] = {}
    for o in observations:
        if o.truth.sort == "modified merge" and o.truth.strength is not None:
            groups.setdefault(o.truth.group, []).append((o.truth.strength, o.right))
    table: dict[str, dict[float, Proportion]] = {}
    for group, rows in groups.items():
        together: list[list[tuple[float, bool]]] = []
        for row in sorted(rows):
            if together and row[0] <= _ALIKE * together[-1][0][0]:
                together[-1].append(row)
            else:
                together.append([row])
        table[group] = {
            float(f"{geometric_mean(s for s, _ in of):.3g}"): proportion(right for _, right in of) for of in together
        }
    return table
