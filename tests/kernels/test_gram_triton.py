"""`gram` in Triton against its definition in float64: interpreted on the processor, compiled where there is a GPU."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import pytest
import torch
from support.kernel_inputs import DTYPES, LENGTHS, MIXTURES, encode, integers, part, related, trained

from reconstruct.kernels import gram_processor, gram_reference
from reconstruct.kernels.device import DeviceView, device_of, on_device
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import GramResult, View

pytest.importorskip("triton")
gram_triton = importlib.import_module("reconstruct.kernels.gram_triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)

BF16 = Lattice.of_dtype("BF16")
#: Runs of 24 elements in tiles of 8.
SMALL = {"LANES": 4, "WIDTH": 2, "TILES": 3}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram_triton, "_shape", lambda dtypes: SMALL)


def assert_agree(
    models: Sequence[View], lattice: Lattice, tolerance: float = 2e-6, given: Sequence[View | DeviceView] = ()
) -> GramResult:
    """Counts agree exactly; each product relative to the norms of its two factors."""
    fast, slow = gram_triton.gram(given or models, lattice), gram_reference.gram(models, lattice)
    assert fast.count == slow.count
    np.testing.assert_array_equal(fast.identical, slow.identical)
    np.testing.assert_array_equal(fast.nonfinite, slow.nonfinite)
    norms = np.sqrt(np.diag(slow.gram))
    assert (np.abs(fast.gram - slow.gram) <= tolerance * np.outer(norms, norms)).all()
    np.testing.assert_array_equal(fast.gram, fast.gram.T)
    np.testing.assert_allclose(fast.rounding_energy, slow.rounding_energy, rtol=tolerance)
    assert [fast.gram.dtype, fast.identical.dtype, fast.nonfinite.dtype] == [np.float64, np.int64, np.int64]
    return fast


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_agrees_with_the_reference(dtype: str) -> None:
    assert_agree(related([dtype] * 3, 3001), Lattice.of_dtype(dtype))


@pytest.mark.parametrize("dtypes", MIXTURES, ids="-".join)
def test_models_of_different_dtypes_agree_with_the_reference(dtypes: tuple[str, ...]) -> None:
    assert_agree(related(dtypes, 3001), Lattice.of_dtype(dtypes[0]))


@pytest.mark.parametrize("further", range(9))
def test_any_number_of_further_sources_agrees_with_the_reference(further: int) -> None:
    result = assert_agree(related(["BF16"] * (2 + further), 1500, seed=further), BF16)
    assert result.gram.shape == (further + 2, further + 2)
    assert result.identical.shape == (further + 1,)
    assert result.nonfinite.shape == (further + 2,)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_agrees_with_the_reference(length: int) -> None:
    assert assert_agree(related(["BF16"] * 3, length, seed=length), BF16).count == length


def test_a_second_run_is_begun_after_the_first() -> None:
    assert assert_agree(related(["BF16"] * 3, 33_000), BF16).count == 33_000


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 7, 8, 9, 23, 24, 25, 47, 48, 49, 56, 71])
def test_every_length_around_the_edges_of_tiles_and_runs(length: int) -> None:
    models = integers(["F32", "BF16", "F32", "F16"], length, seed=length)
    result = assert_agree(models, Lattice.of_dtype("F32"), tolerance=0)
    np.testing.assert_array_equal(result.gram, gram_reference.gram(models, Lattice.of_dtype("F32")).gram)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_elements_of_a_lane_stay_together_whatever_their_number(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram_triton, "_shape", lambda dtypes: {"LANES": 8, "WIDTH": width, "TILES": 2})
    assert_agree(integers(["BF16", "F64", "F8_E4M3"], 100), BF16, tolerance=0)


def test_trained_weights_agree_with_the_reference() -> None:
    assert_agree(part(trained(["ft-code-half", "base", "ft-code"]), 0, 20_001), BF16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_give_the_very_same_bits(dtype: str) -> None:
    models, lattice = integers([dtype] * 3, 1500), Lattice.of_dtype(dtype)
    fast, slow = gram_triton.gram(models, lattice), gram_reference.gram(models, lattice)
    np.testing.assert_array_equal(fast.gram, slow.gram)
    assert fast.rounding_energy == slow.rounding_energy


def test_integers_give_the_very_same_bits_as_on_the_processor() -> None:
    models = integers(["BF16"] * 3, 1500)
    for one, other in zip(
        astuple(gram_triton.gram(models, BF16)), astuple(gram_processor.gram(models, BF16)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("small")
def test_the_same_models_give_the_same_bytes() -> None:
    models = related(["BF16"] * 3, 200)
    first, second = (gram_triton.gram(models, BF16) for _ in range(2))
    assert first.gram.tobytes() == second.gram.tobytes()
    assert first.rounding_energy == second.rounding_energy


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("bad", "place"), [(np.nan, 0), (np.nan, 23), (np.nan, 24), (np.nan, 49), (np.inf, 7), (-np.inf, 48)]
)
def test_elements_that_are_not_finite_are_counted_per_model_and_left_out(bad: float, place: int) -> None:
    for model in range(4):
        values = np.random.default_rng(place).integers(1, 9, (4, 50)).astype(np.float64)
        values[model, place] = bad
        result = assert_agree([encode(row, "BF16") for row in values], BF16, tolerance=0)
        assert result.nonfinite.tolist() == np.eye(4, dtype=int)[model].tolist()
        assert result.count == 49


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64", "F8_E5M2"])
def test_several_bad_elements_in_several_models(dtype: str) -> None:
    values = np.random.default_rng(0).standard_normal((3, 2200))
    values[0, 10] = values[1, 10] = values[2, 2199] = np.nan
    values[1, 1024] = values[2, 1024] = np.inf
    result = assert_agree([encode(row, dtype) for row in values], Lattice.of_dtype(dtype))
    assert result.nonfinite.tolist() == [1, 2, 2]
    assert result.count == 2197


def test_only_bad_elements_leave_nothing() -> None:
    result = assert_agree([encode(np.full(5, np.nan), "F32")] * 3, Lattice.of_dtype("F32"))
    assert result.count == 0
    assert not result.gram.any()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_subnormal_numbers_are_compared_exactly_and_add_next_to_nothing(dtype: str) -> None:
    lattice = Lattice.of_dtype(dtype)
    models = [encode(row, dtype) for row in np.random.default_rng(1).integers(-9, 10, (3, 2000)) * 2.0**lattice.quantum]
    fast, slow = gram_triton.gram(models, lattice), gram_reference.gram(models, lattice)
    np.testing.assert_array_equal(fast.identical, slow.identical)
    assert 0 < fast.identical[0] < fast.count == 2000
    np.testing.assert_allclose(fast.gram, slow.gram, rtol=1e-6, atol=1e-40)
    np.testing.assert_allclose(fast.rounding_energy, slow.rounding_energy, rtol=1e-6, atol=1e-40)


def test_zeros_of_either_sign_are_identical() -> None:
    positive, negative = np.zeros(1030), np.full(1030, -0.0)
    models = [encode(row, "BF16") for row in (positive, negative, positive)]
    assert assert_agree(models, Lattice(7, -10)).identical.tolist() == [1030, 1030]


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_numbers_whose_squares_overflow_float32_are_summed_in_float64(dtype: str) -> None:
    values = np.random.default_rng(2).standard_normal((3, 2000))
    values[0, 77], values[2, 1800] = 3e38, -2e38  # one flipped exponent bit makes such a weight
    models, lattice = [encode(row, dtype) for row in values], Lattice.of_dtype(dtype)
    for given in (models, on_device(models, device_of(models))):
        result = assert_agree(models, lattice, tolerance=1e-12, given=given)
        assert np.isfinite(result.gram).all()
        assert result.gram[0, 0] > 1e76


@pytest.mark.parametrize("lattice", [Lattice(5, -133), Lattice(7, -10), Lattice(3, -6), Lattice(0, -149)])
def test_rounding_energy_follows_a_coarser_lattice(lattice: Lattice) -> None:
    fine = gram_reference.gram(models := related(["BF16"] * 3, 2000), BF16)
    assert assert_agree(models, lattice).rounding_energy > fine.rounding_energy


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_of_the_device_that_begin_anywhere(dtype: str) -> None:
    models = related([dtype] * 3, 1300)
    held = on_device(models, device_of(models))
    for start in (0, 1, 3, 8):
        given = [DeviceView(m.bits[start:], m.dtype) for m in held]
        assert_agree(part(models, start, 1300), Lattice.of_dtype(dtype), given=given)


def test_views_of_host_and_device_mix() -> None:
    models = related(["BF16"] * 3, 1300)
    assert_agree(models, BF16, given=[models[0], *on_device(models[1:], device_of(models))])


def test_models_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="models of 10, 10, 9 elements cannot be compared"):
        gram_triton.gram([*related(["BF16"] * 2, 10), *related(["BF16"], 9)], BF16)


def test_a_suspect_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="2 models are needed, 1 given"):
        gram_triton.gram(related(["BF16"], 10), BF16)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")
def test_many_elements_on_a_gpu() -> None:
    for dtypes in (*MIXTURES, *([dtype] * 3 for dtype in DTYPES), *(["BF16"] * count for count in range(2, 11))):
        models, lattice = related(dtypes, 5_000_003), Lattice.of_dtype(dtypes[0])
        held = on_device(models, torch.device("cuda"))
        first = assert_agree(models, lattice, given=held)
        assert first.gram.tobytes() == gram_triton.gram(held, lattice).gram.tobytes()
        assert_agree(part(models, 5, 70_001), lattice, given=[DeviceView(m.bits[5:70_001], m.dtype) for m in held])
        values = integers(dtypes, 1_000_003)
        np.testing.assert_array_equal(gram_triton.gram(values, lattice).gram, gram_reference.gram(values, lattice).gram)
