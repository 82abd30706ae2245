"""What the texts of the generated replay kernels have in common: names, decoding, prediction, codes."""

from __future__ import annotations

from dataclasses import dataclass

from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.formulas import WORKING_FORMATS, Formula
from reconstruct.kernels.generate import decode_expression
from reconstruct.kernels.replay_careful import WIDTH
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA

__all__ = ["REPLAY_CHUNK", "Names", "chunk_views", "code_source", "names_of", "prediction_source", "sum_of_histograms"]

#: Elements per chunk: sources, predictions and what is kept of them stay in the first-level cache.
REPLAY_CHUNK = 2048


@dataclass(frozen=True)
class Names:
    """Lists of local variables as text, and lines that decode element i of the views."""

    sources: list[str]
    models: str
    views: str
    weights: str
    decoded: list[str]
    #: Differences of numbers with few mantissa bits are exact in float32; others need float64 to be counted right.
    precision: str


def names_of(dtypes: tuple[str, ...], formula: Formula) -> Names:
    """For the suspect and its sources, pivot first."""
    sources = [f"s{j}" for j in range(len(dtypes) - 1)]
    decoded = [
        f"target = {decode_expression(dtypes[0], 'v0[i]')}",
        *(f"s{j} = {decode_expression(dtypes[j + 1], f'v{j + 1}[i]')}" for j in range(len(sources))),
    ]
    narrow = all(FLOAT_FORMATS[d].mantissa <= 10 for d in dtypes) and formula.working != "float64"
    count = range(len(dtypes))
    return Names(
        sources, ", ".join(f"m{j}" for j in count), ", ".join(f"v{j}" for j in count),
        ", ".join(f"c{j}" for j in range(len(sources))), decoded, "float32" if narrow else "float64",
    )  # fmt: skip


def chunk_views(count: int) -> list[str]:
    """Lines of the loop over chunks: `n` elements of every model as v0, v1, ..."""
    return [
        f"    for start in range(0, m0.shape[0], {REPLAY_CHUNK}):",
        f"        n = min({REPLAY_CHUNK}, m0.shape[0] - start)",
        *[f"        v{j} = m{j}[start:start + n]" for j in range(count)],
    ]


def sum_of_histograms() -> list[str]:
    """Lines that add the four histograms of every vector to its `steps`."""
    return [
        "    for v in range(coefficients.shape[0]):",
        "        for part in range(4):",
        f"            for k in range({len(STRATA)}):",
        f"                for step in range({WIDTH}):",
        f"                    steps[v, k, step] += histogram[v, part, k * {WIDTH} + step]",
    ]


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


def code_source(f: str) -> list[str]:
    """`code` from `away` (in spacings), `difference` and `inverse`: stratum and steps as one number."""
    return [
        "        k = int32(0)",
        *[f"        k = int32(k + int32(away >= {f}({edge!r})))" for edge in STRATA[1:]],
        f"        size = int32(min(abs(difference) * {f}(inverse) + {f}(0.5), {f}({MAXIMUM_STEPS})))",
        f"        size = max(size, int32(1)) if difference != {f}(0) else int32(0)",
        f"        step = int32(-size) if difference < {f}(0) else size",
        f"        code = int32(int32(k * int32({WIDTH})) + int32(step + int32({MAXIMUM_STEPS})))",
    ]
