"""The simplest number in an interval: what a person would have written in a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

__all__ = ["decimals_between", "is_simple", "is_small_fraction", "simplest"]


def decimals_between(low: float, high: float, *, digits: int = 6, limit: int = 12) -> Iterator[float]:
    """Decimals in [low, high], those with the fewest digits first, within equal digits nearest the middle first."""
    seen: set[float] = set()
    middle = (low + high) / 2
    for places in range(digits + 1):
        scale = 10**places
        first, last = math.ceil(low * scale - 1e-9), math.floor(high * scale + 1e-9)
        if last - first > 2000:
            first, last = round(middle * scale) - 20, round(middle * scale) + 20
        for step in sorted(range(first, last + 1), key=lambda n: abs(n / scale - middle)):
            value = step / scale
            if value not in seen:
                seen.add(value)
                yield value
                if len(seen) >= limit:
                    return


def simplest(low: float, high: float, round_: Callable[[float], float] = float) -> list[float]:
    """Candidates for the coefficient in [low, high], simplest first; the middle is last, so the list is never empty.

    With `round_`, a number is admitted if it lies in the interval after rounding to a working dtype: bf16(0.3) =
    0.30078125 admits 0.3. Fractions with small denominators (4/7) stand before decimals of five digits and more.
    """
    found: list[float] = []
    slack = 0.004 * max(abs(low), abs(high)) if round_ is not float else 0.0
    found += [
        value
        for value in decimals_between(low - slack, high + slack, digits=4)
        if low <= round_(value) <= high or math.isclose(round_(value), low, abs_tol=1e-9)
    ]
    middle = (low + high) / 2
    if high - low < 1e-3 and not found:
        fraction = Fraction(middle).limit_denominator(64)
        if low <= float(fraction) <= high:
            found.append(float(fraction))
    if not found:
        found += [v for v in decimals_between(low, high, digits=6, limit=3) if low <= round_(v) <= high]
    near = any(math.isclose(middle, value, abs_tol=1e-9) for value in found[:6])
    return found[:6] if near else [*found[:6], middle]


def is_small_fraction(value: float) -> bool:
    """Whether the number is a fraction with a denominator of at most 64."""
    return abs(float(Fraction(value).limit_denominator(64)) - value) < 1e-12


def is_simple(value: float) -> bool:
    """Whether the number has at most four decimals or is a fraction with a denominator of at most 64."""
    return abs(value - round(value, 4)) < 1e-12 or is_small_fraction(value)
