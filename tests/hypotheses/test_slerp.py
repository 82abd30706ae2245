"""Slerp against mergekit's own, in both branches, and back from the merged weights to t."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.tensors import BF16, DOWN, QUERY, UP, moments, sources

from reconstruct.hypotheses.slerp import LINEAR_BRANCH, Slerp, slerp_coefficients, slerp_interval
from reconstruct.statistics.rounding import TOLERANCES

TOLERANCE = TOLERANCES[0].constant


def pair(tensor, reach):
    """Two models, the second `reach` times as far from the first as training took it, both in bfloat16."""
    first, second = sources(tensor, "base", "ft-code")
    return torch.from_numpy(np.stack([first, first + reach * (second - first)])).bfloat16()


def by_mergekit(a, b, t, dtype=torch.float32, out_dtype=torch.float32):
    return merge_tensors([a, b], "slerp", parameters={"t": t}, base_index=0, dtype=dtype, out_dtype=out_dtype)


def measured(models, t, out_dtype=torch.bfloat16):
    """Suspect and sources, float32 [3, n]."""
    suspect = by_mergekit(*models, t, dtype=torch.bfloat16 if out_dtype is torch.bfloat16 else torch.float32,
                          out_dtype=out_dtype)  # fmt: skip
    return torch.cat([suspect[None].float(), models.float()]).numpy()


@pytest.mark.parametrize("reach", [0.5, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 0.85, 1.0])
def test_coefficients_are_those_of_mergekit_in_both_branches(reach, t):
    models = pair(UP, reach)
    a, b = models.float()
    cosine = moments(torch.stack([a, a, b]).numpy()).cosine(0, 1)
    assert (abs(cosine) > LINEAR_BRANCH) is (reach <= 1.0)
    c0, c1 = slerp_coefficients(t, cosine)
    expected = by_mergekit(*models, t)
    assert (c0 * a + c1 * b - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_branches_differ_where_slerp_bends():
    c0, c1 = slerp_coefficients(0.5, 0.9)
    assert c0 == pytest.approx(c1)
    assert c0 + c1 > 1.02
    assert slerp_coefficients(0.3, 0.9996) == (0.7, 0.3)


@pytest.mark.parametrize("tensor", [QUERY, UP, DOWN])
@pytest.mark.parametrize("reach", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("t", [0.1, 0.35, 0.8])
def test_t_is_recovered_from_rounded_weights(tensor, reach, t):
    found = moments(measured(pair(tensor, reach), t))
    fit = Slerp().fit(found, ("a", "b"))
    assert fit.parameters["t"] == pytest.approx(t, abs=0.02 / reach)
    assert fit.residual < 1.2 * fit.floor
    assert bool(fit.notes) is (reach == 1.0)


def test_pair_is_chosen_by_position():
    base, code, docs = torch.from_numpy(sources(DOWN, "base", "ft-code", "ft-docs")).bfloat16()
    suspect = by_mergekit(docs, code, 0.3, torch.bfloat16, torch.bfloat16)
    found = moments(torch.stack([suspect, base, code, docs]).float().numpy())
    fit = Slerp(2, 1).fit(found, ("base", "ft-code", "ft-docs"))
    assert fit.parameters["t"] == pytest.approx(0.3, abs=0.02)
    assert fit.coefficients[0] == 0
    assert Slerp(0, 3).fit(found, ("base", "ft-code", "ft-docs")) is None


@pytest.mark.parametrize("tensor", [QUERY, UP, DOWN])
@pytest.mark.parametrize("t", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("offset", [-0.02, 0.02])
def test_certified_interval_holds_t_from_a_poor_start(tensor, t, offset):
    values = measured(pair(tensor, 20.0), t)
    cosine = moments(values).cosine(0, 1)
    low, high = slerp_interval(values, BF16.spacing(values[0]), cosine, t + offset, TOLERANCE)
    assert low - 1e-7 <= t <= high + 1e-7
    assert high - low < 1e-3


def test_elements_that_cancel_do_not_spoil_the_interval():
    values = measured(pair(UP, 20.0), 0.5)
    assert (values[0] == 0).any()
    low, high = slerp_interval(values, BF16.spacing(values[0]), moments(values).cosine(0, 1), 0.49, TOLERANCE)
    assert 1e-8 < high - low < 1e-3


@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_no_interval_for_weights_that_are_no_slerp(suspect):
    values = sources(UP, suspect, "ft-docs", "ft-code")
    cosine = moments(values).cosine(0, 1)
    assert cosine < LINEAR_BRANCH
    start = Slerp().fit(moments(values), ("a", "b")).parameters["t"]
    assert slerp_interval(values, BF16.spacing(values[0]), cosine, start, TOLERANCE) is None


def test_no_interval_between_equal_models():
    values = np.stack([sources(UP, "base")[0]] * 3)
    assert slerp_interval(values, BF16.spacing(values[0]), 1.0, 0.5, TOLERANCE) is None
