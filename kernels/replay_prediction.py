"""Text of the unrounded prediction, one expression a formula, for kernels that are generated."""

from __future__ import annotations

from reconstruct.kernels.formulas import WORKING_FORMATS, Formula

__all__ = ["prediction_source"]


def prediction_source(formula: Formula, sources: int, *, guarded: bool = True) -> list[str]:
    """Lines that leave the unrounded prediction in `raw`; c0, c1, ... and `divisor` are local.

    `guarded`: a source with coefficient 0 takes no part even where it would turn the sum into NaN or the sign of zero.
    """
    f = "float64" if formula.working == "float64" else "float32"
    drop = 23 - min(23, WORKING_FORMATS[formula.working])
    moved = range(1, sources)

    def r(expression: str) -> str:
        if formula.working == "float16":  # its subnormals matter: products with small deltas fall among them
            return f"half_round({expression})"
        return f"round_mantissa({expression}, {drop})" if drop else f"({expression})"

    def add(j: int, term: str) -> list[str]:
        return [f"if c{j} != 0:", f"    raw = raw + {term}"] if guarded else [f"raw = raw + {term}"]

    divide = ["if divisor != 1:", f"    raw = {r('raw / divisor')}"]
    if formula.order == "delta":
        return [f"raw = {f}(s0)", *(line for j in moved for line in add(j, f"c{j} * ({f}(s{j}) - {f}(s0))"))]
    if formula.order == "sum":
        return [f"raw = {f}(0)", *(line for j in range(sources) for line in add(j, f"c{j} * {f}(s{j})")), *divide]
    if formula.order == "fused":
        return ["raw = float32(0)", *[f"raw = fma32(c{j}, s{j}, raw)" for j in range(sources)], *divide]
    if formula.order == "stack":
        products = [add(j, r(f"{r(f's{j}')} * c{j}")) for j in range(sources)]
        return ["raw = float32(0)", *(line for lines in products for line in lines), f"raw = {r('raw')}", *divide]
    if formula.order == "task":
        inner = {j: f"{r(f's{j}')} - w0" for j in moved}
        scaled = {j: r(f"{r(inner[j])} * c{j}") for j in moved}
        return [
            f"w0 = {r('s0')}", "raw = float32(0)", *(line for j in moved for line in add(j, scaled[j])),
            f"raw = {r('raw')}", f"raw = {r('w0 + raw')}",
        ]  # fmt: skip
    return [
        "gap = s1 - s0",
        "raw = fma32(c1, gap, s0) if abs(c1) < float32(0.5) else fma32(c1 - float32(1), gap, s1)",
    ]
