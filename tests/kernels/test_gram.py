"""`gram`: the fused pass against its definition in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support.kernel_inputs import DTYPES, LENGTHS, MIXTURES, encode, integers, part, related, trained

from reconstruct.kernels import gram_processor, gram_reference
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import GramResult, View

BF16 = Lattice.of_dtype("BF16")


def assert_agree(models: list[View], lattice: Lattice, tolerance: float = 2e-6) -> GramResult:
    """Counts agree exactly; each product relative to the norms of its two factors."""
    fast, slow = gram_processor.gram(models, lattice), gram_reference.gram(models, lattice)
    assert fast.count == slow.count
    np.testing.assert_array_equal(fast.identical, slow.identical)
    np.testing.assert_array_equal(fast.nonfinite, slow.nonfinite)
    norms = np.sqrt(np.diag(slow.gram))
    assert (np.abs(fast.gram - slow.gram) <= tolerance * np.outer(norms, norms)).all()
    np.testing.assert_array_equal(fast.gram, fast.gram.T)
    np.testing.assert_allclose(fast.rounding_energy, slow.rounding_energy, rtol=tolerance)
    return fast


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_agrees_with_the_reference(dtype: str) -> None:
    assert_agree(related([dtype] * 3, 9001), Lattice.of_dtype(dtype))


@pytest.mark.parametrize("dtypes", MIXTURES, ids="-".join)
def test_models_of_different_dtypes_agree_with_the_reference(dtypes: tuple[str, ...]) -> None:
    assert_agree(related(dtypes, 9001), Lattice.of_dtype(dtypes[0]))


@pytest.mark.parametrize("further", range(9))
def test_any_number_of_further_sources_agrees_with_the_reference(further: int) -> None:
    result = assert_agree(related(["BF16"] * (2 + further), 5000, seed=further), BF16)
    assert result.gram.shape == (further + 2, further + 2)
    assert result.identical.shape == (further + 1,)
    assert result.nonfinite.shape == (further + 2,)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_agrees_with_the_reference(length: int) -> None:
    assert assert_agree(related(["BF16"] * 3, length, seed=length), BF16).count == length


def test_trained_weights_agree_with_the_reference() -> None:
    assert_agree(trained(["ft-code-half", "base", "ft-code"]), BF16)


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_integers_give_the_very_same_bits(dtype: str) -> None:
    models = integers([dtype] * 3, 10_000)
    fast = gram_processor.gram(models, Lattice.of_dtype(dtype))
    slow = gram_reference.gram(models, Lattice.of_dtype(dtype))
    np.testing.assert_array_equal(fast.gram, slow.gram)
    assert fast.rounding_energy == slow.rounding_energy


def test_results_of_disjoint_parts_add_up_to_the_whole() -> None:
    models = trained(["ft-code-half", "base", "ft-code"])
    edges = [0, 1, 1000, 4096, 4096, 90_001, len(models[0])]
    parts = [gram_processor.gram(part(models, a, b), BF16) for a, b in itertools.pairwise(edges)]
    total, whole = sum(parts[1:], parts[0]), gram_processor.gram(models, BF16)
    assert total.count == whole.count
    np.testing.assert_array_equal(total.identical, whole.identical)
    np.testing.assert_allclose(total.gram, whole.gram, rtol=0, atol=1e-6 * np.diag(whole.gram).max())
    np.testing.assert_allclose(total.rounding_energy, whole.rounding_energy, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_elements_that_are_not_finite_are_counted_per_model_and_left_out(bad: float) -> None:
    clean = np.random.default_rng(0).standard_normal((3, 5000))
    dirty = clean.copy()
    dirty[0, 10] = dirty[1, [10, 4096]] = dirty[2, 4999] = bad
    result = assert_agree([encode(row, "BF16") for row in dirty], BF16)
    assert result.nonfinite.tolist() == [1, 2, 1]
    assert result.count == 4997
    rest = np.delete(clean, [10, 4096, 4999], axis=1)
    without = gram_reference.gram([encode(row, "BF16") for row in rest], BF16)
    np.testing.assert_allclose(result.gram, without.gram, rtol=1e-4, atol=1e-2)


def test_only_bad_elements_leave_nothing() -> None:
    result = assert_agree([encode(np.full(5, np.nan), "F32")] * 3, Lattice.of_dtype("F32"))
    assert result.count == 0
    assert not result.gram.any()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_subnormal_numbers_are_compared_exactly_and_add_next_to_nothing(dtype: str) -> None:
    lattice = Lattice.of_dtype(dtype)
    values = np.random.default_rng(1).integers(-9, 10, (3, 5000)) * 2.0**lattice.quantum
    models = [encode(row, dtype) for row in values]
    fast, slow = gram_processor.gram(models, lattice), gram_reference.gram(models, lattice)
    np.testing.assert_array_equal(fast.identical, slow.identical)
    assert 0 < fast.identical[0] < fast.count == 5000
    np.testing.assert_allclose(fast.gram, slow.gram, rtol=1e-6, atol=1e-40)
    np.testing.assert_allclose(fast.rounding_energy, slow.rounding_energy, rtol=1e-6, atol=1e-40)


def test_numbers_whose_squares_overflow_float32_are_summed_in_float64() -> None:
    values = np.random.default_rng(2).standard_normal((3, 5000))
    values[0, 77], values[2, 4500] = 3e38, -2e38  # one flipped exponent bit makes such a weight
    models = [encode(row, "BF16") for row in values]
    result = assert_agree(models, BF16, tolerance=1e-12)
    assert np.isfinite(result.gram).all()
    assert result.gram[0, 0] > 1e76


def test_equal_models_have_no_deltas() -> None:
    (model,) = trained(["base"])
    result = assert_agree([model] * 3, BF16)
    assert result.identical.tolist() == [len(model)] * 2
    assert not result.gram[:2].any()
    assert result.gram[2, 2] > 0


@pytest.mark.parametrize("lattice", [Lattice(5, -133), Lattice(7, -10), Lattice(3, -6), Lattice(0, -149)])
def test_rounding_energy_follows_a_coarser_lattice(lattice: Lattice) -> None:
    fine = gram_reference.gram(models := related(["BF16"] * 3, 5000), BF16)
    assert assert_agree(models, lattice).rounding_energy > fine.rounding_energy


def test_models_of_unequal_length_are_refused_by_both() -> None:
    models = [*related(["BF16"] * 2, 10), *related(["BF16"], 9)]
    for module in (gram_processor, gram_reference):
        with pytest.raises(ValueError, match="models of 10, 10, 9 elements cannot be compared"):
            module.gram(models, BF16)


def test_a_suspect_alone_is_refused_by_both() -> None:
    for module in (gram_processor, gram_reference):
        with pytest.raises(ValueError, match="2 models are needed, 1 given"):
            module.gram(related(["BF16"], 10), BF16)
