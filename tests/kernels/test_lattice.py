"""The lattice against the hardware's and torch's own rounding, and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.kernel_inputs import encode

from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.lattice import Lattice

TORCH = {name: getattr(torch, format_.torch_name) for name, format_ in FLOAT_FORMATS.items()}
#: Largest finite number; above it formats saturate, overflow or have NaN, which a lattice does not model.
LARGEST = {name: torch.finfo(kind).max for name, kind in TORCH.items()}
LATTICES = [Lattice(7, -133), Lattice(5, -133), Lattice(3, -9), Lattice(10, -12), Lattice(0, -149), Lattice(23, -149)]


def numbers(largest: float, smallest: float) -> NDArray[np.float64]:
    """Numbers of both signs over the whole range, subnormals and zeros included: float64 [n]."""
    random = np.random.default_rng(0)
    exponents = random.uniform(np.log2(smallest) - 2, min(np.log2(largest), 120), 20_000)
    values = random.choice([-1.0, 1.0], 20_000) * 2.0**exponents
    return np.concatenate([values[np.abs(values) <= largest], [0.0, -0.0, largest, -largest, smallest]])


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"])
def test_rounding_to_a_dtype_is_torchs_cast(dtype: str) -> None:
    values = numbers(LARGEST[dtype], 2.0 ** FLOAT_FORMATS[dtype].quantum)
    if dtype != "F32":  # torch's casts to short formats go through float32
        values = values.astype(np.float32).astype(np.float64)
    expected = torch.from_numpy(values).to(TORCH[dtype]).float().numpy()
    np.testing.assert_array_equal(Lattice.of_dtype(dtype).round(values), expected)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
def test_midpoints_go_to_the_even_neighbour_as_in_torch(dtype: str) -> None:
    bits = np.arange(2**15 - 2 if TORCH[dtype].itemsize == 2 else 2**7 - 2)
    carrier = np.uint16 if TORCH[dtype].itemsize == 2 else np.uint8
    below, above = (torch.from_numpy((bits + k).astype(carrier)).view(TORCH[dtype]).double().numpy() for k in (0, 1))
    finite = np.isfinite(above)
    middle = (below[finite] + above[finite]) / 2
    expected = torch.from_numpy(middle).float().to(TORCH[dtype]).float().numpy()
    np.testing.assert_array_equal(Lattice.of_dtype(dtype).round(middle), expected)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
def test_spacing_is_the_distance_to_the_next_number_away_from_zero(dtype: str) -> None:
    bits = np.arange(2**15 - 2 if TORCH[dtype].itemsize == 2 else 2**7 - 2)
    carrier = np.uint16 if TORCH[dtype].itemsize == 2 else np.uint8
    here, following = (torch.from_numpy((bits + k).astype(carrier)).view(TORCH[dtype]).double().numpy() for k in (0, 1))
    finite = np.isfinite(following)
    np.testing.assert_array_equal(Lattice.of_dtype(dtype).spacing(here[finite]), (following - here)[finite])


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_rounding_is_idempotent_and_never_moves_more_than_half_a_spacing(lattice: Lattice) -> None:
    values = numbers(1e30, 2.0**-149)
    rounded = lattice.round(values)
    np.testing.assert_array_equal(lattice.round(rounded), rounded)
    assert (np.abs(rounded - values) <= lattice.spacing(values) / 2).all()


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_lattice_numbers_are_multiples_of_their_spacing(lattice: Lattice) -> None:
    rounded = lattice.round(numbers(1e30, 2.0**-149)).astype(np.float64)
    steps = rounded / lattice.spacing(rounded)
    np.testing.assert_array_equal(steps, np.rint(steps))
    assert np.abs(steps).max() < 2 ** (lattice.mantissa + 1)


def test_float64_is_examined_at_float32_precision() -> None:
    assert Lattice.of_dtype("F64") == Lattice.of_dtype("F32") == Lattice(23, -149)


def test_spacing_at_zero_is_the_smallest_step() -> None:
    assert Lattice(7, -133).spacing(np.zeros(1)).tolist() == [2.0**-133]


def test_numbers_beyond_float32_round_to_infinity_without_a_warning() -> None:
    assert Lattice(7, -133).round(np.array([3.4e38, -1e300, np.inf])).tolist() == [np.inf, -np.inf, np.inf]


def test_shapes_are_kept() -> None:
    assert Lattice(7, -133).round(np.ones((2, 3))).shape == (2, 3)
    assert Lattice(7, -133).spacing(np.ones((2, 3))).shape == (2, 3)


def test_trained_bfloat16_weights_lie_on_their_lattice() -> None:
    view = encode(np.random.default_rng(0).standard_normal(1000), "BF16")
    values = (view.bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    np.testing.assert_array_equal(Lattice.of_dtype("BF16").round(values), values)
