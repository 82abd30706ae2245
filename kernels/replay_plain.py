"""Text of the replay loop for chunks whose numbers are all ordinary: no test an element, vectorised throughout.

One element costs about 65 instructions for bfloat16 and three sources. What it leaves out is done by `differing`, for
chunks in which some element is not reproduced, and, for chunks that are not plain, by the loops of `replay_source`.
"""

from __future__ import annotations

from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.replay_prediction import prediction_source
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA

__all__ = ["CAREFUL", "NOTHING", "SUMS", "WIDTH", "code_source", "plain_source"]

WIDTH = 2 * MAXIMUM_STEPS + 1
#: Codes of elements: stratum and steps as one number, or not novel (nothing more to count), or in need of care.
NOTHING = len(STRATA) * WIDTH
CAREFUL = NOTHING + 1


SUMS = (
    '@njit(nogil=True, fastmath={"reassoc", "contract"})',
    "def sum_of_squares(x):",
    "    quick = float32(0)",
    "    for i in range(x.shape[0]):",
    "        quick += x[i] * x[i]",
    "    if np.isfinite(quick):",
    "        return float64(quick)",
    "    total = float64(0)",
    "    for i in range(x.shape[0]):",
    "        total += float64(x[i]) * float64(x[i])",
    "    return total",
    "",
    # Four histograms side by side: one hot bin would wait for itself. No branches: any code has a bin.
    "@njit(nogil=True)",
    "def tally(codes, histogram):",
    "    whole = codes.shape[0] // 4 * 4",
    "    for i in range(0, whole, 4):",
    "        histogram[0, uint32(codes[i])] += 1",
    "        histogram[1, uint32(codes[i + 1])] += 1",
    "        histogram[2, uint32(codes[i + 2])] += 1",
    "        histogram[3, uint32(codes[i + 3])] += 1",
    "    for i in range(whole, codes.shape[0]):",
    "        histogram[0, uint32(codes[i])] += 1",
    f"    careful = histogram[0, {CAREFUL}]",
    "    for part in range(1, 4):",
    f"        careful += histogram[part, {CAREFUL}]",
    f"        histogram[part, {CAREFUL}] = 0",
    f"    histogram[0, {CAREFUL}] = 0",
    "    return careful > 0",
    "",
)


def plain_source(
    views: str, weights: str, decoded: list[str], formula: Formula, s: list[str], f: str, mantissa: int
) -> list[str]:
    """The loop for chunks whose numbers are all ordinary, and the one that tells how the unequal ones differ.

    Both add to `found`: exact, close, inside, novel, then reproduced novel elements from each stratum upwards. `plain`
    counts every element it reproduces as close and inside (it is both) and returns how many it does not; `differing`
    looks at those. Each returns -1 if the chunk is not plain: `raw` tells of every source that is not finite (0 times
    infinity is NaN), the difference tells of the suspect. Distances from the nearest source, `aways`, are kept in
    spacings of the prediction.
    """
    drop = 23 - mantissa
    mask = 0xFFFFFFFF ^ ((1 << drop) - 1)
    rounding = [
        f"odd = uint32(uint32(bits >> uint32({drop})) & uint32(1))",
        f"bits = uint32(uint32(bits + uint32(uint32({(1 << drop >> 1) - 1}) + odd)) & uint32({mask}))",
    ]
    inverse = [
        f"place = uint32(uint32({254 + mantissa << 23}) - uint32(float_to_bits(predicted) & uint32(0x7F800000)))",
        "inverse = bits_to_float(place)",
    ]
    magnitudes = [f"uint32(float_to_bits({x}) & uint32(0x7FFFFFFF))" for x in ("target", *s)]
    idle = magnitudes[3:] if formula.order == "lerp" else []  # sources that do not enter `raw`
    beyond = [f"beyond{k}" for k in range(len(STRATA))]
    return [
        "@njit(nogil=True)",
        f"def plain({views}, {weights}, divisor, low, predictions, aways, residuals, found):",
        "    lowest, highest = uint32(0x7FFFFFFF), uint32(0)",
        *[f"    {name} = int32(0)" for name in ("exact", "novels", *beyond)],
        "    for i in range(v0.shape[0]):",
        *[f"        {line}" for line in [*decoded, *prediction_source(formula, len(s), guarded=False)]],
        "        bits = float_to_bits(raw)",
        "        size = uint32(bits & uint32(0x7FFFFFFF))",
        "        lowest = min(lowest, size)",
        "        highest = max(highest, size)",
        *[f"        highest = max(highest, {x})" for x in idle],
        *[f"        {line}" for line in (rounding if drop else [])],
        "        predicted = bits_to_float(bits)",
        *[f"        {line}" for line in inverse],
        f"        residual = {f}(target) - {f}(raw)",
        f"        away = abs({f}(predicted) - {f}(s0))",
        *[f"        away = min(away, abs({f}(predicted) - {f}({x})))" for x in s[1:]],
        f"        away = away * {f}(inverse)",
        "        predictions[i] = predicted",
        "        aways[i] = float32(away)",
        "        residuals[i] = float32(residual)",
        "        exact = int32(exact + int32(target == predicted))",
        f"        novels = int32(novels + int32(away > {f}(0)))",
        f"        away = away if target == predicted else {f}(0)",
        f"        beyond0 = int32(beyond0 + int32(away > {f}(0)))",
        *[f"        {x} = int32({x} + int32(away >= {f}({STRATA[k]!r})))" for k, x in enumerate(beyond) if k],
        # Coefficients may add up to 128, so the largest source is an ordinary number too; 2^127 leaves room to round.
        "    if highest >= uint32(0x7F000000) or lowest < uint32(uint32(low + 8) << 23):",
        "        return -1",
        *[f"    found[{k}] += {name}" for k, name in enumerate(["exact", "exact", "exact", "novels", *beyond])],
        "    return v0.shape[0] - exact",
        "",
        "@njit(nogil=True)",
        "def some_differ(v0, predictions):",
        "    count = int32(0)",
        "    for i in range(v0.shape[0]):",
        f"        {decoded[0]}",
        "        count = int32(count + int32(target != predictions[i]))",
        "    return count > 0",
        "",
        "@njit(nogil=True)",
        f"def differing({views}, share, predictions, aways, residuals, codes, found):",
        f"    share = {f}(share)",
        "    peak = uint32(0)",
        "    close = int32(0)",
        "    inside = int32(0)",
        "    for i in range(v0.shape[0]):",
        *[f"        {line}" for line in decoded],
        "        predicted = predictions[i]",
        *[f"        {line}" for line in inverse],
        f"        largest = {magnitudes[0]}",
        *[f"        largest = max(largest, {x})" for x in magnitudes[1:]],
        "        peak = max(peak, largest)",
        f"        unit = {f}(bits_to_float(uint32(uint32(largest & uint32(0x7F800000)) - uint32({mantissa << 23}))))",
        f"        difference = {f}(target) - {f}(predicted)",
        f"        unequal = difference != {f}(0)",
        f"        close = int32(close + int32(unequal & (abs(difference) <= {f}(2) * unit)))",
        f"        inside = int32(inside + int32(unequal & (abs({f}(residuals[i])) <= share * unit)))",
        "        away = aways[i]",
        *code_source(f),
        f"        codes[i] = code if unequal & (away > float32(0)) else int32({NOTHING})",
        "    found[1] += close",
        "    found[2] += inside",
        "    return -1 if peak >= uint32(0x7F800000) else 0",
        "",
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
