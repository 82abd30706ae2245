"""From tensors to layers, module kinds and the model."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import CODE, DOCS, dataset
from support.family import CODE_HALF

from reconstruct.analysis import analyse
from reconstruct.pooling import limits, pool, pooled_bounds, sum_replays
from reconstruct.statistics.moments import affine
from reconstruct.statistics.rounding import Box


def box(low, high, low_sum=0.9, high_sum=1.1):
    return Box(np.array(low), np.array(high), low_sum, high_sum, 0)


@pytest.fixture(scope="module")
def merge(blend_folder):
    return analyse(dataset(blend_folder, [CODE, DOCS]))


@pytest.fixture(scope="module")
def near_miss():
    return analyse(dataset(CODE_HALF, [CODE, DOCS]))


def by_layer(tensor):
    return tensor.measurement.module.layer_label, None


def test_share_of_the_pivot_is_what_is_missing_to_one():
    assert affine(np.array([0.565, 0.3])).tolist() == pytest.approx([0.135, 0.565, 0.3])
    assert affine(np.empty(0)).tolist() == [1]


def test_limits_hold_the_true_median_as_often_as_they_say():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = limits(list(random.normal(0.5, 0.02, (40, 1))))
        held += bool(low[0] <= 0.5 <= high[0])
    assert 0.90 < held / 400 < 0.985


def test_one_estimate_has_no_limits():
    low, high = limits([np.array([0.4, 0.6])])
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()


def test_equal_estimates_have_narrow_limits_around_them():
    low, high = limits([np.array([0.4, 0.6])] * 5)
    assert (low <= [0.4, 0.6]).all()
    assert (high >= [0.4, 0.6]).all()
    assert (high - low < 1e-9).all()


def test_bounds_of_all_tensors_are_intersected_and_the_pivot_bounded_by_the_sum():
    low, high = pooled_bounds([box([0.1], [0.3], 0.1, 0.3), box([0.2], [0.4], 0.15, 0.25)])
    assert low.tolist() == pytest.approx([0.75, 0.2])
    assert high.tolist() == pytest.approx([0.85, 0.3])


@pytest.mark.parametrize("boxes", [[], [None], [box([0.1], [0.3]), None], [box([0.1], [0.2]), box([0.3], [0.4])]])
def test_no_common_bounds(boxes):
    assert pooled_bounds(boxes) is None


def test_pools_cover_every_tensor_once_in_order_of_appearance(merge):
    pools = pool(merge.tensors, by_layer, exact=True)
    assert sum(p.tensors for p in pools) == len(merge.tensors)
    assert sum(p.elements for p in pools) == sum(t.measurement.elements for t in merge.tensors)
    assert [p.layer for p in pools] == list(dict.fromkeys(by_layer(t)[0] for t in merge.tensors))


def test_replayed_recipe_is_the_estimate_and_its_certificates_the_limits(merge):
    for found in merge.layers:
        np.testing.assert_allclose(found.coefficients, [0, 0.565, 0.435], atol=1e-9)
        assert (found.low <= found.coefficients + 1e-9).all()
        assert (found.coefficients <= found.high + 1e-9).all()
        assert found.exact == found.elements
    blocks = [p for p in merge.layers if p.layer in {"0", "1", "2"}]
    assert len(blocks) == 3
    assert all(p.certified for p in blocks)
    assert all((p.high - p.low < 0.01).all() for p in blocks)


def test_without_a_recipe_the_median_fit_is_the_estimate(near_miss):
    for found in near_miss.layers:
        members = [t for t in near_miss.tensors if t.measurement.is_matrix and by_layer(t)[0] == found.layer]
        assert not found.certified
        np.testing.assert_allclose(found.coefficients, np.median([affine(t.fit.interval) for t in members], axis=0))
        assert found.exact < found.elements


def test_residuals_are_pooled_by_elements(merge):
    whole = pool(merge.tensors, lambda _: (None, None), exact=True)
    assert len(whole) == 1
    squares = sum(t.residual**2 * t.measurement.elements for t in merge.tensors)
    assert whole[0].residual == pytest.approx(np.sqrt(squares / whole[0].elements))
    assert whole[0].residual < 1.1 * whole[0].floor < whole[0].decoy_residual


def test_replays_of_disjoint_tensors_add(merge):
    total = sum_replays(t.replay for t in merge.tensors)
    assert total.total[0] == sum(t.measurement.elements for t in merge.tensors)
    assert total.steps.sum() == total.novel[0]
    assert sum_replays([]).total[0] == 0
