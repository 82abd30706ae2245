"""Shares of counts, with the bounds of Clopper and Pearson: they hold for any count, also for none of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scipy.stats import beta

__all__ = ["Proportion", "proportion"]

LEVEL = 0.95


@dataclass(frozen=True)
class Proportion:
    """`hits` of `total`, as a share with two-sided 95 % bounds; `at_most`: the one-sided 95 % upper bound."""

    hits: int
    total: int
    share: float
    low: float
    high: float
    at_most: float


def proportion(hits: Iterable[bool]) -> Proportion:
    """Of true ones. Of nothing: share NaN, bounds 0 and 1."""
    values = list(hits)
    k, n = sum(values), len(values)
    if not n:
        return Proportion(0, 0, float("nan"), 0.0, 1.0, 1.0)
    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high, at_most = (float(beta.ppf(level, k + 1, n - k)) if k < n else 1.0 for level in (1 - tail, LEVEL))
    return Proportion(k, n, k / n, low, high, at_most)
