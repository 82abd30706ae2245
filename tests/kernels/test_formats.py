"""Decoding of every bit pattern against torch's own casts, in numpy and inside the compiled kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.kernel_inputs import encode

from reconstruct.kernels import formats, gram_processor
from reconstruct.kernels.formats import FLOAT_FORMATS, decode, float_format
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import View

SHORT = ("BF16", "F16", "F8_E4M3", "F8_E5M2")


def all_patterns(dtype: str) -> NDArray[np.generic]:
    storage = np.dtype(FLOAT_FORMATS[dtype].storage)
    return np.arange(1 << (8 * storage.itemsize)).astype(storage)


def by_torch(bits: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    return torch.from_numpy(bits).view(getattr(torch, FLOAT_FORMATS[dtype].torch_name)).float().numpy()


@pytest.mark.parametrize("dtype", SHORT)
def test_all_bit_patterns_decode_as_in_torch(dtype: str) -> None:
    bits = all_patterns(dtype)
    ours, theirs = decode(bits, dtype), by_torch(bits, dtype)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours[np.isfinite(ours)]), np.signbit(theirs[np.isfinite(theirs)]))


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_numbers_of_a_16_bit_format_go_back_to_their_bits(dtype: str) -> None:
    bits = all_patterns(dtype)
    bits = bits[np.isfinite(decode(bits, dtype))]
    np.testing.assert_array_equal(formats.encode(decode(bits, dtype), dtype), bits)


@pytest.mark.parametrize("dtype", SHORT)
def test_compiled_kernels_decode_all_bit_patterns_alike(dtype: str) -> None:
    bits = all_patterns(dtype)
    expected = by_torch(bits, dtype)
    finite = int(np.isfinite(expected).sum())
    result = gram_processor.gram([View(bits, dtype), View(expected, "F32")], Lattice.of_dtype(dtype))
    assert result.count == finite
    assert result.identical.tolist() == [finite]
    assert result.nonfinite.tolist() == [len(bits) - finite] * 2


def test_float64_is_rounded_to_float32() -> None:
    values = np.array([0.1, -1 / 3, 1e-50, 1e300, -1e300, np.nan, np.inf])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(decode(values, "F64"), values.astype(np.float32))


def test_signalling_nan_decodes_without_a_warning() -> None:
    bits = np.array([0x7FF0000000000001], np.uint64).view(np.float64)
    assert np.isnan(decode(bits, "F64")).all()


def test_float32_decodes_to_itself() -> None:
    values = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    np.testing.assert_array_equal(decode(values, "F32"), values)


def test_decode_keeps_shapes() -> None:
    assert decode(np.zeros((2, 3), np.uint16), "BF16").shape == (2, 3)
    assert decode(np.zeros((0, 3), np.uint8), "F8_E4M3").shape == (0, 3)


@pytest.mark.parametrize("dtype", ["I64", "U8", "BOOL", "F8_E8M0", "F4", "float32"])
def test_integers_scales_and_sub_byte_kinds_are_not_read(dtype: str) -> None:
    assert float_format(dtype) is None
    with pytest.raises(KeyError):
        decode(np.zeros(1, np.uint8), dtype)
    with pytest.raises(ValueError, match=f"{dtype} is not read by the kernels; they read BF16, F16"):
        View(np.zeros(1, np.uint8), dtype)


@pytest.mark.parametrize("dtype", FLOAT_FORMATS)
def test_the_facts_of_each_format_are_torchs(dtype: str) -> None:
    format_ = FLOAT_FORMATS[dtype]
    information = torch.finfo(getattr(torch, format_.torch_name))
    assert information.eps == 2.0**-format_.mantissa
    assert information.tiny * 2.0**-format_.mantissa == 2.0**format_.quantum
    assert encode(np.zeros(1), dtype).bits.dtype == format_.storage


def test_a_view_of_the_wrong_storage_or_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="BF16 is held as a 1-D array of uint16, not as 1-D float32"):
        View(np.zeros(3, np.float32), "BF16")
    with pytest.raises(ValueError, match="not as 2-D uint16"):
        View(np.zeros((3, 1), np.uint16), "BF16")
