"""Numbers inside Triton kernels: decoding of every storage dtype, bit tests, rounding. Integer arithmetic and
exact conversions throughout, so that a GPU of any generation and the interpreter agree bit for bit.
"""

# Triton compiles a subset of Python: `else` where one branch alone is to be compiled.
# ruff: noqa: RET505
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

__all__ = [
    "CODES",
    "POINTERS",
    "bits_of",
    "decode",
    "exponent_of",
    "float_of",
    "is_finite",
    "load",
    "round_mantissa",
    "specialisation_label",
]

#: How a dtype is named inside a kernel (a constexpr).
CODES = {"BF16": 0, "F16": 1, "F32": 2, "F64": 3, "F8_E4M3": 4, "F8_E5M2": 5}
#: How Triton names the pointer to a dtype's carrier (see `device.storage_type`), for compilation ahead of time.
POINTERS = {"BF16": "*i16", "F16": "*i16", "F32": "*fp32", "F64": "*fp64", "F8_E4M3": "*u8", "F8_E5M2": "*u8"}


def specialisation_label(dtypes: Sequence[str]) -> str:
    """`3 BF16`, or the dtypes one by one where they differ."""
    return f"{len(dtypes)} {dtypes[0]}" if len(set(dtypes)) == 1 else " ".join(dtypes)


@triton.jit
def bits_of(x):
    """float32 -> uint32 with the same bits."""
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def float_of(bits):
    """uint32 -> float32 with the same bits."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def is_finite(x):
    """Neither NaN nor infinite, by the exponent's bits."""
    return (bits_of(x) & 0x7F800000) != 0x7F800000


@triton.jit
def exponent_of(x):
    """The biased exponent, int32; 0 for zero and subnormal numbers."""
    return ((bits_of(x) >> 23) & 0xFF).to(tl.int32)


@triton.jit
def _half(h):
    """Bits of IEEE half precision in the low half of a uint32 -> float32."""
    # One instruction on a GPU, and exact: every half, subnormal ones too, is a normal float32.
    return h.to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def load(pointer, offsets, mask, CODE: tl.constexpr):
    """Elements of a model as float32; masked ones are 0."""
    return decode(tl.load(pointer + offsets, mask=mask, other=0), CODE)


@triton.jit
def decode(raw, CODE: tl.constexpr):
    """Elements in storage form -> float32."""
    if CODE == 0:
        return float_of(raw.to(tl.uint16, bitcast=True).to(tl.uint32) << 16)
    elif CODE == 1:
        return _half(raw.to(tl.uint16, bitcast=True).to(tl.uint32))
    elif CODE == 2:
        return raw
    elif CODE == 3:
        return raw.to(tl.float32)
    elif CODE == 4:
        # e4m3fn read as a half is too small by 2^8, the difference of the biases; it has no infinity.
        code = raw.to(tl.uint32)
        value = _half(((code & 0x7F) << 7) & 0x3FFF) * 256.0
        value = tl.where((code & 0x7F) == 0x7F, float_of(tl.full(code.shape, 0x7FC00000, tl.uint32)), value)
        return float_of(bits_of(value) | ((code & 0x80) << 24))
    else:
        return _half(raw.to(tl.uint32) << 8)


@triton.jit
def round_mantissa(x, DROP: tl.constexpr):
    """Round a float32 to 23 - DROP mantissa bits (0 <= DROP < 23), ties to even; may carry into the exponent."""
    if DROP == 0:
        return x
    else:
        bits = bits_of(x)
        odd = (bits >> DROP) & 1
        return float_of((bits + ((1 << (DROP - 1)) - 1) + odd) & (0xFFFFFFFF ^ ((1 << DROP) - 1)))
