"""Every model in the suspect's place: only the child replays from the others."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import CODE, DOCS, dataset, trained_further
from support.family import blend, load, save

from reconstruct.evidence import SUSPECT
from reconstruct.replay.orientation import material, orientations, pools, starting_points

TRUTH = np.array([0.0, 0.565, 0.435])


def turned(data, coefficients, **how):
    return orientations(data, [coefficients] * len(data.measurements), **how)


@pytest.fixture(scope="module")
def true_child(blend_folder):
    return dataset(blend_folder, [CODE, DOCS])


@pytest.fixture(scope="module")
def reversed_parent(blend_folder):
    return dataset(CODE, [blend_folder, DOCS])


def test_true_child_replays_and_its_parents_do_not(true_child):
    own, *others = turned(true_child, TRUTH, exact=True, search=False)
    assert own.target == SUSPECT
    assert own.exact > 0.9999  # a sum in float64 stands for every program's own
    assert own.suspect_share == 0.0
    assert {o.target for o in others} == {str(CODE), str(DOCS)}
    assert all(o.exact < 0.8 for o in others)


def test_solved_equation_of_a_parent_has_the_suspect_among_its_sources(true_child):
    code = next(o for o in turned(true_child, TRUTH, exact=True, search=False) if o.target == str(CODE))
    assert code.suspect_share == pytest.approx(1 / 0.565)
    assert code.coefficients[str(DOCS)] == pytest.approx(-0.435 / 0.565)


def test_all_orientations_of_a_merge_lie_in_the_rounding_box(true_child):
    assert all(o.box > 0.99 for o in turned(true_child, TRUTH, exact=True, search=False))


def test_search_finds_that_the_candidate_is_the_product(reversed_parent):
    start = starting_points(reversed_parent)[0]
    coefficients = np.concatenate([[1 - start.sum()], start])
    assert coefficients[1] == pytest.approx(1 / 0.565, abs=0.02)
    own, *others = turned(reversed_parent, coefficients, exact=False, search=True)
    child = max(others, key=lambda o: o.exact)
    assert child.target == reversed_parent.sources.names[1]
    assert child.exact >= 0.9999
    assert child.suspect_share == pytest.approx(0.565, abs=1e-6)
    assert own.exact < 0.8


def test_modified_merge_has_the_larger_spike_in_its_own_orientation(tmp_path):
    tensors = trained_further(blend((0.565, 0.435), [load("ft-code"), load("ft-docs")]), rate=0.05, share=0.6)
    data = dataset(save(tmp_path / "s", tensors), [CODE, DOCS])
    own, *others = turned(data, TRUTH, exact=False, search=True)
    assert own.target == SUSPECT
    assert own.spike.untouched > 2 * max(o.spike.untouched for o in others)
    assert own.coefficients[str(CODE)] == pytest.approx(0.565, abs=0.003)
    assert own.box < 0.99


def test_nothing_is_turned_unless_asked(true_child):
    assert turned(true_child, TRUTH, exact=False, search=False) == ()


def test_one_source_alone_cannot_be_turned(blend_folder):
    data = dataset(blend_folder, [CODE], base=None)
    assert turned(data, np.ones(1), exact=True, search=True) == ()


def test_material_sources_have_weights_that_matter():
    assert material(np.array([0.0, 0.565, -0.435, 0.01])) == [1, 2]
    assert material(np.array([0.0, 0.01]), threshold=0.005) == [1]


def test_pools_hold_the_samples_of_voting_tensors_on_lattices_without_gaps(true_child):
    whole = pools(true_child, true_child.voting)
    assert len(whole) == 1
    smooth = [true_child.measurements[i] for i in true_child.voting if true_child.measurements[i].smooth_lattice]
    assert len(smooth) >= 20
    assert whole[0].values.shape[1] == sum(m.values.shape[1] for m in smooth)


def test_decoy_pools_keep_suspect_and_pivot_and_move_the_deltas(true_child):
    whole, decoy = pools(true_child, true_child.voting)[0], pools(true_child, true_child.voting, decoy=3)[0]
    np.testing.assert_array_equal(decoy.values[:2], whole.values[:2])
    assert (decoy.values[2:] != whole.values[2:]).mean() > 0.9
    other = pools(true_child, true_child.voting, decoy=4)[0]
    assert (decoy.values[2:] != other.values[2:]).mean() > 0.5


def test_starting_points_are_one_a_fit(true_child):
    points = starting_points(true_child)
    assert len(points) == 3
    np.testing.assert_allclose(points[0], [0.565, 0.435], atol=1e-3)
