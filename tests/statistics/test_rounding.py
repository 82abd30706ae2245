"""Interval fit and certificate against the full linear programmes, on trained weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from support.tensors import BF16, DOWN, QUERY, UP, informative, lighter, merge, rounded, sources

from reconstruct.fitting import best_certificate
from reconstruct.kernels.lattice import Lattice
from reconstruct.statistics.rounding import TOLERANCES, Box, Rows, certify, interval_fit, rows_of

F32 = Lattice.of_dtype("F32")


def family(tensor):
    return sources(tensor, "base", "ft-code", "ft-docs")


def rows(values, limit=1200):
    return rows_of(informative(values), BF16).thinned(limit)


def violation(r, w, epsilon=0.5):
    return float(np.maximum(np.abs(r.X @ w - r.Y) - epsilon, 0).sum())


def least_violation(r, epsilon=0.5):
    """min sum v  subject to  |X w - Y| - v <= epsilon, v >= 0, in one programme."""
    n, k = r.X.shape
    eye = -np.eye(n)
    solution = linprog(
        np.r_[np.zeros(k), np.ones(n)], A_ub=np.block([[r.X, eye], [-r.X, eye]]),
        b_ub=np.r_[epsilon + r.Y, epsilon - r.Y], bounds=[(None, None)] * k + [(0, None)] * n, method="highs",
    )  # fmt: skip
    assert solution.status == 0
    return float(solution.fun)


def full_bounds(r, tolerance):
    """Bounds of every coefficient and of their sum with all rows in one programme; None if infeasible."""
    epsilon, k = r.epsilon(tolerance), r.X.shape[1]
    found = []
    for direction in [*np.eye(k), np.ones(k)]:
        for sign in (1, -1):
            solution = linprog(
                sign * direction, A_ub=np.r_[r.X, -r.X], b_ub=np.r_[epsilon + r.Y, epsilon - r.Y],
                bounds=(None, None), method="highs",
            )  # fmt: skip
            if solution.status == 2:
                return None
            found.append(sign * solution.fun)
    return np.array(found).reshape(k + 1, 2)


@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2", "noisy merge"])
def test_interval_fit_reaches_the_optimum_of_the_linear_programme(suspect):
    values = merge(family(UP), (0.2, 0.5, 0.3))
    if suspect == "noisy merge":
        noise = np.random.default_rng(0).normal(size=values.shape[1]) * 5e-4
        values = np.concatenate([rounded(values[0] + noise)[None], values[1:]])
    else:
        values = np.concatenate([sources(UP, suspect), values[1:]])
    r = rows(values, 600)
    optimum = least_violation(r)
    assert optimum > 100
    assert violation(r, interval_fit(r, np.zeros(2))) <= optimum * (1 + 1e-4)


@pytest.mark.parametrize("start", [(0.0, 0.0), (5.0, -3.0), (0.6, 0.4)])
def test_interval_fit_needs_no_good_start(start):
    r = rows(merge(family(QUERY), (0.0, 0.6, 0.4)))
    w = interval_fit(r, np.array(start))
    assert violation(r, w) < 0.1
    np.testing.assert_allclose(w, [0.6, 0.4], atol=0.01)


def test_interval_fit_tolerates_outliers():
    values = informative(merge(family(UP), (0.0, 0.6, 0.4)))
    hit = np.random.default_rng(0).random(values.shape[1]) < 0.1
    values[0, hit] = values[1, hit]
    r = rows_of(values, BF16)
    np.testing.assert_allclose(interval_fit(r, np.zeros(2)), [0.6, 0.4], atol=0.005)
    assert np.abs(np.linalg.lstsq(r.X, r.Y, rcond=None)[0] - [0.6, 0.4]).max() > 0.02


def test_interval_fit_is_right_where_least_squares_reads_far_off():
    values = informative(merge(lighter(family(UP), 0.05), (0.0, 0.6, 0.4)))
    r = rows_of(values, BF16)
    moved = values[2:].astype(np.float64) - values[1]
    squares = np.linalg.lstsq(moved.T, values[0].astype(np.float64) - values[1], rcond=None)[0]
    assert abs(squares[0] - 0.6) > 0.05
    np.testing.assert_allclose(interval_fit(r, squares), [0.6, 0.4], atol=0.01)


def test_interval_fit_of_exactly_collinear_deltas_says_so_or_fits():
    base, code = sources(UP, "base", "ft-code")
    r = rows(merge(np.stack([base, code, code]), (0.4, 0.6, 0.0)))
    try:
        w = interval_fit(r, np.zeros(2))
    except np.linalg.LinAlgError:
        return
    assert w.sum() == pytest.approx(0.6, abs=0.01)


def test_truth_lies_in_every_certificate():
    random = np.random.default_rng(7)
    for tensor, repetition in itertools.product((QUERY, DOWN), range(15)):
        truth = random.uniform(-0.2, 1.2, 2)
        models = lighter(family(tensor), random.choice([0.2, 1.0]))
        r = rows(merge(models, (1 - truth.sum(), *truth)), 4000)
        box = certify(r, 0, interval_fit(r, np.zeros(2)))
        assert box is not None, repetition
        assert (box.low - 1e-7 <= truth).all()
        assert (truth <= box.high + 1e-7).all()
        assert box.low_sum - 1e-7 <= truth.sum() <= box.high_sum + 1e-7


@pytest.mark.parametrize("tolerance", [0, 1])
@pytest.mark.parametrize("tensor", [QUERY, UP])
def test_bounds_are_those_of_the_full_linear_programme(tensor, tolerance):
    r = rows(merge(family(tensor), (0.1, 0.6, 0.3)), 3000)
    box = certify(r, tolerance, np.array([0.6, 0.3]))
    expected = full_bounds(r, tolerance)
    found = np.column_stack([np.r_[box.low, box.low_sum], np.r_[box.high, box.high_sum]])
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert (box.high - box.low > 1e-5).all()


@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_no_certificate_where_the_programme_is_infeasible(suspect):
    r = rows(np.concatenate([sources(UP, suspect), family(UP)]))
    start = interval_fit(r, np.zeros(2))
    for tolerance in range(len(TOLERANCES)):
        assert full_bounds(r, tolerance) is None
        assert certify(r, tolerance, start) is None
    assert best_certificate(r, start) is None


def test_no_rows_no_certificate():
    empty = Rows(np.empty((0, 2)), np.empty(0), 0.0, np.empty(0))
    assert certify(empty, 0, np.zeros(2)) is None
    assert empty.violation(np.zeros(2), 0) == 0


@pytest.mark.parametrize("truth", [(0.565, 0.435), (1 / 3, 0.1)])
def test_float32_weights_are_certified_to_float32_precision(truth):
    models = family(UP)
    suspect = (np.float32(1 - sum(truth)) * models[0] + np.float32(truth[0]) * models[1]
               + np.float32(truth[1]) * models[2])  # fmt: skip
    r = rows_of(informative(np.concatenate([suspect[None], models])), F32)
    box = certify(r, 0, interval_fit(r, np.zeros(2)))
    assert (box.low - box.margin <= truth).all()
    assert (truth <= box.high + box.margin).all()
    assert (box.high - box.low).max() < 2e-6


def test_coefficient_that_moves_nothing_is_unbounded():
    base, code = sources(UP, "base", "ft-code")
    r = rows(merge(np.stack([base, code, base]), (0.4, 0.6, 0.0)))
    box = certify(r, 0, np.array([0.6, 0.0]))
    assert box.low[0] <= 0.6 <= box.high[0]
    assert box.high[0] - box.low[0] < 0.01
    assert box.low[1] < -1e3
    assert box.high[1] > 1e3


def test_an_unbounded_coefficient_does_not_loosen_the_others():
    base, code = sources(UP, "base", "ft-code")
    still = np.stack([base, code, base])  # the second parent moves in none of the elements
    first, second = (certify(rows(merge(still, (1 - w, w, 0.0))), 0, np.array([w, 0.0])) for w in (0.3, 0.6))
    assert first.margin < 1e-5
    assert first.intersect(second).empty


def test_collinear_coefficients_are_bounded_only_in_their_sum():
    base, code = sources(UP, "base", "ft-code")
    r = rows(merge(np.stack([base, code, code]), (0.4, 0.6, 0.0)))
    box = certify(r, 0, np.array([0.3, 0.3]))
    assert (box.high - box.low > 100).all()
    assert box.low_sum - 1e-4 <= 0.6 <= box.high_sum + 1e-4
    assert box.high_sum - box.low_sum < 0.01


def bfloat16_task(models, weights):
    x = torch.from_numpy(models).bfloat16()
    moved = ((x[1:] - x[0]) * torch.tensor(weights, dtype=torch.bfloat16)[:, None]).sum(dim=0)
    return (x[0] + moved).float().numpy()


def bfloat16_sum(models, weights):
    x = torch.from_numpy(models).bfloat16() * torch.tensor(weights, dtype=torch.bfloat16)[:, None]
    return x.sum(dim=0).float().numpy()


@pytest.mark.parametrize(("compute", "expected"), [(bfloat16_task, 1), (bfloat16_sum, 2)])
def test_coarser_arithmetic_needs_its_tolerance_and_then_holds_the_rounded_weights(compute, expected):
    weights = (0.0, 0.3, 0.7) if compute is bfloat16_sum else (0.3, 0.7)
    models = family(UP)
    r = rows(np.concatenate([compute(models, weights)[None], models]), 4000)
    box = best_certificate(r, interval_fit(r, np.zeros(2)))
    assert box.tolerance == expected
    used = rounded(np.array(weights[-2:]))
    assert (box.low <= used).all()
    assert (used <= box.high).all()


def test_intersection_of_bounds_may_be_empty():
    low = Box(np.array([0.2]), np.array([0.3]), 0.2, 0.3, 0)
    high = Box(np.array([0.25]), np.array([0.4]), 0.25, 0.4, 1)
    both = low.intersect(high)
    assert (both.low[0], both.high[0], both.tolerance) == (0.25, 0.3, 1)
    assert not both.empty
    assert both.middle[0] == pytest.approx(0.275)
    assert both.intersect(Box(np.array([0.5]), np.array([0.6]), 0.5, 0.6, 0)).empty
