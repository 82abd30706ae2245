"""Predict, round, compare and count in one pass, for many coefficient vectors; one generated loop per formula."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from reconstruct.kernels.formulas import WORKING_FORMATS, Formula
from reconstruct.kernels.generate import compiled, decode_expression, finite_expression
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA, ReplayResult, View, check_replay

__all__ = ["replay"]


def _prediction(formula: Formula, sources: int) -> list[str]:
    """Lines that leave the unrounded prediction in `raw`; c0, c1, ... and `divisor` are local."""
    f = "float64" if formula.working == "float64" else "float32"
    drop = 23 - min(23, WORKING_FORMATS[formula.working])
    moved = range(1, sources)

    def r(expression: str) -> str:
        if formula.working == "float16":  # its subnormals matter: products with small deltas fall among them
            return f"half_round({expression})"
        return f"round_mantissa({expression}, {drop})" if drop else f"({expression})"

    divide = ["if divisor != 1:", f"    raw = {r('raw / divisor')}"]
    if formula.order == "delta":
        lines = [f"raw = {f}(s0)"]
        for j in moved:
            lines += [f"if c{j} != 0:", f"    raw = raw + c{j} * ({f}(s{j}) - {f}(s0))"]
        return lines
    if formula.order == "sum":
        lines = [f"raw = {f}(0)"]
        for j in range(sources):
            lines += [f"if c{j} != 0:", f"    raw = raw + c{j} * {f}(s{j})"]
        return lines + divide
    if formula.order == "fused":
        return ["raw = float32(0)", *[f"raw = fma32(c{j}, s{j}, raw)" for j in range(sources)], *divide]
    if formula.order == "stack":
        lines = ["raw = float32(0)"]
        for j in range(sources):
            product = r(f"{r(f's{j}')} * c{j}")
            lines += [f"if c{j} != 0:", f"    raw = raw + {product}"]
        return [*lines, f"raw = {r('raw')}", *divide]
    if formula.order == "task":
        lines = [f"w0 = {r('s0')}", "raw = float32(0)"]
        for j in moved:
            inner = r(f"{r(f's{j}')} - w0")
            scaled = r(f"{inner} * c{j}")
            lines += [f"if c{j} != 0:", f"    raw = raw + {scaled}"]
        return [*lines, f"raw = {r('raw')}", f"raw = {r('w0 + raw')}"]
    return [
        "gap = s1 - s0",
        "raw = fma32(c1, gap, s0) if c1 < float32(0.5) else fma32(c1 - float32(1), gap, s1)",
    ]


_HELPER = "@njit(nogil=True)"
#: Lattice.spacing and Lattice.round in float32, and rounding to float16 with its overflow. Subnormal numbers are rare
#: and their code is long: it stands in functions of its own, so that the loop stays small. What to inline is left to
#: LLVM: numba's own inlining gives no faster code and takes twice as long.
_ROUNDING = (
    _HELPER,
    "def exponent(x):",
    "    return int32((float_to_bits(x) & uint32(0x7F800000)) >> uint32(23))",
    "",
    _HELPER,
    "def small_spacing(x, mantissa, smallest):",
    f"    e = exponent(x) if exponent(x) > 0 else exponent(x * float32({2.0**64!r})) - int32(64)",
    "    e = max(e - mantissa + int32(22), int32(0))",
    "    u = bits_to_float(uint32(1) << uint32(e)) if e < 23 else bits_to_float(uint32(e - 22) << uint32(23))",
    "    return max(u, smallest)",
    "",
    _HELPER,
    "def spacing(x, mantissa, smallest):",
    "    e = exponent(x) - mantissa",
    "    if e >= 1:",
    "        return max(bits_to_float(uint32(e) << uint32(23)), smallest)",
    "    return small_spacing(x, mantissa, smallest)",
    "",
    _HELPER,
    "def small_round(x, mantissa, smallest):",
    "    unit = float64(spacing(x, mantissa, smallest))",
    "    return float32(np.rint(float64(x) / unit) * unit)",
    "",
    _HELPER,
    "def lattice_round(x, mantissa, smallest):",
    "    e = exponent(x) - mantissa",
    "    if e >= 1 and bits_to_float(uint32(e) << uint32(23)) >= smallest:",
    "        return round_mantissa(x, 23 - mantissa)",
    "    return small_round(x, mantissa, smallest)",
    "",
    _HELPER,
    "def half_round(x):",
    "    y = round_mantissa(x, 13)",
    f"    if abs(x) < float32({2.0**-14!r}):",
    f"        y = float32(np.rint(x * float32({2.0**24!r})) * float32({2.0**-24!r}))",
    "    return y if abs(y) <= float32(65504) else x * float32(np.inf)",
    "",
)


def _source(dtypes: tuple[str, ...], formula: Formula) -> str:
    sources = len(dtypes) - 1
    s = [f"s{j}" for j in range(sources)]
    models = ", ".join(f"m{j}" for j in range(len(dtypes)))
    nearest = ", ".join([*(f"abs(float64(predicted) - float64(s{j}))" for j in range(sources)), "np.inf"])
    wide = formula.working == "float64"
    lines = [
        *_ROUNDING,
        '@njit(nogil=True, cache=True, error_model="numpy")',
        f"def replay({models}, coefficients, divisors, shares, mantissa, smallest, edges, counts, energy, steps):",
        "    vectors = coefficients.shape[0]",
        "    for i in range(m0.shape[0]):",
        f"        target = {decode_expression(dtypes[0], 'm0[i]')}",
        *[f"        s{j} = {decode_expression(dtypes[j + 1], f'm{j + 1}[i]')}" for j in range(sources)],
        f"        if not ({finite_expression(['target', *s])}):",
        "            continue",
        *[f"        r{j} = lattice_round(s{j}, mantissa, smallest)" for j in range(sources)],
        f"        largest = max(abs(target), {', '.join(f'abs(s{j})' for j in range(sources))})",
        "        unit = float64(spacing(largest, mantissa, smallest))",
        "        for v in range(vectors):",
        *[f"            c{j} = coefficients[v, {j}]" for j in range(sources)],
        "            divisor = divisors[v]",
        *[f"            {line}" for line in _prediction(formula, sources)],
        # From float64 straight to the lattice: through float32 it would be rounded twice.
        *(
            [
                "            unit64 = float64(spacing(float32(raw), mantissa, smallest))",
                "            predicted = float32(np.rint(raw / unit64) * unit64)",
            ]
            if wide
            else ["            predicted = lattice_round(raw, mantissa, smallest)"]
        ),
        "            counts[v, 0] += 1",
        f"            if not ({finite_expression(['predicted'])}):",
        "                continue",
        "            difference = float64(target) - float64(predicted)",
        "            residual = float64(target) - float64(raw)",
        "            counts[v, 1] += difference == 0",
        "            counts[v, 2] += abs(difference) <= 2 * unit",
        "            counts[v, 3] += abs(residual) <= shares[v] * unit",
        "            energy[v] += residual * residual",
        f"            if {' and '.join(f'predicted != r{j}' for j in range(sources))}:",
        "                counts[v, 4] += 1",
        "                u = float64(spacing(predicted, mantissa, smallest))",
        f"                away = min({nearest}) / u",
        "                k = 0",
        "                while k + 1 < edges.shape[0] and away >= edges[k + 1]:",
        "                    k += 1",
        "                step = 0",
        "                if difference != 0:",
        f"                    size = min(abs(difference) / u + 0.5, float64({MAXIMUM_STEPS}))",
        "                    step = max(1, int64(np.floor(size)))",
        "                    if difference < 0:",
        "                        step = -step",
        f"                steps[v, k, step + {MAXIMUM_STEPS}] += 1",
    ]
    return "\n".join(lines) + "\n"


def replay(
    models: Sequence[View],
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
    lattice: Lattice,
) -> ReplayResult:
    """Compare the suspect with predictions from the other models for V coefficient vectors; see `replay_reference`."""
    check_replay(models, coefficients, divisors, formula)
    function = compiled("replay", _source(tuple(m.dtype for m in models), formula))
    result = ReplayResult.empty(len(coefficients))
    counts = np.zeros((len(coefficients), 5), np.int64)
    kind = np.dtype(np.float64 if formula.working == "float64" else np.float32)
    vectors: NDArray[np.floating] = coefficients.astype(kind)
    scale: NDArray[np.floating] = divisors.astype(kind)
    if formula.working in {"bfloat16", "float16"}:
        lower = Lattice.of_dtype("BF16" if formula.working == "bfloat16" else "F16")
        vectors, scale = lower.round(vectors), lower.round(scale)
    shares = 0.5 + 0.5 * np.abs(coefficients / divisors[:, None]).sum(axis=1) + 1e-3
    function(
        *(m.bits for m in models), np.ascontiguousarray(vectors), scale, shares, np.int32(lattice.mantissa),
        np.float32(2.0**lattice.quantum), np.asarray(STRATA), counts, result.energy, result.steps,
    )  # fmt: skip
    for column, name in enumerate(("total", "exact", "close", "inside_box", "novel")):
        getattr(result, name)[:] = counts[:, column]
    return result
