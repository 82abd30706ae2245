"""In what each threshold is measured: by what the middle of a range, and the distance of two values, are taken."""

from __future__ import annotations

import math
from enum import StrEnum

__all__ = ["Scale", "scale_of"]


class Scale(StrEnum):
    """In what a threshold is measured: by what its middle and its distances are taken."""

    DIFFERENCE = "difference"  # a share or a small count
    FACTOR = "factor"
    FACTOR_BELOW_ONE = "factor of the distance to 1"
    FACTOR_ABOVE_ONE = "factor of the excess over 1"

    def position(self, value: float) -> float:
        """Coordinate in which distances are even; infinite at the end of a scale."""
        distance = {Scale.FACTOR: value, Scale.FACTOR_BELOW_ONE: 1 - value, Scale.FACTOR_ABOVE_ONE: value - 1}.get(self)
        if distance is None:
            return value
        sign = -1 if self is Scale.FACTOR_BELOW_ONE else 1
        return sign * (math.log(distance) if distance > 0 else -math.inf)

    def distance(self, a: float, b: float) -> float:
        """Between two values: a difference, or a factor of 1 or more."""
        apart = abs(self.position(a) - self.position(b))
        return apart if self is Scale.DIFFERENCE else math.exp(apart)


_DIFFERENCES = {
    "sources", "decoy hits", "box of decoys", "strata", "voting majority", "phase uniformity", "tensors",
    "derived explained", "read tensors",
}  # fmt: skip
_NEAR_ONE = {"replayed", "novel replayed", "box", "regular", "overlap"}
_EXCESS = {"spike ratio", "orientation"}


def scale_of(key: str) -> Scale:
    """Of a threshold of reconstruct.criteria.THRESHOLDS."""
    if key in _DIFFERENCES:
        return Scale.DIFFERENCE
    if key in _NEAR_ONE:
        return Scale.FACTOR_BELOW_ONE
    return Scale.FACTOR_ABOVE_ONE if key in _EXCESS else Scale.FACTOR
