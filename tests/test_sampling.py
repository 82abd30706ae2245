"""Which elements are read together, and how many are kept."""

from __future__ import annotations

import itertools

import pytest

from reconstruct.errors import ConfigurationError
from reconstruct.sampling import SamplingPlan


@pytest.mark.parametrize("elements", [1, 4095, 4096, 4097, 32768, 100_001, 1 << 20])
@pytest.mark.parametrize("block", [4096, 1 << 14, 1 << 22])
def test_blocks_cover_a_tensor_without_gaps_or_overlap(elements, block):
    blocks = list(SamplingPlan(block=block).blocks(elements))
    assert blocks[0][0] == 0
    assert blocks[-1][1] == elements
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(blocks))
    assert all(0 < stop - start <= block for start, stop in blocks)


def test_tensor_that_can_spare_them_has_eight_blocks():
    assert len(list(SamplingPlan().blocks(1 << 16))) == 8
    assert len(list(SamplingPlan().blocks(4096))) == 1
    assert len(list(SamplingPlan().blocks(1 << 26))) == 16


def test_empty_tensor_has_no_blocks():
    assert list(SamplingPlan().blocks(0)) == []


@pytest.mark.parametrize(("tensors", "size"), [(0, 65536), (1, 65536), (128, 65536), (256, 32768), (10**6, 2048)])
def test_samples_share_the_total_but_keep_a_least_size(tensors, size):
    assert SamplingPlan().sample_size(tensors) == size


def test_small_samples_stay_small_however_many_tensors():
    assert SamplingPlan(elements=300).sample_size(10**6) == 300


@pytest.mark.parametrize(("option", "least"), [("block", 4096), ("elements", 256), ("total", 256), ("seed", 0)])
def test_values_that_are_too_small_are_refused_by_name(option, least):
    SamplingPlan(**{option: least})
    with pytest.raises(ConfigurationError, match=f"sampling.{option}: must be at least {least}"):
        SamplingPlan(**{option: least - 1})
