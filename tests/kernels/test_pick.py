"""`pick`: the elements are those the definition names, whatever the blocks, and they are spread uniformly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from support.kernel_inputs import DTYPES, LENGTHS, MIXTURES, encode, part, related, trained

from reconstruct.kernels import pick_processor, pick_reference
from reconstruct.kernels.pick_reference import EVERY_HASH, element_hash, smallest_hashes
from reconstruct.kernels.results import View


def assert_agree(models: list[View], *, seed: int = 5, offset: int = 0, below: int = EVERY_HASH) -> NDArray[np.int64]:
    fast = pick_processor.pick(models, seed=seed, offset=offset, below=below)
    np.testing.assert_array_equal(fast, pick_reference.pick(models, seed=seed, offset=offset, below=below))
    assert fast.dtype == np.int64
    return fast


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("below", [EVERY_HASH, EVERY_HASH // 10])
def test_every_dtype_gives_the_reference_elements(dtype: str, below: int) -> None:
    assert len(assert_agree(related([dtype] * 4, 9001), below=below)) > 300


@pytest.mark.parametrize("dtypes", MIXTURES, ids="-".join)
def test_models_of_different_dtypes_give_the_reference_elements(dtypes: tuple[str, ...]) -> None:
    assert len(assert_agree(related(dtypes, 9001))) > 300


@pytest.mark.parametrize("further", range(9))
def test_any_number_of_further_sources_gives_the_reference_elements(further: int) -> None:
    assert (len(assert_agree(related(["BF16"] * (2 + further), 5000, seed=further))) > 0) == (further > 0)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_gives_the_reference_elements(length: int) -> None:
    assert_agree(related(["BF16"] * 3, length, seed=length))


@pytest.mark.parametrize("below", [0, 1, EVERY_HASH // 1000, EVERY_HASH // 2, EVERY_HASH - 1, EVERY_HASH])
def test_any_bound_on_trained_weights(below: int) -> None:
    found = assert_agree(trained(["ft-code-half", "base", "ft-code"]), below=below)
    assert (element_hash(found, 5) <= below).all()


@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (1, 2**33), (2**63 - 1, 7), (2**64 - 1, 2**40)])
def test_seeds_and_positions_of_any_size(seed: int, offset: int) -> None:
    assert (assert_agree(related(["BF16"] * 3, 3000), seed=seed, offset=offset) >= offset).all()


def test_blocks_give_what_the_whole_gives() -> None:
    models = trained(["ft-code-half", "base", "ft-code"])
    whole = pick_processor.pick(models, seed=3, below=EVERY_HASH // 50)
    for edges in ([0, 5, 4096, 100_000, len(models[0])], [0, 85_000, len(models[0])]):
        blocks = [
            pick_processor.pick(part(models, a, b), seed=3, offset=a, below=EVERY_HASH // 50)
            for a, b in itertools.pairwise(edges)
        ]
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("size", [0, 1, 17, 5000, 10**6])
def test_the_smallest_hashes_of_a_set(size: int) -> None:
    index = np.sort(np.random.default_rng(0).choice(2**34, 20_000, replace=False))
    found = smallest_hashes(index, size, 3)
    expected = np.lexsort((index, element_hash(index, 3)))[:size]
    np.testing.assert_array_equal(found, np.sort(expected))


def test_only_informative_elements_are_sampled() -> None:
    #          equal  moved  zero  cancelled  nan     inf     moved
    pivot = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -2.0]
    other = [1.0, 2.0, 2.0, 2.0, np.nan, 2.0, -3.0]
    suspect = [1.0, 1.5, 0.0, 0.125, 1.5, np.inf, -2.5]
    models = [encode(np.asarray(row), "F32") for row in (suspect, pivot, other)]
    assert assert_agree(models).tolist() == [1, 6]


def test_subnormal_differences_are_informative() -> None:
    values = np.random.default_rng(4).integers(-9, 10, (3, 2000)) * 2.0**-149
    assert len(assert_agree([encode(row, "F32") for row in values])) > 500


def test_the_sample_is_uniform_over_positions() -> None:
    models = related(["F32"] * 3, 100_000)
    index = pick_processor.pick(models, seed=11)
    index = index[smallest_hashes(index, 10_000, 11)]
    tenths = np.bincount(index // 10_000, minlength=10)
    assert np.abs(tenths - 1000).max() < 150  # five standard deviations


def test_another_seed_takes_another_sample() -> None:
    models = related(["F32"] * 3, 100_000)
    first, second = (pick_processor.pick(models, seed=seed, below=EVERY_HASH // 50) for seed in (0, 1))
    assert len(np.intersect1d(first, second)) < 100


def test_models_of_unequal_length_are_refused_by_both() -> None:
    models = [*related(["BF16"] * 2, 10), *related(["BF16"], 9)]
    for module in (pick_processor, pick_reference):
        with pytest.raises(ValueError, match="cannot be compared"):
            module.pick(models, seed=0)


@pytest.mark.parametrize("offset", [(1 << 32) - 1000, (1 << 33) - 4096, 1 << 32, 5 << 32])
def test_positions_beyond_32_bits_are_samples_of_their_own(offset: int) -> None:
    models = related(["BF16"] * 3, 9000)
    found = assert_agree(models, seed=3, offset=offset, below=EVERY_HASH // 20)
    elsewhere = pick_reference.pick(models, seed=3, below=EVERY_HASH // 20)
    assert len(np.intersect1d(found - offset, elsewhere)) < 60
