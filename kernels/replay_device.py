"""The arithmetic of `replay_triton`: formulas, rounding to a working format and to a lattice, the comparison of one
tile with one prediction, in float32 where that is exact ("narrow") and in float64 anywhere ("wide"), and its counts.
"""

# Triton compiles a subset of Python: no unpacking, and one return a function where branches are chosen by constants.
# ruff: noqa: RUF005
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disable-error-code="assignment,misc"

from __future__ import annotations

import triton
import triton.language as tl

from reconstruct.kernels.device_numbers import bits_of, float_of
from reconstruct.kernels.results import MAXIMUM_STEPS

__all__ = [
    "BINS",
    "CARE",
    "COUNTS",
    "STORED",
    "add_steps",
    "any_bits",
    "compare_narrow",
    "compare_wide",
    "finish",
    "hot_strata",
    "needs_care",
    "numbers",
    "predict",
    "prepare",
    "round_narrow",
    "zeros",
]

_MIDDLE = tl.constexpr(MAXIMUM_STEPS)
_WIDTH = tl.constexpr(2 * MAXIMUM_STEPS + 1)
BINS = tl.constexpr(512)
STORED = tl.constexpr(288)  # 7 * 41 bins and one of padding
COUNTS = tl.constexpr(16)  # exact, close, inside, finite; step 0 in 7 strata
CARE = tl.constexpr(16)  # the first of the bits that say so, in a lane's flags without the three bytes of counts
_LARGE = tl.constexpr(2.0**60)
_BEYOND = tl.constexpr(2.0**128)


@triton.jit
def _to_half(x):
    """Round a float32 to float16: ties to even, subnormal numbers, overflow to infinity, NaN kept."""
    bits = bits_of(x)
    normal = float_of((bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000)
    # Between 1/2 and 1 float32's step is 2^-24, float16's smallest: the addition rounds.
    rounded = tl.where(tl.abs(x) < 6.103515625e-05, (x + 0.75) - 0.75, normal)
    return tl.where(tl.abs(x) < 65520.0, rounded, x * float("inf"))


@triton.jit
def _to_bfloat(x, WIDE: tl.constexpr):
    """Round a float32 to bfloat16, ties to even; subnormal numbers have the same exponents as float32's."""
    bits = bits_of(x)
    rounded = float_of((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000)
    if WIDE:  # a GPU's NaN has all bits set and would carry into the sign; narrow tiles have none
        rounded = tl.where(x == x, rounded, x)
    return rounded


@triton.jit
def _working(x, WORKING: tl.constexpr, WIDE: tl.constexpr):
    """Round to the working format."""
    if WORKING == "float16":
        x = _to_half(x)
    elif WORKING == "bfloat16":
        x = _to_bfloat(x, WIDE)
    return x


@triton.jit
def prepare(sources, ORDER: tl.constexpr, WORKING: tl.constexpr, WIDE: tl.constexpr):
    """What all coefficient vectors share: per source the number that its coefficient multiplies (the pivot's first)."""
    xs = ()
    for j in tl.static_range(len(sources)):
        x = sources[j].to(tl.float64) if WORKING == "float64" else sources[j]
        x = _working(x, WORKING, WIDE)
        if (ORDER == "delta" or ORDER == "task") and j > 0:
            x = _working(x - xs[0], WORKING, WIDE)
        xs = xs + (x,)
    if ORDER == "lerp":
        xs = (xs[0], xs[1] - xs[0], xs[1])
    return xs


@triton.jit
def _total(raw, xs, weights, FIRST: tl.constexpr, ORDER: tl.constexpr, WORKING: tl.constexpr, WIDE: tl.constexpr):
    """`raw` plus the weighted numbers, left to right.

    A source with coefficient 0 adds 0, which changes nothing unless its number overflowed: wide tiles, and float16
    with its small range, leave it out expressly.
    """
    for j in tl.static_range(FIRST, len(xs)):
        if ORDER == "fused":
            added = tl.fma(xs[j], weights[j], raw)
        else:
            added = raw + _working(xs[j] * weights[j], WORKING, WIDE)
        raw = tl.where(weights[j] != 0, added, raw) if WIDE or WORKING == "float16" else added
    return raw


@triton.jit
def _divide(raw, divisor, WORKING: tl.constexpr, WIDE: tl.constexpr):
    """Division as IEEE 754 rounds it, in the working format."""
    return raw / divisor if WORKING == "float64" else _working(tl.div_rn(raw, divisor), WORKING, WIDE)


@triton.jit
def predict(xs, weights, divisor, ORDER: tl.constexpr, WORKING: tl.constexpr, DIVIDE: tl.constexpr, WIDE: tl.constexpr):
    """The unrounded prediction, float32 or float64, from `prepare`'s numbers and one vector's coefficients."""
    if ORDER == "lerp":
        small = tl.abs(weights[1]) < 0.5  # from the nearer end
        weight = tl.where(small, weights[1], weights[1] - 1.0)
        raw = tl.fma(xs[1], weight.to(tl.float32), tl.where(small, xs[0], xs[2]))
    elif ORDER == "delta":
        raw = _total(xs[0], xs, weights, 1, ORDER, WORKING, WIDE)
    elif ORDER == "task":  # the sum is accumulated in float32, as in "stack"
        raw = _working(_total(tl.zeros_like(xs[0]), xs, weights, 1, ORDER, WORKING, WIDE), WORKING, WIDE)
        raw = _working(xs[0] + raw, WORKING, WIDE)
    else:
        raw = _total(tl.zeros_like(xs[0]), xs, weights, 0, ORDER, WORKING, WIDE)
        if ORDER == "stack":
            raw = _working(raw, WORKING, WIDE)
        if DIVIDE:
            raw = _divide(raw, divisor, WORKING, WIDE)
    return raw


@triton.jit
def round_narrow(x, drop, zone, magic, COARSE: tl.constexpr):
    """Nearest lattice number, 1 <= mantissa <= 22. Below `zone` steps are equal: adding 1.5 * 2^23 rounds."""
    bits = bits_of(x)
    step = (tl.full([], 1, tl.int32) << drop).to(tl.uint32)
    rounded = float_of((bits + ((step >> 1) - 1) + ((bits >> drop) & 1)) & (0xFFFFFFFF ^ (step - 1)))
    if COARSE:
        rounded = tl.where(tl.abs(x) < zone, (x + magic) - magic, rounded)
    return rounded


@triton.jit
def _spacing_bits(bits, mantissa, quantum_bits):
    """The lattice's step at a float32, a power of two, as bits (int32)."""
    return tl.maximum((bits & 0x7F800000).to(tl.int32) - (mantissa << 23), quantum_bits)


@triton.jit
def needs_care(suspect, sources, mantissa, quantum_bits, least):
    """Spacing at the largest |x| of the models, the size below which a number is tiny beside it or beside the lattice,
    and whether an element needs the wide form: NaN and infinity are the largest bit patterns, 0 - 1 wraps around.
    """
    bits = bits_of(suspect) & 0x7FFFFFFF
    largest, smallest = bits, bits - 1
    for j in tl.static_range(len(sources)):
        bits = bits_of(sources[j]) & 0x7FFFFFFF
        largest = tl.maximum(largest, bits)
        smallest = tl.minimum(smallest, bits - 1)
    unit = float_of(_spacing_bits(largest, mantissa, quantum_bits).to(tl.uint32))
    tiny = tl.maximum(unit * 9.5367431640625e-07, least)  # 2^-20
    extreme = (largest > 0x53800000) | ((largest - 1) < 0x2B800000)  # beyond 2^40, or below 2^-40 and not 0
    return unit, tiny, extreme | (smallest < bits_of(tiny) - 1)


@triton.jit
def compare_narrow(
    suspect, sources, rounded, raw, predicted, unit, tiny, low, high, mantissa, quantum_bits, OVERFLOWS: tl.constexpr
):
    """One tile against one prediction, all in float32; see `replay_triton` for why that is exact.

    Returns flags (exact, close and inside in a byte each; then 4 bits for novel elements that are not exact, 4 bits for
    elements that need the wide form), whether each element is novel, its stratum, its difference, the bits of the
    prediction's spacing and the residual.
    """
    difference = suspect - predicted
    residual = suspect - raw
    away = tl.abs(residual)
    inside = away <= low * unit
    care = ((away <= high * unit) & ~inside) | ((tl.abs(raw) < tiny) & (raw != 0))
    if OVERFLOWS:
        care = care | ~(tl.abs(raw) <= _LARGE)  # NaN as well
    nearest = tl.abs(predicted - sources[0])
    for j in tl.static_range(1, len(sources)):
        nearest = tl.minimum(nearest, tl.abs(predicted - sources[j]))
    novel = nearest != 0
    for j in tl.static_range(len(rounded)):  # none if the sources are lattice numbers themselves
        novel = novel & (predicted != rounded[j])
    exact = difference == 0
    flags = tl.where(exact, 1, 0) + tl.where(tl.abs(difference) <= 2.0 * unit, 1 << 8, 0)
    flags += tl.where(inside, 1 << 16, 0) + tl.where(novel & ~exact, 1 << 24, 0)
    flags += tl.where(care, 1 << 28, 0)
    # The spacing is a power of two: octaves between distance and spacing are a difference of exponents.
    spacing = _spacing_bits(bits_of(predicted), mantissa, quantum_bits)
    stratum = ((bits_of(nearest).to(tl.int32) - spacing) >> 23) + 1
    stratum = tl.minimum(tl.maximum(stratum, 0), 6)
    return flags, exact, novel, stratum, difference, spacing, residual


@triton.jit
def _step_wide(x, mantissa, quantum):
    """Exponent of the lattice's step at a float64, int32; also at 0 and at float32's subnormal numbers."""
    exponent = ((x.to(tl.int64, bitcast=True) >> 52) & 0x7FF).to(tl.int32) - 1023
    # A number beyond float32 keeps a step beyond float32, so that it stays beyond.
    return tl.minimum(tl.maximum(exponent - mantissa, quantum), 130)


@triton.jit
def _power(exponent):
    """2^exponent as float64."""
    return ((exponent + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)


@triton.jit
def round_wide(x, mantissa, quantum):
    """Nearest lattice number, float64: any number, any lattice. Adding 1.5 * 2^52 steps rounds."""
    magic = 1.5 * _power(_step_wide(x, mantissa, quantum) + 52)
    return (x + magic) - magic


@triton.jit
def compare_wide(suspect, sources, finite, raw, share, mantissa, quantum):
    """`compare_narrow` for any numbers: float64 throughout, as in `replay_reference`, and elements masked."""
    raw = raw.to(tl.float64)
    target = suspect.to(tl.float64)
    predicted = round_wide(raw, mantissa, quantum)
    usable = finite & (tl.abs(predicted) < _BEYOND)
    largest = tl.abs(suspect)
    for j in tl.static_range(len(sources)):
        largest = tl.maximum(largest, tl.abs(sources[j]))
    unit = _power(_step_wide(largest.to(tl.float64), mantissa, quantum))
    difference = target - predicted
    residual = tl.where(usable, target - raw, 0.0)
    exact = usable & (difference == 0)
    flags = tl.where(exact, 1, 0)
    flags += tl.where(usable & (tl.abs(difference) <= 2 * unit), 1 << 8, 0)
    flags += tl.where(usable & (tl.abs(residual) <= share * unit), 1 << 16, 0)
    flags += tl.where(finite, 1 << 24, 0)
    novel = usable
    nearest = tl.abs(predicted - sources[0].to(tl.float64))
    for j in tl.static_range(len(sources)):
        source = sources[j].to(tl.float64)
        novel = novel & (predicted != round_wide(source, mantissa, quantum))
        nearest = tl.minimum(nearest, tl.abs(predicted - source))
    inverse = _power(-_step_wide(predicted, mantissa, quantum))
    octave = (((nearest * inverse).to(tl.int64, bitcast=True) >> 52) & 0x7FF).to(tl.int32)
    stratum = tl.minimum(tl.maximum(octave - 1022, 0), 6)
    return flags, exact, novel, stratum, difference, inverse, residual


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def numbers(pointer, index, COUNT: tl.constexpr):
    """COUNT numbers from an array in memory."""
    loaded = ()
    for j in tl.static_range(COUNT):
        loaded = loaded + (tl.load(pointer + index * COUNT + j),)
    return loaded


@triton.jit
def zeros(GROUP: tl.constexpr, SIZE: tl.constexpr, DTYPE: tl.constexpr):
    """One accumulator a vector."""
    sums = ()
    for _ in tl.static_range(GROUP):
        sums = sums + (tl.zeros([SIZE], DTYPE),)
    return sums


@triton.jit
def any_bits(bits):
    """Which bits are set in any lane: a scalar."""
    return tl.reduce(bits, 0, _either)


@triton.jit
def add_steps(histogram, rest, stratum, size, negative):
    """The elements of a tile that differ from the prediction. `size`: distance in spacings plus a half."""
    size = tl.maximum(tl.minimum(size, _MIDDLE * 1.0).to(tl.int32), 1)
    code = stratum * _WIDTH + _MIDDLE + tl.where(negative, -size, size)
    return histogram + tl.histogram(code.ravel(), BINS, mask=rest.ravel())


@triton.jit
def hot_strata(novel_exact, stratum):
    """Per lane, in 4 bits a stratum: novel elements that equal the prediction (a lane has 8 at most)."""
    return tl.sum(tl.where(novel_exact, 1 << (4 * stratum), 0), 1)


@triton.jit
def finish(counts, energies, steps, flags, even, odd, energy, histogram, slot, ADD: tl.constexpr):
    """Store one vector's sums in the program's own place, or add them to what the narrow kernel stored there."""
    field = tl.arange(0, COUNTS)
    values = tl.zeros([COUNTS], tl.int32)
    for f in tl.static_range(4):
        values = tl.where(field == f, tl.sum((flags >> (8 * f)) & 0xFF), values)
        values = tl.where(field == 4 + 2 * f, tl.sum((even >> (8 * f)) & 0xFF), values)
        values = tl.where(field == 5 + 2 * f, tl.sum((odd >> (8 * f)) & 0xFF), values)
    joules = tl.sum(energy)
    bins = tl.arange(0, BINS)
    place = counts + slot * COUNTS + field
    bin_place = steps + slot * STORED + bins
    if ADD:
        values += tl.load(place)
        joules += tl.load(energies + slot)
        histogram += tl.load(bin_place, mask=bins < STORED, other=0)
    tl.store(place, values)
    tl.store(energies + slot, joules)
    tl.store(bin_place, histogram.to(steps.dtype.element_ty), mask=bins < STORED)
