"""The search for the coefficients at which most elements sit exactly."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import CODE, DOCS, dataset, trained_further
from support.family import CODE_HALF, blend, load, save
from support.tensors import BF16, UP, merge, sources

from reconstruct.kernels.select import select
from reconstruct.replay.consensus import Pool, search_consensus, thin
from reconstruct.replay.orientation import pools, starting_points

KERNELS = select()


@pytest.fixture(scope="module")
def modified(tmp_path_factory):
    """.565 ft-code + .435 ft-docs, then six tenths of the weights moved."""
    tensors = trained_further(blend((0.565, 0.435), [load("ft-code"), load("ft-docs")]), rate=0.05, share=0.6)
    return dataset(save(tmp_path_factory.mktemp("modified") / "model", tensors), [CODE, DOCS])


@pytest.fixture(scope="module")
def found(modified):
    return search_consensus(pools(modified, modified.voting), starting_points(modified), KERNELS)


def test_coefficients_come_out_although_most_weights_were_moved(found):
    assert found.weights.tolist() == [0.565, 0.435]
    assert 0.3 < found.spike.untouched < 0.5
    assert found.spike.z > 50


def test_replay_covers_all_samples_not_only_those_searched(modified, found):
    assert found.replay.total[0] == sum(p.values.shape[1] for p in pools(modified, modified.voting))


def test_search_finds_its_way_from_a_distance(modified):
    moved = [point + np.array([0.05, -0.06]) for point in starting_points(modified)]
    result = search_consensus(pools(modified, modified.voting), moved, KERNELS)
    np.testing.assert_allclose(result.weights, [0.565, 0.435], atol=0.002)


def test_threads_change_nothing(modified, found):
    result = search_consensus(pools(modified, modified.voting), starting_points(modified), KERNELS, threads=2)
    assert result.weights.tolist() == found.weights.tolist()
    assert result.spike == found.spike


def test_deltas_in_wrong_places_leave_nothing_to_find(modified, found):
    decoys = pools(modified, modified.voting, decoy=1)
    result = search_consensus(decoys, starting_points(modified), KERNELS)
    assert result.spike.z < 8 < found.spike.z / 4


def test_earlier_checkpoint_leaves_nothing_to_find():
    data = dataset(CODE_HALF, [CODE, DOCS])
    assert search_consensus(pools(data, data.voting), starting_points(data), KERNELS).spike.z < 8


def test_three_sources_are_searched_along_lines():
    truth = np.array([0.5, 0.2, 0.3])
    models = sources(UP, "base", "ft-code", "ft-docs", "ft-code-seed2")
    pool = Pool(merge(models, (0.0, *truth)), BF16)
    result = search_consensus([pool], [truth + np.array([0.01, 0.0, -0.01])], KERNELS)
    np.testing.assert_allclose(result.weights, truth, atol=0.003)


def test_nothing_to_search_in():
    assert search_consensus([], [np.zeros(1)], KERNELS) is None
    assert search_consensus([Pool(np.empty((3, 0), np.float32), BF16)], [np.zeros(1)], KERNELS) is None
    pool = Pool(merge(sources(UP, "base", "ft-code"), (0.4, 0.6)), BF16)
    assert search_consensus([pool], [np.array([np.nan])], KERNELS) is None


def test_thinning_is_even_over_pools():
    values = np.zeros((3, 1000), np.float32)
    thinned = thin([Pool(values, BF16), Pool(values[:, :500], BF16)], 300)
    assert [p.values.shape[1] for p in thinned] == [200, 100]
    assert thin([Pool(values, BF16)], 5000)[0].values.shape == values.shape
    assert Pool(values, BF16).sources == 2
