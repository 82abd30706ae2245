"""Bit casts, fused multiply-add and rounding, as single machine operations inside numba kernels."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["bits_to_float", "float_to_bits", "fma32", "half_to_float", "round_mantissa", "trailing_zeros"]

#: Callers give no typing context; numba's own annotations do not know that.
_intrinsic: Any = intrinsic


@_intrinsic
def bits_to_float(typingctx: Any, bits: Any) -> Any:  # noqa: ARG001 - numba's protocol
    """uint32 -> float32 with the same bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@_intrinsic
def float_to_bits(typingctx: Any, value: Any) -> Any:  # noqa: ARG001
    """float32 -> uint32 with the same bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


@_intrinsic
def fma32(typingctx: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001
    """Fused a * b + c in float32: one rounding."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        kind = ir.FloatType()
        function = builder.module.declare_intrinsic("llvm.fma", [kind], ir.FunctionType(kind, [kind] * 3))
        return builder.call(function, args)

    return types.float32(types.float32, types.float32, types.float32), codegen


@_intrinsic
def trailing_zeros(typingctx: Any, bits: Any) -> Any:  # noqa: ARG001
    """Position of the lowest bit that is set; not defined for 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@njit(inline="always")
def half_to_float(h: Any) -> Any:
    """IEEE half precision bits -> float32, subnormals, infinities and NaN included."""
    magnitude = types.uint32(h & types.uint32(0x7FFF)) << types.uint32(13)
    # Scaling by 2^112 moves the exponent's bias from 15 to 127 and normalises subnormals exactly.
    value = bits_to_float(types.uint32(magnitude)) * types.float32(5.192296858534828e33)
    if (h & types.uint32(0x7C00)) == types.uint32(0x7C00):
        value = bits_to_float(types.uint32(magnitude | types.uint32(0x7F800000)))
    sign = types.uint32(h & types.uint32(0x8000)) << types.uint32(16)
    return bits_to_float(types.uint32(float_to_bits(value) | sign))


@njit
def round_mantissa(x: Any, drop: Any) -> Any:
    """Round a float32 to 23 - `drop` mantissa bits, ties to even; the result may carry into the exponent."""
    bits = float_to_bits(x)
    one = types.uint32(1)
    # Without mantissa bits the last digit kept is the leading one, which is not stored and always odd.
    odd = (bits >> types.uint32(drop)) & one if drop < 23 else one
    half = (one << types.uint32(drop)) >> one
    mask = ~((one << types.uint32(drop)) - one)
    carry = half - one + odd if drop > 0 else types.uint32(0)
    return bits_to_float(types.uint32((bits + carry) & mask))
