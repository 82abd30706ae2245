"""Linear merges: weights of every source from moments."""

from __future__ import annotations

import numpy as np
import pytest
from support.tensors import DOWN, QUERY, UP, merge, moments, sources

from reconstruct.hypotheses.base import misfit
from reconstruct.hypotheses.linear import Linear

NAMES = ("base", "ft-code", "ft-docs")


@pytest.mark.parametrize("tensor", [QUERY, UP, DOWN])
@pytest.mark.parametrize("truth", [(0.0, 0.565, 0.435), (0.4, 0.6, 0.0), (0.2, 0.5, 0.3), (-0.5, 0.7, 0.8)])
def test_weights_of_all_sources_are_found(tensor, truth):
    fit = Linear().fit(moments(merge(sources(tensor, *NAMES), truth)), NAMES)
    np.testing.assert_allclose(fit.coefficients, truth, atol=0.02)
    assert list(fit.parameters) == list(NAMES)
    np.testing.assert_allclose(list(fit.parameters.values()), fit.coefficients)
    assert list(fit.standard_errors) == ["ft-code", "ft-docs"]
    assert fit.notes == ()


def test_residual_of_a_merge_is_about_the_rounding_floor():
    fit = Linear().fit(moments(merge(sources(UP, *NAMES), (0.2, 0.5, 0.3))), NAMES)
    assert fit.residual == pytest.approx(fit.floor, rel=0.1)
    unrelated = Linear().fit(moments(sources(UP, "ft-code-seed2", *NAMES)), NAMES)
    assert unrelated.residual > 10 * unrelated.floor


def test_collinear_deltas_are_noted():
    base, code = sources(UP, "base", "ft-code")
    fit = Linear().fit(moments(merge(np.stack([base, code, code]), (0.4, 0.6, 0))), NAMES)
    assert "collinear" in fit.notes[0]


@pytest.mark.parametrize("coefficients", [(0.2, 0.5, 0.3), (0.7, 0.1, 0.1), (0.0, 1.1, 0.4)])
def test_misfit_is_the_mean_squared_residual_whatever_the_sum(coefficients):
    values = merge(sources(DOWN, *NAMES), (0.2, 0.5, 0.3)).astype(np.float64)
    direct = ((values[0] - np.array(coefficients) @ values[1:]) ** 2).mean()
    assert misfit(moments(values.astype(np.float32)), np.array(coefficients)) == pytest.approx(direct, rel=1e-6)
