"""The orders of operations in which a merge may have been computed; what `replay` can recompute.

x_0 is the pivot, x_1 ... x_K the other sources, c their coefficients, d a divisor, r rounding to the working format.

    delta   x_0 + c_1 (x_1 - x_0) + c_2 (x_2 - x_0) + ...          left to right, each step rounded
    sum     (c_0 x_0 + c_1 x_1 + ...) / d                          each product and sum rounded
    fused   fma(c_1, x_1, fma(c_0, x_0, 0)) ... / d                one rounding a source
    stack   r(r(sum r(r(c_j) x_j)) / r(d))                         the sum is accumulated in float32, rounded once
    task    r(x_0 + r(sum r(r(x_j - x_0) r(c_j))))                 likewise
    lerp    x_0 + c_1 (x_1 - x_0) if |c_1| < 1/2 else x_1 - (x_1 - x_0)(1 - c_1), fused; the first two sources

The result is rounded to the suspect's lattice at the end. Sources with coefficient 0 take no part.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FORMULAS", "WORKING_FORMATS", "Formula"]

FORMULAS = ("delta", "sum", "fused", "stack", "task", "lerp")
#: Working format -> mantissa bits kept after each step.
WORKING_FORMATS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}


@dataclass(frozen=True)
class Formula:
    """An order of operations in a working format. Raises ValueError for a pair that is not defined."""

    order: str
    working: str

    def __post_init__(self) -> None:
        if self.order not in FORMULAS:
            raise ValueError(f"unknown formula {self.order!r}; there are {', '.join(FORMULAS)}")
        if self.working not in WORKING_FORMATS:
            raise ValueError(f"unknown working format {self.working!r}; there are {', '.join(WORKING_FORMATS)}")
        if self.working == "float64" and self.order not in {"delta", "sum"}:
            raise ValueError(f"{self.order} is not defined in float64")
        if self.working in {"bfloat16", "float16"} and self.order not in {"stack", "task"}:
            raise ValueError(f"{self.order} is not defined in {self.working}")
