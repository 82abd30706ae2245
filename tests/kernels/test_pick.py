"""`pick`: the sample is the one the definition names, whatever the blocks, and it is uniform."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support.kernel_inputs import DTYPES, LENGTHS, MIXTURES, encode, part, related, trained

from reconstruct.kernels import pick_processor, pick_reference
from reconstruct.kernels.pick_reference import element_hash
from reconstruct.kernels.results import PickResult, View


def assert_agree(models: list[View], *, size: int = 300, seed: int = 5, offset: int = 0) -> PickResult:
    fast = pick_processor.pick(models, size=size, seed=seed, offset=offset)
    slow = pick_reference.pick(models, size=size, seed=seed, offset=offset)
    assert fast.informative == slow.informative
    np.testing.assert_array_equal(fast.index, slow.index)
    assert fast.index.dtype == np.int64
    return fast


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_gives_the_reference_sample(dtype: str) -> None:
    assert len(assert_agree(related([dtype] * 4, 9001)).index) == 300


@pytest.mark.parametrize("dtypes", MIXTURES, ids="-".join)
def test_models_of_different_dtypes_give_the_reference_sample(dtypes: tuple[str, ...]) -> None:
    assert len(assert_agree(related(dtypes, 9001)).index) == 300


@pytest.mark.parametrize("further", range(9))
def test_any_number_of_further_sources_gives_the_reference_sample(further: int) -> None:
    result = assert_agree(related(["BF16"] * (2 + further), 5000, seed=further))
    assert (result.informative > 0) == (further > 0)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_gives_the_reference_sample(length: int) -> None:
    result = assert_agree(related(["BF16"] * 3, length, seed=length))
    assert len(result.index) == min(300, result.informative)


@pytest.mark.parametrize("size", [0, 1, 17, 5000, 10**6])
def test_any_sample_size_on_trained_weights(size: int) -> None:
    result = assert_agree(trained(["ft-code-half", "base", "ft-code"]), size=size)
    assert len(result.index) == min(size, result.informative)


@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (1, 2**33), (2**63 - 1, 7), (2**64 - 1, 2**40)])
def test_seeds_and_positions_of_any_size(seed: int, offset: int) -> None:
    result = assert_agree(related(["BF16"] * 3, 3000), seed=seed, offset=offset)
    assert (result.index >= offset).all()


def test_the_sample_of_blocks_is_the_sample_of_the_whole() -> None:
    models = trained(["ft-code-half", "base", "ft-code"])
    whole = pick_processor.pick(models, size=1000, seed=3)
    for edges in ([0, 5, 4096, 100_000, len(models[0])], [0, 85_000, len(models[0])]):
        blocks = [
            pick_processor.pick(part(models, a, b), size=1000, seed=3, offset=a) for a, b in itertools.pairwise(edges)
        ]
        union = np.concatenate([block.index for block in blocks])
        smallest = union[np.lexsort((union, element_hash(union, 3)))[:1000]]
        np.testing.assert_array_equal(np.sort(smallest), whole.index)
        assert sum(block.informative for block in blocks) == whole.informative


def test_a_second_pass_finds_the_sample_where_few_elements_are_informative() -> None:
    base = np.random.default_rng(0).standard_normal(400_000)
    moved = base.copy()
    moved[::1000] *= 1.5
    result = assert_agree([encode(base, "BF16"), encode(base, "BF16"), encode(moved, "BF16")], size=200)
    assert result.informative == 400
    assert (result.index % 1000 == 0).all()


def test_only_informative_elements_are_sampled() -> None:
    #          equal  moved  zero  cancelled  nan     inf     moved
    pivot = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -2.0]
    other = [1.0, 2.0, 2.0, 2.0, np.nan, 2.0, -3.0]
    suspect = [1.0, 1.5, 0.0, 0.125, 1.5, np.inf, -2.5]
    models = [encode(np.asarray(row), "F32") for row in (suspect, pivot, other)]
    assert assert_agree(models).index.tolist() == [1, 6]


def test_subnormal_differences_are_informative() -> None:
    values = np.random.default_rng(4).integers(-9, 10, (3, 2000)) * 2.0**-149
    assert assert_agree([encode(row, "F32") for row in values]).informative > 500


def test_the_sample_is_uniform_over_positions() -> None:
    models = related(["F32"] * 3, 100_000)
    index = pick_processor.pick(models, size=10_000, seed=11).index
    tenths = np.bincount(index // 10_000, minlength=10)
    assert np.abs(tenths - 1000).max() < 150  # five standard deviations


def test_another_seed_takes_another_sample() -> None:
    models = related(["F32"] * 3, 100_000)
    first, second = (pick_processor.pick(models, size=1000, seed=seed).index for seed in (0, 1))
    assert len(np.intersect1d(first, second)) < 100


def test_models_of_unequal_length_are_refused_by_both() -> None:
    models = [*related(["BF16"] * 2, 10), *related(["BF16"], 9)]
    for module in (pick_processor, pick_reference):
        with pytest.raises(ValueError, match="cannot be compared"):
            module.pick(models, size=3, seed=0)


@pytest.mark.parametrize("offset", [(1 << 32) - 1000, (1 << 33) - 4096, 1 << 32, 5 << 32])
def test_positions_beyond_32_bits_are_samples_of_their_own(offset: int) -> None:
    models = related(["BF16"] * 3, 9000)
    found = pick_processor.pick(models, size=300, seed=3, offset=offset)
    expected = pick_reference.pick(models, size=300, seed=3, offset=offset)
    np.testing.assert_array_equal(found.index, expected.index)
    below = pick_reference.pick(models, size=300, seed=3)
    assert len(np.intersect1d(found.index - offset, below.index)) < 60
