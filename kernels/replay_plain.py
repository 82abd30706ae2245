"""Text of the replay kernel for ordinary numbers on the suspect's lattice: no test an element, vectorised throughout.

A chunk is taken as if all its numbers were finite and their rounding a matter of mantissa bits alone. One that proves
otherwise adds nothing and is marked in `refused`: `replay_general` takes it. One element costs about 65 instructions
for bfloat16 and three sources, and 8 or more elements run at once. What that loop leaves out is done by `differing`,
for parts of a chunk in which some element is not reproduced.
"""

from __future__ import annotations

from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.replay_careful import CAREFUL, NOTHING
from reconstruct.kernels.replay_text import (
    REPLAY_CHUNK,
    Names,
    chunk_views,
    code_source,
    names_of,
    prediction_source,
    sum_of_histograms,
)
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA

__all__ = ["plain_source"]

_PART = 256  # elements of a chunk that need no second look if every one of them is reproduced


def plain_source(dtypes: tuple[str, ...], formula: Formula, mantissa: int) -> str:
    """The kernel for models of these dtypes, suspect first, on a lattice of so many mantissa bits (1 to 23)."""
    names = names_of(dtypes, formula)
    parts = ", ".join(f"v{j}[begin:end]" for j in range(len(dtypes)))
    count = REPLAY_CHUNK // _PART
    lines = [
        *_loops(names, formula, mantissa),
        '@njit(nogil=True, cache=True, error_model="numpy")',
        f"def replay({names.models}, coefficients, divisors, shares, low, counts, energy, steps, refused):",
        f"    codes = np.empty({REPLAY_CHUNK}, np.int32)",
        f"    residuals = np.empty({REPLAY_CHUNK}, np.{names.precision})",
        f"    predictions = np.empty({REPLAY_CHUNK}, np.float32)",
        f"    aways = np.empty({REPLAY_CHUNK}, np.{names.precision})",
        f"    differs = np.zeros({count}, np.bool_)",
        f"    found = np.zeros({4 + len(STRATA)}, np.int64)",
        f"    histogram = np.zeros((coefficients.shape[0], 4, {CAREFUL + 1}), np.int64)",
        *chunk_views(len(dtypes)),
        "        for v in range(coefficients.shape[0]):",
        *[f"            c{j} = coefficients[v, {j}]" for j in range(len(names.sources))],
        "            divisor, share = divisors[v], shares[v]",
        "            for k in range(found.shape[0]):",
        "                found[k] = 0",
        f"            unequal = plain({names.views}, {names.weights}, divisor, low,",
        "                            predictions, aways, residuals, found)",
        "            state, size = unequal, n",
        "            if unequal > 0:",
        # Where few elements differ they are looked for in small parts; where many do, the chunk is one part.
        f"                size = {_PART} if 8 * unequal < n else n",
        "                for part in range((n + size - 1) // size):",
        "                    begin, end = part * size, min(n, part * size + size)",
        "                    differs[part] = some_differ(v0[begin:end], predictions[begin:end])",
        "                    if differs[part]:",
        f"                        good = differing({parts}, share, predictions[begin:end],",
        "                                         aways[begin:end], residuals[begin:end], codes[begin:end], found)",
        "                        state = min(state, good)",
        "            if state < 0:",
        f"                refused[v, start // {REPLAY_CHUNK}] = True",
        "                continue",
        "            counts[v, 0] += n",
        "            for k in range(4):",
        "                counts[v, k + 1] += found[k]",
        "            energy[v] += sum_of_squares(residuals[:n])",
        f"            for k in range({len(STRATA)}):",
        f"                beyond = found[k + 5] if k + 1 < {len(STRATA)} else 0",
        f"                steps[v, k, {MAXIMUM_STEPS}] += found[k + 4] - beyond",
        "            if unequal > 0:",
        "                for part in range((n + size - 1) // size):",
        "                    if differs[part]:",
        "                        tally(codes[part * size:min(n, part * size + size)], histogram[v])",
        *sum_of_histograms(),
    ]
    return "\n".join(lines) + "\n"


def _loops(names: Names, formula: Formula, mantissa: int) -> list[str]:
    """The loop for chunks whose numbers are all ordinary, and the one that tells how the unequal ones differ.

    Both add to `found`: exact, close, inside, novel, then reproduced novel elements from each stratum upwards. `plain`
    counts every element it reproduces as close and inside (it is both) and returns how many it does not; `differing`
    looks at those. Each returns -1 if the chunk is not plain: `raw` tells of every source that is not finite (0 times
    infinity is NaN), the difference tells of the suspect. Distances from the nearest source, `aways`, are kept in
    spacings of the prediction.
    """
    s, f, views, weights, decoded = names.sources, names.precision, names.views, names.weights, names.decoded
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
