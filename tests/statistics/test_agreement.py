"""Cochran's Q and what goes with it."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct.statistics.agreement import agreement


def test_estimates_of_one_number_agree_as_often_as_they_should():
    random = np.random.default_rng(0)
    found = [agreement(0.565 + errors * random.normal(size=20), errors)
             for errors in random.uniform(0.001, 0.01, (400, 20))]  # fmt: skip
    p = np.array([f.p for f in found])
    assert 0.02 < (p < 0.05).mean() < 0.09
    assert 0.4 < np.median(p) < 0.6
    assert np.mean([f.q for f in found]) == pytest.approx(19, abs=1)


def test_pooled_estimate_is_weighted_by_precision():
    found = agreement(np.array([0.5, 0.6]), np.array([0.01, 0.02]))
    assert found.pooled == pytest.approx((0.5 / 1e-4 + 0.6 / 4e-4) / (1 / 1e-4 + 1 / 4e-4))
    assert found.q == pytest.approx(0.02**2 / 1e-4 + 0.08**2 / 4e-4)
    assert found.i_squared == pytest.approx(1 - 1 / found.q)
    assert found.spread == pytest.approx(0.1 / np.sqrt(2))
    assert found.median_error == pytest.approx(0.015)


def test_gradient_over_layers_disagrees():
    found = agreement(np.linspace(0.2, 0.8, 24), np.full(24, 0.002))
    assert found.p < 1e-12
    assert found.i_squared > 0.99


def test_estimates_without_a_finite_error_take_no_part():
    found = agreement(np.array([0.5, 9.0, np.nan, 0.52, 7.0]), np.array([0.01, np.inf, 0.01, 0.01, 0.0]))
    assert found.count == 2
    assert found.pooled == pytest.approx(0.51)


def test_one_estimate_agrees_with_itself():
    found = agreement(np.array([0.5]), np.array([0.01]))
    assert (found.count, found.pooled, found.q, found.p) == (1, 0.5, 0.0, 1.0)


def test_no_estimate_gives_no_number():
    found = agreement(np.array([np.nan]), np.array([np.nan]))
    assert found.count == 0
    assert np.isnan(found.pooled)
    assert found.p == 1.0


def test_equal_estimates_have_nothing_beyond_error():
    found = agreement(np.full(5, 0.3), np.full(5, 0.01))
    assert found.q == 0
    assert found.i_squared == 0
