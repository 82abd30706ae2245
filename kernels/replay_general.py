"""Text of the replay kernel that takes any numbers: branchless as well, with a code for every element that is counted
afterwards; what is subnormal or lies below a coarse lattice's smallest step is counted by `replay_careful`.
"""

from __future__ import annotations

from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.generate import finite_expression
from reconstruct.kernels.replay_careful import CAREFUL, NOTHING
from reconstruct.kernels.replay_text import (
    REPLAY_CHUNK,
    chunk_views,
    code_source,
    names_of,
    prediction_source,
    sum_of_histograms,
)

__all__ = ["general_source"]


def general_source(dtypes: tuple[str, ...], formula: Formula) -> str:
    """The kernel for models of these dtypes, suspect first."""
    names = names_of(dtypes, formula)
    s, f, decoded = names.sources, names.precision, names.decoded
    models, views, weights, sources = names.models, names.views, names.weights, len(names.sources)
    prediction = prediction_source(formula, sources)
    wide = formula.working == "float64"
    lines = [
        "@njit(nogil=True)",
        f"def general({views}, {weights}, divisor, share, mantissa, smallest, low, codes, residuals, counts):",
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
        f"        er = {_exponent('narrow')}",
        "        usable = finite & (er >= low) & (er < 255)",
        *[f"        usable = usable & (({_exponent(f's{j}')} >= low) | (s{j} == float32(0)))" for j in range(sources)],
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
        f"        ep = {_exponent('predicted')}",
        "        usable = usable & (ep < 255)",
        f"        largest = max(abs(target), {', '.join(f'abs({x})' for x in s)})",
        f"        place = max(int32({_exponent('largest')} - mantissa), int32(1))",
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
        *code_source(f),
        f"        codes[i] = code if novel else (int32({NOTHING}) if usable | (not finite) else int32({CAREFUL}))",
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
        f"def replay({models}, coefficients, divisors, shares, mantissa, smallest, low, counts, energy, steps):",
        f"    around = np.empty({sources}, np.float32)",
        f"    codes = np.empty({REPLAY_CHUNK}, np.int32)",
        f"    residuals = np.empty({REPLAY_CHUNK}, np.{f})",
        f"    histogram = np.zeros((coefficients.shape[0], 4, {CAREFUL + 1}), np.int64)",
        *chunk_views(len(dtypes)),
        "        for v in range(coefficients.shape[0]):",
        *[f"            c{j} = coefficients[v, {j}]" for j in range(sources)],
        "            divisor, share = divisors[v], shares[v]",
        f"            general({views}, {weights}, divisor, share, mantissa, smallest, low,",
        "                    codes, residuals, counts[v])",
        "            energy[v] += sum_of_squares(residuals[:n])",
        "            if tally(codes[:n], histogram[v]):",
        "                for i in range(n):",
        f"                    if codes[i] == {CAREFUL}:",
        *[f"                        {line}" for line in decoded],
        *[f"                        around[{j}] = s{j}" for j in range(sources)],
        *[f"                        {line}" for line in prediction],
        "                        residual = count_carefully(",
        "                            target, around, float64(raw), share, mantissa, smallest, counts[v], steps[v]",
        "                        )",
        "                        energy[v] += residual * residual",
        *sum_of_histograms(),
    ]
    return "\n".join(lines) + "\n"


def _exponent(value: str) -> str:
    """An expression for the biased exponent of a float32, int32."""
    return f"int32(uint32(uint32(float_to_bits({value}) & uint32(0x7F800000)) >> uint32(23)))"
