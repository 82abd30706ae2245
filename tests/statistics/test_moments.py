"""Least squares from moments alone, and moments of other roles, against direct computation on trained weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tensors import DOWN, QUERY, UP, merge, moments, sources

from reconstruct.statistics.moments import COLLINEAR, least_squares

FAMILY = ("base", "ft-code", "ft-docs")


def deltas(values):
    exact = values.astype(np.float64)
    return (exact[2:] - exact[1]).T, exact[0] - exact[1]


@pytest.fixture(scope="module", params=[QUERY, UP, DOWN])
def values(request):
    return merge(sources(request.param, *FAMILY), (0.2, 0.5, 0.3))


def test_weights_are_those_of_numpy(values):
    fit = least_squares(moments(values).gram, values.shape[1])
    X, y = deltas(values)
    expected, residual, _, _ = np.linalg.lstsq(X, y, rcond=None)
    np.testing.assert_allclose(fit.weights, expected, rtol=1e-8)
    assert fit.residual == pytest.approx(residual[0], rel=1e-6)
    assert fit.explained == pytest.approx(1 - residual[0] / (y @ y), rel=1e-9)


def test_standard_errors_are_the_textbook_ones(values):
    fit = least_squares(moments(values).gram, values.shape[1])
    X, y = deltas(values)
    left = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    covariance = (left @ left) / (len(y) - 2) * np.linalg.inv(X.T @ X)
    np.testing.assert_allclose(fit.standard_errors, np.sqrt(np.diag(covariance)), rtol=1e-6)


def test_fit_with_sum_one_is_the_constrained_optimum(values):
    fit = least_squares(moments(values).gram, values.shape[1])
    X, y = deltas(values)
    weight = (X[:, 0] - X[:, 1]) @ (y - X[:, 1]) / ((X[:, 0] - X[:, 1]) ** 2).sum()
    np.testing.assert_allclose(fit.sum_to_one, [weight, 1 - weight], rtol=1e-7)


def test_condition_number_is_that_of_the_correlations(values):
    X, _ = deltas(values)
    fit = least_squares(moments(values).gram, values.shape[1])
    assert fit.condition == pytest.approx(np.linalg.cond(X / np.linalg.norm(X, axis=0)) ** 2, rel=1e-6)
    assert not fit.collinear


def test_collinear_deltas_are_said_to_be_so():
    base, code = sources(UP, "base", "ft-code")
    twice = base + 2 * (code - base)
    fit = least_squares(moments(merge(np.stack([base, code, twice]), (0.4, 0.6, 0))).gram, len(base))
    assert fit.condition > COLLINEAR
    assert fit.collinear
    assert fit.weights @ [1, 2] == pytest.approx(0.6, abs=0.02)


def test_source_that_equals_the_pivot_gets_weight_zero_and_no_error():
    base, code = sources(UP, "base", "ft-code")
    fit = least_squares(moments(merge(np.stack([base, base, code]), (0.4, 0, 0.6))).gram, len(base))
    assert fit.weights[0] == 0
    assert np.isinf(fit.standard_errors[0])
    assert fit.weights[1] == pytest.approx(0.6, abs=0.02)


def test_nothing_moved_at_all():
    base = sources(UP, "base")[0]
    fit = least_squares(moments(np.stack([base, base, base])).gram, len(base))
    assert fit.weights.tolist() == [0]
    assert fit.explained == 0
    assert fit.collinear


@pytest.mark.parametrize("roles", [(1, 0, 2, 3), (2, 1, 0, 3), (3, 2, 0), (0, 2, 1), (2, 3, 1, 0)])
def test_exchanged_roles_equal_moments_computed_in_these_roles(values, roles):
    turned = moments(values).with_roles(roles)
    direct = moments(values[list(roles)])
    scale = np.sqrt(np.outer(np.diag(direct.gram), np.diag(direct.gram)))
    assert (np.abs(turned.gram - direct.gram) <= 1e-9 * scale).all()
    assert (np.abs(turned.blocks[0] - direct.gram) <= 1e-9 * scale).all()
    np.testing.assert_allclose(
        least_squares(turned.gram, turned.count).weights, least_squares(direct.gram, direct.count).weights, rtol=1e-6
    )


def test_dropping_a_source_keeps_the_counts_of_the_others(values):
    dropped = moments(values).with_roles((0, 1, 3))
    assert dropped.parents == 1
    np.testing.assert_array_equal(dropped.identical, moments(values[[0, 1, 3]]).identical)
    assert dropped.rounding_energy == moments(values).rounding_energy


def test_moments_of_disjoint_parts_add_up_to_those_of_the_whole(values):
    whole = moments(values)
    cut = values.shape[1] // 3
    parts = moments(values[:, :cut]) + moments(values[:, cut:])
    assert parts.count == whole.count
    np.testing.assert_allclose(parts.gram, whole.gram, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(parts.identical, whole.identical)
    np.testing.assert_allclose(parts.blocks.sum(axis=0), whole.gram, rtol=1e-12, atol=1e-15)
    assert parts.rounding_energy == pytest.approx(whole.rounding_energy, rel=1e-12)


def test_cosines_of_the_raw_tensors_are_those_of_torch(values):
    found = moments(values)
    raw = torch.from_numpy(values[1:]).double()
    for i in range(3):
        for j in range(3):
            expected = torch.nn.functional.cosine_similarity(raw[i], raw[j], dim=0).item()
            assert found.cosine(i, j) == pytest.approx(expected, abs=1e-12)


def test_cosine_with_nothing_counts_as_one():
    base = sources(UP, "base")[0]
    assert moments(np.stack([base, base, np.zeros_like(base)])).cosine(0, 1) == 1.0


def test_an_angle_that_is_known_better_is_used_and_follows_its_sources(values):
    plain = moments(values)
    known = replace(plain, angles={(0, 2): 0.25})
    assert known.cosine(0, 2) == known.cosine(2, 0) == 0.25
    assert known.cosine(0, 1) == plain.cosine(0, 1)
    assert known.with_roles((0, 3, 1, 2)).cosine(0, 1) == 0.25
    assert known.with_roles((0, 1, 2)).angles == {}
    assert known.with_roles((1, 0, 2, 3)).angles == {}  # the suspect is no source of itself
