"""Storage dtypes: their safetensors names, how numpy holds their bits, and their arithmetic facts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOAT8_TABLES", "FLOAT_FORMATS", "FloatFormat", "decode", "encode", "encode_nearest", "float_format"]


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format that the kernels read.

    `storage` is the numpy dtype that holds the bits; `mantissa` the stored mantissa bits; `quantum` the exponent
    (base 2) of the smallest subnormal, below which the format has no numbers.
    """

    name: str
    torch_name: str
    storage: type[np.generic]
    mantissa: int
    quantum: int


FLOAT_FORMATS = {
    "BF16": FloatFormat("BF16", "bfloat16", np.uint16, 7, -133),
    "F16": FloatFormat("F16", "float16", np.uint16, 10, -24),
    "F32": FloatFormat("F32", "float32", np.float32, 23, -149),
    "F64": FloatFormat("F64", "float64", np.float64, 52, -1074),
    "F8_E4M3": FloatFormat("F8_E4M3", "float8_e4m3fn", np.uint8, 3, -9),
    "F8_E5M2": FloatFormat("F8_E5M2", "float8_e5m2", np.uint8, 2, -16),
}


def float_format(dtype: str) -> FloatFormat | None:
    """The format of a safetensors dtype name, or None if the kernels do not read it (integers, scales, sub-byte)."""
    return FLOAT_FORMATS.get(dtype)


def _float8_table(mantissa: int, bias: int, *, finite_only: bool) -> NDArray[np.float32]:
    """All 256 values of an 8-bit format; e4m3fn has no infinity and one NaN per sign, e5m2 follows IEEE 754."""
    codes = np.arange(256)
    exponent, fraction = (codes & 0x7F) >> mantissa, codes & ((1 << mantissa) - 1)
    values = np.where(
        exponent == 0,
        np.ldexp(fraction.astype(np.float64), 1 - bias - mantissa),
        np.ldexp(1.0 + fraction / (1 << mantissa), exponent - bias),
    )
    if finite_only:
        values[(codes & 0x7F) == 0x7F] = np.nan
    else:
        top = exponent == (1 << (7 - mantissa)) - 1
        values[top] = np.where(fraction[top] == 0, np.inf, np.nan)
    return np.where(codes & 0x80, -values, values).astype(np.float32)


FLOAT8_TABLES = {
    "F8_E4M3": _float8_table(3, 7, finite_only=True),
    "F8_E5M2": _float8_table(2, 15, finite_only=False),
}


def decode(bits: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    """Bits in storage form -> float32 [same shape]. Exact for every format but float64, which is rounded.

    Raises KeyError for a dtype that `float_format` does not know.
    """
    if dtype == "BF16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "F16":
        return bits.view(np.float16).astype(np.float32)
    if dtype in FLOAT8_TABLES:
        return FLOAT8_TABLES[dtype][bits.astype(np.intp)]
    with np.errstate(over="ignore", invalid="ignore"):  # infinities, and NaN whose quiet bit is not set
        return np.asarray(bits, dtype=FLOAT_FORMATS[dtype].storage).astype(np.float32)


def encode(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """float32 numbers that a 16-bit format or float32 holds exactly -> their bits in storage form [same shape].

    Raises KeyError for other formats: decoding them is all that is needed.
    """
    values = np.ascontiguousarray(values)
    if dtype == "BF16":
        return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16)
    return {"F32": values}[dtype]


def encode_nearest(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """float32 numbers rounded to the nearest of a 16-bit format, ties to even (or kept, in float32 and float64) -> bits
    in storage form [same shape]. Raises KeyError for other formats.
    """
    values = np.ascontiguousarray(values)
    if dtype == "BF16":
        bits = values.view(np.uint32)
        rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
        return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)
    if dtype == "F16":
        with np.errstate(over="ignore"):  # beyond the largest number it is infinity, as in hardware
            return values.astype(np.float16).view(np.uint16)
    return values.astype({"F32": np.float32, "F64": np.float64}[dtype])
