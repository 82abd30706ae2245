"""Named ways a program may have computed a merge: the arithmetic that reproduces every bit names the program."""

from __future__ import annotations

from dataclasses import dataclass

from reconstruct.kernels.formulas import Formula

__all__ = ["ARITHMETICS", "Arithmetic", "arithmetics_for"]


@dataclass(frozen=True)
class Arithmetic:
    """`family`: the merge family whose programs compute like this; `ordered`: the order of models matters.
    `program`: who does so. `dtype` and `out_dtype`: what a mergekit configuration needs for it, where one exists.
    """

    name: str
    formula: Formula
    family: str
    program: str
    ordered: bool = False
    dtype: str | None = None


ARITHMETICS = (
    Arithmetic(
        "float32 fused multiply-add, rounded once",
        Formula("fused", "float32"),
        "linear",
        "mergekit >= 0.1.5 linear",
        ordered=True,
        dtype="storage",
    ),
    Arithmetic(
        "float32 products and sums, rounded once",
        Formula("sum", "float32"),
        "linear",
        "weighted sums in float32; mergekit slerp",
        dtype="float32",
    ),
    Arithmetic(
        "float32 base plus weighted deltas one by one, rounded once",
        Formula("delta", "float32"),
        "task_arithmetic",
        "base + w (x - base) in float32",
        ordered=True,
        dtype="float32",
    ),
    Arithmetic(
        "float32 base plus sum of weighted deltas, rounded once",
        Formula("task", "float32"),
        "task_arithmetic",
        "mergekit task_arithmetic, dtype float32",
        dtype="float32",
    ),
    Arithmetic(
        "bfloat16 base plus sum of weighted deltas",
        Formula("task", "bfloat16"),
        "task_arithmetic",
        "mergekit task_arithmetic, dtype bfloat16",
        dtype="bfloat16",
    ),
    Arithmetic(
        "float16 base plus sum of weighted deltas",
        Formula("task", "float16"),
        "task_arithmetic",
        "mergekit task_arithmetic, dtype float16",
        dtype="float16",
    ),
    Arithmetic(
        "bfloat16 products and sums",
        Formula("stack", "bfloat16"),
        "linear",
        "mergekit <= 0.1.4 linear, dtype bfloat16",
        dtype="bfloat16",
    ),
    Arithmetic(
        "float16 products and sums",
        Formula("stack", "float16"),
        "linear",
        "mergekit <= 0.1.4 linear, dtype float16",
        dtype="float16",
    ),
    Arithmetic(
        "float32 lerp, rounded once", Formula("lerp", "float32"), "linear", "torch.lerp in float32", ordered=True,
        dtype="float32",
    ),
    Arithmetic(
        "float64 products and sums, rounded once", Formula("sum", "float64"), "linear", "weighted sums in float64",
        dtype="float32",
    ),
    Arithmetic(
        "float64 base plus weighted deltas, rounded once",
        Formula("delta", "float64"),
        "task_arithmetic",
        "base + w (x - base) in float64",
        dtype="float32",
    ),
)  # fmt: skip


def arithmetics_for(material: int, *, has_base: bool) -> list[Arithmetic]:
    """Those that make sense for so many material sources. Delta forms need a pivot: the base, or a source."""
    return [a for a in ARITHMETICS if a.formula.order != "lerp" or (material == 2 or (material == 1 and has_base))]
