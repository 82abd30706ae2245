"""What was read under a budget is kept range by range, and nothing is read twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.family import BASE, CODE

from reconstruct.checkpoints.alignment import align
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.engine.fetched_ranges import FetchedRanges
from reconstruct.errors import BudgetExhausted, StoreError
from reconstruct.row_sampling import RowRange


class Counting:
    """A byte source that gives out after so many reads."""

    def __init__(self, source, most=10**6):
        self.source, self.most, self.reads = source, most, []

    def read(self, tensor, start, stop):
        if len(self.reads) >= self.most:
            raise BudgetExhausted(1, 0, 1)
        self.reads.append((tensor.name, start, stop))
        return self.source.read(tensor, start, stop)


@pytest.fixture
def model():
    catalog = open_checkpoint(str(CODE))
    tensors = align(catalog, [open_checkpoint(str(BASE))]).tensors
    ranges = [RowRange(position, 0, min(64, tensor.elements)) for position, tensor in enumerate(tensors)]
    return catalog, tensors, ranges


def test_ranges_come_back_to_the_bit_also_in_another_process(tmp_path, model):
    catalog, tensors, ranges = model
    told = []
    with FetchedRanges(tmp_path) as kept:
        kept.fetch(0, catalog, tensors, ranges, told.append)
    assert sum(told) == sum(2 * (r.stop - r.start) for r in ranges)
    with FetchedRanges(tmp_path) as kept:
        for item in ranges:
            info = tensors[item.tensor].sources[0]
            np.testing.assert_array_equal(kept.bits(0, item, "BF16"), catalog.source.read(info, item.start, item.stop))


def test_a_fetch_that_was_cut_off_goes_on_and_reads_nothing_twice(tmp_path, model):
    catalog, tensors, ranges = model
    broken = Counting(catalog.source, most=11)
    with FetchedRanges(tmp_path) as kept, pytest.raises(BudgetExhausted):
        kept.fetch(0, replace(catalog, source=broken), tensors, ranges, lambda count: None)
    whole = Counting(catalog.source)
    told = []
    with FetchedRanges(tmp_path) as kept:
        kept.fetch(0, replace(catalog, source=whole), tensors, ranges, told.append)
    assert len(whole.reads) == len(ranges) - 11
    assert not set(broken.reads) & set(whole.reads)
    assert sum(told) == sum(2 * (r.stop - r.start) for r in ranges)  # progress is of the whole


def test_a_tensor_that_serves_two_is_read_once(tmp_path, model):
    catalog, tensors, _ = model
    twins = (tensors[0], replace(tensors[1], sources=tensors[0].sources))
    counting = Counting(catalog.source)
    both = [RowRange(0, 0, 64), RowRange(1, 0, 64)]
    with FetchedRanges(tmp_path) as kept:
        kept.fetch(0, replace(catalog, source=counting), twins, both, lambda count: None)
        np.testing.assert_array_equal(kept.bits(0, both[0], "BF16"), kept.bits(0, both[1], "BF16"))
    assert len(counting.reads) == 1


def test_a_range_that_was_not_fetched_is_said_to_be_missing(tmp_path, model):
    with FetchedRanges(tmp_path) as kept, pytest.raises(StoreError, match="a range is missing"):
        kept.bits(0, model[2][0], "BF16")


def test_nothing_is_left_after_deletion(tmp_path, model):
    catalog, tensors, ranges = model
    with FetchedRanges(tmp_path) as kept:
        kept.fetch(0, catalog, tensors, ranges, lambda count: None)
        kept.delete()
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_kept_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be kept here"):
        FetchedRanges(tmp_path / "file")
