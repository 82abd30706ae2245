"""Text of the processor's replay kernel: predict, round, compare and count, for one formula and the models' dtypes.

A chunk is replayed by the first of three loops that can:

    plain     every number of the chunk is finite and its rounding a matter of mantissa bits alone: nothing is tested an
              element, the compiler vectorises it, and a chunk that turns out not to be plain is done again by
    general   branchless as well, with a code for every element that is counted afterwards, and
    slow      one element with all the care that subnormal numbers and coarse lattices need.
"""

from __future__ import annotations

from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.generate import decode_expression, finite_expression
from reconstruct.kernels.replay_plain import CAREFUL, NOTHING, SUMS, WIDTH, code_source, plain_source
from reconstruct.kernels.replay_prediction import prediction_source
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA

__all__ = ["REPLAY_CHUNK", "replay_source"]

#: Elements per chunk: sources, predictions and what is kept of them stay in the first-level cache.
REPLAY_CHUNK = 2048
_PART = 256  # of a chunk: those in which every element is reproduced need no second look
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


def replay_source(dtypes: tuple[str, ...], formula: Formula, *, mantissa: int | None) -> str:
    """`mantissa`: that of the suspect's lattice if all sources lie on it: then the fastest loop, in which it is a
    constant, is tried first.
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
    prediction = prediction_source(formula, sources)
    wide = formula.working == "float64"
    # Differences of numbers with few mantissa bits are exact in float32; others need float64 to be counted right.
    f = "float32" if all(FLOAT_FORMATS[d].mantissa <= 10 for d in dtypes) and not wide else "float64"
    plain = mantissa is not None and not wide
    parts = ", ".join(f"v{j}[begin:end]" for j in range(len(dtypes)))
    try_plain = [
        "            for k in range(found.shape[0]):",
        "                found[k] = 0",
        f"            unequal = plain({views}, {weights}, divisor, low, predictions, aways, residuals, found)",
        "            state = unequal",
        "            if unequal > 0:",
        f"                for part in range({REPLAY_CHUNK // _PART}):",
        f"                    begin, end = min(n, part * {_PART}), min(n, part * {_PART} + {_PART})",
        "                    differs[part] = some_differ(v0[begin:end], predictions[begin:end])",
        "                    if differs[part]:",
        f"                        good = differing({parts}, share, predictions[begin:end],",
        "                                         aways[begin:end], residuals[begin:end], codes[begin:end], found)",
        "                        state = min(state, good)",
        "            if state >= 0:",
        "                counts[v, 0] += n",
        "                for k in range(4):",
        "                    counts[v, k + 1] += found[k]",
        "                energy[v] += sum_of_squares(residuals[:n])",
        f"                for k in range({len(STRATA)}):",
        f"                    beyond = found[k + 5] if k + 1 < {len(STRATA)} else 0",
        f"                    steps[v, k, {MAXIMUM_STEPS}] += found[k + 4] - beyond",
        "                if unequal > 0:",
        f"                    for part in range({REPLAY_CHUNK // _PART}):",
        "                        if differs[part]:",
        f"                            tally(codes[part * {_PART}:min(n, part * {_PART} + {_PART})], histogram[v])",
        "                continue",
    ]
    lines = [
        *_ROUNDING,
        *SUMS,
        *_slow_source(models, weights, decoded, prediction, s, wide=wide),
        *(
            []
            if mantissa is None or wide
            else plain_source(views, weights, decoded, formula, s, f, mantissa)
        ),
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
        f"def replay({models}, coefficients, divisors, shares, mantissa, smallest, low, edges, counts, energy, steps):",
        f"    codes = np.empty({REPLAY_CHUNK}, np.int32)",
        f"    residuals = np.empty({REPLAY_CHUNK}, np.{f})",
        f"    predictions = np.empty({REPLAY_CHUNK}, np.float32)",
        f"    aways = np.empty({REPLAY_CHUNK}, np.{f})",
        f"    differs = np.zeros({REPLAY_CHUNK // _PART}, np.bool_)",
        f"    found = np.zeros({4 + len(STRATA)}, np.int64)",
        f"    histogram = np.zeros((coefficients.shape[0], 4, {CAREFUL + 1}), np.int64)",
        f"    for start in range(0, m0.shape[0], {REPLAY_CHUNK}):",
        f"        n = min({REPLAY_CHUNK}, m0.shape[0] - start)",
        *[f"        v{j} = m{j}[start:start + n]" for j in range(len(dtypes))],
        "        for v in range(coefficients.shape[0]):",
        *[f"            c{j} = coefficients[v, {j}]" for j in range(sources)],
        "            divisor, share = divisors[v], shares[v]",
        *(try_plain if plain else []),
        f"            general({views}, {weights}, divisor, share, mantissa, smallest, low,",
        "                    codes, residuals, counts[v])",
        "            energy[v] += sum_of_squares(residuals[:n])",
        "            if tally(codes[:n], histogram[v]):",
        "                for i in range(n):",
        f"                    if codes[i] == {CAREFUL}:",
        f"                        slow({views}, i, {weights}, divisor, share, mantissa, smallest, edges,",
        "                             counts[v], energy, v, steps[v])",
        "    for v in range(coefficients.shape[0]):",
        "        for part in range(4):",
        f"            for k in range({len(STRATA)}):",
        f"                for step in range({WIDTH}):",
        f"                    steps[v, k, step] += histogram[v, part, k * {WIDTH} + step]",
    ]  # fmt: skip
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
