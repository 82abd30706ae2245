"""Many pieces at once: the same bits as single reads, few requests, and a clean end when the budget is spent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import family

from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.fetch import Request, fetch_ranges
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import BudgetExhausted


class Ranges:
    """The bytes of a file, and which ranges were asked for. `most`: bytes after which nothing is given."""

    def __init__(self, data: bytes, most: int | None = None) -> None:
        self.data, self.most, self.asked = data, most, list[tuple[int, int]]()

    def fetch(self, shard: str, begin: int, end: int) -> bytes:
        if self.most is not None and sum(b - a for a, b in self.asked) + end - begin > self.most:
            raise BudgetExhausted(end - begin, 0, self.most)
        self.asked.append((begin, end))
        return self.data[begin:end]

    def read(self, tensor: TensorInfo, start: int, stop: int) -> np.ndarray:
        raise AssertionError("pieces go through fetch")

    def ahead(self, tensor: TensorInfo, start: int, stop: int) -> None: ...

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None: ...


@pytest.fixture(scope="module")
def local() -> Catalog:
    return open_checkpoint(str(family.BASE))


def remote(local: Catalog, most: int | None = None) -> tuple[Catalog, Ranges]:
    source = Ranges((family.BASE / "model.safetensors").read_bytes(), most)
    return Catalog(local.reference, local.tensors, source, local.files), source


def some(catalog: Catalog) -> list[Request]:
    """Pieces of every tensor, in no order: its first, its last elements, and some in between."""
    generator = np.random.default_rng(3)
    pieces = []
    for info in catalog.tensors.values():
        start = int(generator.integers(0, max(info.elements - 9, 1)))
        pieces += [(info, 0, 1), (info, info.elements - 1, info.elements), (info, start, min(start + 9, info.elements))]
    return [pieces[i] for i in generator.permutation(len(pieces))]


@pytest.mark.parametrize("gap", [0, 100, 16384, 1 << 30])
@pytest.mark.parametrize("workers", [1, 8])
def test_the_bits_are_those_of_single_reads(local: Catalog, gap: int, workers: int) -> None:
    requests = some(local)
    for catalog in (local, remote(local)[0]):
        found = list(fetch_ranges(catalog, requests, workers, gap=gap))
        assert sorted(map(repr, requests)) == sorted(repr(request) for request, _ in found)
        for request, array in found:
            expected = local.source.read(*request)
            assert array.dtype == expected.dtype
            assert array.tobytes() == expected.tobytes()
            assert not array.flags.writeable


def test_near_pieces_are_fetched_together_and_far_ones_are_not(local: Catalog) -> None:
    info = local.tensors["lm_head.weight"]
    catalog, source = remote(local)
    list(fetch_ranges(catalog, [(info, 1000, 1100), (info, 0, 100), (info, 150, 200), (info, 160, 170)], gap=100))
    assert sorted(source.asked) == [(info.begin, info.begin + 400), (info.begin + 2000, info.begin + 2200)]


def test_a_range_grows_no_further_than_told(local: Catalog) -> None:
    info = local.tensors["lm_head.weight"]
    catalog, source = remote(local)
    list(fetch_ranges(catalog, [(info, 100 * i, 100 * i + 100) for i in range(10)], largest=600))
    assert sorted(b - a for a, b in source.asked) == [200, 600, 600, 600]


def test_the_order_is_that_of_the_files(local: Catalog) -> None:
    places = [info.begin + 2 * start for (info, start, _), _ in fetch_ranges(remote(local)[0], some(local))]
    assert places == sorted(places)


def test_nothing_and_empty_pieces_cost_no_request(local: Catalog) -> None:
    catalog, source = remote(local)
    assert list(fetch_ranges(catalog, [])) == []
    ((_, array),) = fetch_ranges(catalog, [(local.tensors["lm_head.weight"], 7, 7)])
    assert len(array) == 0
    assert source.asked == []


def test_a_spent_budget_ends_it_after_what_came_before(local: Catalog) -> None:
    info = local.tensors["lm_head.weight"]
    catalog, source = remote(local, most=1000)
    found = []
    with pytest.raises(BudgetExhausted):
        for request, array in fetch_ranges(catalog, [(info, 1000 * i, 1000 * i + 50) for i in range(16)], 1, gap=0):
            found.append((request, array))
    assert [request[1] for request, _ in found] == [1000 * i for i in range(10)]
    assert sum(b - a for a, b in source.asked) == 1000


def test_one_who_stops_listening_ends_the_requests(local: Catalog, tmp_path: Path) -> None:
    info = local.tensors["lm_head.weight"]
    catalog, source = remote(local)
    pieces = fetch_ranges(catalog, [(info, 100 * i, 100 * i + 1) for i in range(160)], 2, gap=0)
    next(pieces)
    pieces.close()
    assert len(source.asked) <= 5


@pytest.mark.parametrize(("start", "stop"), [(-1, 4), (0, 16385), (5, 4)])
def test_elements_outside_a_tensor_are_refused_before_anything_is_read(local: Catalog, start: int, stop: int) -> None:
    catalog, source = remote(local)
    with pytest.raises(ValueError, match=f"elements {start} to {stop} of a tensor of 16384"):
        next(fetch_ranges(catalog, [(local.tensors["lm_head.weight"], start, stop)]))
    assert source.asked == []
