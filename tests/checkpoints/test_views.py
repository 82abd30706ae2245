"""Parts of tensors as tensors: any range of elements reads as the whole view does, and costs what it says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import family

from reconstruct.checkpoints.catalog import Catalog, DerivedTensor, TensorInfo
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.checkpoints.views import part, reordered, strided

VALUES = torch.arange(4 * 6 * 10, dtype=torch.float32).reshape(4, 6, 10)


@pytest.fixture(scope="module", params=["safetensors", "pickle"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, TensorInfo]:
    folder = tmp_path_factory.mktemp("views")
    if request.param == "safetensors":
        family.save(folder, {"before": torch.zeros(3), "whole": VALUES}, config=False)
    else:
        torch.save({"before": torch.zeros(3), "whole": VALUES}, folder / "pytorch_model.bin")
    catalog = open_checkpoint(str(folder))
    return catalog, catalog.tensors["whole"]


def read(catalog: Catalog, info: TensorInfo) -> NDArray[np.generic]:
    """The whole view, after every range of a few lengths was found to be the same part of it."""
    whole = catalog.source.read(info, 0, info.elements)
    for length in (1, 3, 7, info.elements):
        edges = [*range(0, info.elements, length), info.elements]
        pieces = [catalog.source.read(info, a, b) for a, b in itertools.pairwise(edges)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert len(catalog.source.read(info, 2, 2)) == 0
    catalog.source.ahead(info, 0, info.elements)
    catalog.source.release(info, 0, info.elements)
    return whole.reshape(info.shape)


def test_contiguous_parts_of_a_stored_tensor_are_byte_ranges(stored: tuple[Catalog, TensorInfo]) -> None:
    catalog, whole = stored
    info = part(whole, 2 * 60 + 20, (3, 10), "whole[2].x")
    assert not isinstance(info, DerivedTensor)
    assert (info.end - info.begin, info.cost(1, 4)) == (120, 12)
    np.testing.assert_array_equal(read(catalog, info), VALUES[2, 2:5])


def test_a_matrix_stored_the_other_way_round_is_gathered(stored: tuple[Catalog, TensorInfo]) -> None:
    catalog, whole = stored
    info = strided(whole, 60, (1, 10), (10, 6), "whole[1]")
    np.testing.assert_array_equal(read(catalog, info), VALUES[1].T)
    assert info.cost(0, 1) == info.cost(0, 6) == 51 * 4  # whole rows: from the first element to the last


def test_every_other_column_is_gathered(stored: tuple[Catalog, TensorInfo]) -> None:
    catalog, whole = stored
    info = strided(whole, 61, (2, 10), (5, 6), "whole[1].up")
    np.testing.assert_array_equal(read(catalog, info), VALUES[1, :, 1::2].T)


def test_a_matrix_in_file_order_needs_no_gathering(stored: tuple[Catalog, TensorInfo]) -> None:
    _, whole = stored
    assert not isinstance(strided(whole, 60, (10, 1), (6, 10), "whole[1]"), DerivedTensor)


def test_rows_in_another_order(stored: tuple[Catalog, TensorInfo]) -> None:
    catalog, whole = stored
    order = (3, 1, 5, 0, 2, 4)
    rows = part(whole, 0, (6, 10), "whole[0]")
    np.testing.assert_array_equal(read(catalog, reordered(rows, order)), VALUES[0, list(order)])


def test_views_of_views(stored: tuple[Catalog, TensorInfo]) -> None:
    catalog, whole = stored
    turned = strided(whole, 60, (1, 10), (10, 6), "whole[1]")
    below = part(turned, 12, (4, 6), "whole[1].up")
    np.testing.assert_array_equal(read(catalog, below), VALUES[1].T[2:6])
    assert below.cost(0, 24) == turned.cost(12, 36)
    np.testing.assert_array_equal(read(catalog, reordered(below, (3, 0, 2, 1))), VALUES[1].T[[5, 2, 4, 3]])


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 61)])
def test_elements_outside_a_view_are_refused(stored: tuple[Catalog, TensorInfo], start: int, stop: int) -> None:
    catalog, whole = stored
    with pytest.raises(ValueError, match="elements"):
        catalog.source.read(strided(whole, 60, (1, 10), (10, 6), "whole[1]"), start, stop)
