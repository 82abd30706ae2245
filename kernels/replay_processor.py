"""Predict, round, compare and count in one pass, for many coefficient vectors; generated per formula."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.formulas import WORKING_FORMATS, Formula
from reconstruct.kernels.generate import CHUNK, compiled, decode_expression, finite_expression
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA, ReplayResult, View, check_replay

__all__ = ["replay"]

_WIDTH = 2 * MAXIMUM_STEPS + 1


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
    "    return int32(uint32(uint32(float_to_bits(x) & uint32(0x7F800000)) >> uint32(23)))",
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
    """Two loops a chunk and coefficient vector: a branchless one that the compiler vectorises, which leaves a code for
    every element, and a plain one that counts the codes and takes the rare elements (subnormal numbers, or below a
    coarse lattice's smallest step) through exact but slow functions.
    """
    sources = len(dtypes) - 1
    s = [f"s{j}" for j in range(sources)]
    models = ", ".join(f"m{j}" for j in range(len(dtypes)))
    views = ", ".join(f"v{j}" for j in range(len(dtypes)))
    weights = ", ".join(f"c{j}" for j in range(sources))
    decoded = [
        f"target = {decode_expression(dtypes[0], 'v0[i]')}",
        *(f"s{j} = {decode_expression(dtypes[j + 1], f'v{j + 1}[i]')}" for j in range(sources)),
    ]
    prediction = _prediction(formula, sources)
    wide = formula.working == "float64"
    # Differences of numbers with few mantissa bits are exact in float32; others need float64 to be counted right.
    f = "float32" if all(FLOAT_FORMATS[d].mantissa <= 10 for d in dtypes) and not wide else "float64"
    lines = [
        *_ROUNDING,
        '@njit(nogil=True, fastmath={"reassoc", "contract"})',
        "def sum_of_squares(x):",
        "    total = float64(0)",
        "    for i in range(x.shape[0]):",
        "        total += float64(x[i]) * float64(x[i])",
        "    return total",
        "",
        *_slow_source(models, weights, decoded, prediction, s, wide=wide),
        "@njit(nogil=True)",
        f"def fast({views}, {weights}, divisor, share, mantissa, smallest, low, codes, residuals, counts):",
        "    drop = uint32(23 - mantissa)",
        "    one = uint32(1)",
        # numba computes in 64 bits unless told otherwise, which halves the width of every vector instruction.
        "    last = uint32(one << drop)",
        "    half = uint32((last >> one) - (one if mantissa < 23 else uint32(0)))",
        "    mask = uint32(~(last - one))",
        "    last = last if mantissa < 23 else uint32(0)",
        "    exact = int32(0)",
        "    close = int32(0)",
        "    inside = int32(0)",
        "    novels = int32(0)",
        "    total = int32(0)",
        f"    share = {f}(share)",
        "    for i in range(v0.shape[0]):",
        *[f"        {line}" for line in decoded],
        f"        finite = {finite_expression(['target', *s])}",
        *[f"        {line}" for line in prediction],
        "        narrow = float32(raw)",
        "        er = exponent(narrow)",
        "        usable = finite & (er >= low) & (er < 255)",
        *[f"        usable = usable & ((exponent(s{j}) >= low) | (s{j} == float32(0)))" for j in range(sources)],
        *(
            [
                "        unit64 = float64(bits_to_float(uint32(max(er - mantissa, 1)) << uint32(23)))",
                "        predicted = float32(np.rint(raw / unit64) * unit64)",
            ]
            if wide
            else [
                "        bits = float_to_bits(narrow)",
                "        carry = one if uint32(bits & last) != uint32(0) else uint32(0)",
                "        predicted = bits_to_float(uint32(uint32(bits + uint32(half + carry)) & mask))",
            ]
        ),
        "        ep = exponent(predicted)",
        "        usable = usable & (ep < 255)",
        f"        largest = max(abs(target), {', '.join(f'abs({x})' for x in s)})",
        "        place = max(int32(exponent(largest) - mantissa), int32(1))",
        f"        unit = {f}(bits_to_float(uint32(uint32(place) << uint32(23))))",
        "        place = max(int32(int32(254) - int32(ep - mantissa)), int32(1))",
        "        inverse = bits_to_float(uint32(uint32(place) << uint32(23)))",
        f"        difference = {f}(target) - {f}(predicted)",
        f"        residual = {f}(target) - {f}(raw)",
        "        novel = usable",
        *[
            f"        b{j} = float_to_bits(s{j})\n        novel = novel & (predicted != bits_to_float(uint32(uint32("
            f"b{j} + uint32(half + (one if uint32(b{j} & last) != uint32(0) else uint32(0)))) & mask)))"
            for j in range(sources)
        ],
        f"        away = abs({f}(predicted) - {f}(s0))",
        *[f"        away = min(away, abs({f}(predicted) - {f}(s{j})))" for j in range(1, sources)],
        f"        away = away * {f}(inverse)",
        "        k = int32(0)",
        *[f"        k = int32(k + int32(away >= {f}({edge!r})))" for edge in STRATA[1:]],
        f"        size = int32(min(abs(difference) * {f}(inverse) + {f}(0.5), {f}({MAXIMUM_STEPS})))",
        f"        size = max(size, int32(1)) if difference != {f}(0) else int32(0)",
        f"        step = int32(-size) if difference < {f}(0) else size",
        f"        code = int32(int32(k * int32({_WIDTH})) + int32(step + int32({MAXIMUM_STEPS})))",
        "        codes[i] = code if novel else (int32(-1) if usable | (not finite) else int32(-2))",
        "        residuals[i] = float32(residual) if usable else float32(0)",
        "        total = int32(total + int32(usable))",
        f"        exact = int32(exact + int32(usable & (difference == {f}(0))))",
        f"        close = int32(close + int32(usable & (abs(difference) <= {f}(2) * unit)))",
        "        inside = int32(inside + int32(usable & (abs(residual) <= share * unit)))",
        "        novels = int32(novels + int32(novel))",
        "    counts[0] += total",
        "    counts[1] += exact",
        "    counts[2] += close",
        "    counts[3] += inside",
        "    counts[4] += novels",
        "",
        '@njit(nogil=True, cache=True, error_model="numpy")',
        f"def replay({models}, coefficients, divisors, shares, mantissa, smallest, low, edges, counts, energy, steps):",
        f"    codes = np.empty({CHUNK}, np.int32)",
        f"    residuals = np.empty({CHUNK}, np.float32)",
        f"    histogram = np.zeros((4, {len(STRATA) * _WIDTH}), np.int64)",
        "    for v in range(coefficients.shape[0]):",
        *[f"        c{j} = coefficients[v, {j}]" for j in range(sources)],
        "        divisor = divisors[v]",
        "        share = shares[v]",
        "        histogram[:] = 0",
        f"        for start in range(0, m0.shape[0], {CHUNK}):",
        f"            n = min({CHUNK}, m0.shape[0] - start)",
        *[f"            v{j} = m{j}[start:start + n]" for j in range(len(dtypes))],
        f"            fast({views}, {weights}, divisor, share, mantissa, smallest, low, codes, residuals, counts[v])",
        "            energy[v] += sum_of_squares(residuals[:n])",
        "            for i in range(n):",
        "                code = codes[i]",
        "                if code >= 0:",
        "                    histogram[i & 3, code] += 1  # side by side: one hot bin would wait for itself",
        "                elif code == -2:",
        f"                    slow({views}, i, {weights}, divisor, share, mantissa, smallest, edges,",
        "                         counts[v], energy, v, steps[v])",
        "        for part in range(4):",
        f"            for k in range({len(STRATA)}):",
        f"                for step in range({_WIDTH}):",
        f"                    steps[v, k, step] += histogram[part, k * {_WIDTH} + step]",
    ]
    return "\n".join(lines) + "\n"


def _slow_source(
    models: str, weights: str, decoded: list[str], prediction: list[str], s: list[str], *, wide: bool
) -> list[str]:
    """One element with all the care that subnormal numbers and coarse lattices need."""
    rest = "energy, v, steps):"
    nearest = ", ".join([*(f"abs(float64(predicted) - float64({x}))" for x in s), "np.inf"])
    return [
        "@njit(nogil=True)",
        f"def slow({models.replace('m', 'v')}, i, {weights}, divisor, share, mantissa, smallest, edges, counts, {rest}",
        *[f"    {line}" for line in decoded],
        f"    largest = max(abs(target), {', '.join(f'abs({x})' for x in s)})",
        "    unit = float64(spacing(largest, mantissa, smallest))",
        *[f"    {line}" for line in prediction],
        # From float64 straight to the lattice: through float32 it would be rounded twice.
        *(
            [
                "    unit64 = float64(spacing(float32(raw), mantissa, smallest))",
                "    predicted = float32(np.rint(raw / unit64) * unit64)",
            ]
            if wide
            else ["    predicted = lattice_round(raw, mantissa, smallest)"]
        ),
        "    counts[0] += 1",
        f"    if not ({finite_expression(['predicted'])}):",
        "        return",
        "    difference = float64(target) - float64(predicted)",
        "    residual = float64(target) - float64(raw)",
        "    counts[1] += difference == 0",
        "    counts[2] += abs(difference) <= 2 * unit",
        "    counts[3] += abs(residual) <= share * unit",
        "    energy[v] += residual * residual",
        f"    if {' and '.join(f'predicted != lattice_round({x}, mantissa, smallest)' for x in s)}:",
        "        counts[4] += 1",
        "        u = float64(spacing(predicted, mantissa, smallest))",
        f"        away = min({nearest}) / u",
        "        k = 0",
        "        while k + 1 < edges.shape[0] and away >= edges[k + 1]:",
        "            k += 1",
        "        step = 0",
        "        if difference != 0:",
        f"            step = max(1, int64(np.floor(min(abs(difference) / u + 0.5, float64({MAXIMUM_STEPS})))))",
        "            if difference < 0:",
        "                step = -step",
        f"        steps[k, step + {MAXIMUM_STEPS}] += 1",
        "",
    ]


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
    # Exponents from which rounding is a matter of mantissa bits alone; with no stored bit left ties need more care.
    low = max(lattice.mantissa + 1, lattice.quantum + 127 + lattice.mantissa) if lattice.mantissa else 256
    shares = 0.5 + 0.5 * np.abs(coefficients / divisors[:, None]).sum(axis=1) + 1e-3
    function(
        *(m.bits for m in models), np.ascontiguousarray(vectors), scale, shares, np.int32(lattice.mantissa),
        np.float32(2.0**lattice.quantum), np.int32(low), np.asarray(STRATA), counts, result.energy, result.steps,
    )  # fmt: skip
    for column, name in enumerate(("total", "exact", "close", "inside_box", "novel")):
        getattr(result, name)[:] = counts[:, column]
    return result
