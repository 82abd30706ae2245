"""The Karcher mean against mergekit's own: a prediction with nothing to fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.family import load
from support.tensors import DOWN, QUERY, UP, merge, moments, sources

from reconstruct.hypotheses.karcher import Karcher, karcher_weights

NAMES = ("ft-code", "ft-docs", "ft-code-seed2")
#: dtype of the arithmetic, of the result, and how far the coefficients may leave the largest element.
MODES = {
    "float32": (torch.float32, torch.float32, 2e-6),
    "float32, saved in bfloat16": (torch.float32, torch.bfloat16, 2.0**-8),
    "bfloat16": (torch.bfloat16, torch.bfloat16, 3e-2),
}
LINEAR = "indistinguishable from linear: they differ by less than the rounding"
MULTISLERP = "indistinguishable from multislerp with equal weights"


def models(tensor, reach, names=NAMES):
    """Fine-tunes, `reach` times as far from the base as training took them, bfloat16 [models, ...]."""
    base = load("base")[tensor].float()
    return torch.stack([base + reach * (load(name)[tensor].float() - base) for name in names]).bfloat16()


def by_mergekit(tensors, mode="float32", **parameters):
    dtype, out_dtype, _ = MODES[mode]
    return merge_tensors(list(tensors), "karcher", parameters=parameters, dtype=dtype, out_dtype=out_dtype)


def measured(suspect, tensors):
    return moments(torch.stack([suspect.float(), *tensors.float()]).flatten(1).numpy())


def combined(coefficients, tensors):
    return np.tensordot(coefficients, tensors.double().numpy(), 1)


@pytest.mark.parametrize("tensor", [QUERY, UP, DOWN])
@pytest.mark.parametrize("reach", [1.0, 5.0, 30.0, 200.0])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_coefficients_are_those_of_mergekit(tensor, reach, size, mode):
    tensors = models(tensor, reach)[:size]
    suspect = by_mergekit(tensors, mode)
    found = measured(suspect, tensors)
    error = np.abs(combined(Karcher().coefficients(found), tensors) - suspect.double().numpy()).max()
    assert error <= MODES[mode][2] * suspect.abs().max()
    fit = Karcher().fit(found, NAMES[:size])
    if mode != "bfloat16":  # whose cosines step by 2^-8 near one: a source is then left out of a step or not
        assert fit.residual < (1e-5 if mode == "float32" else 1.35) * fit.floor
    assert (LINEAR in fit.notes) is (reach == 1)
    if mode == "float32, saved in bfloat16" and reach >= 30:
        assert fit.parameters["standard errors away"] < 6


@pytest.mark.parametrize("iterations", [1, 2])
def test_iterations_that_stop_early_leave_another_mean(iterations):
    tensors = models(UP, 200.0) * torch.tensor([1.0, 1.0, -1.0])[:, None, None]
    suspect = by_mergekit(tensors, max_iter=iterations)
    raw = tensors.double().flatten(1).numpy()
    early, late = karcher_weights(raw @ raw.T, iterations), karcher_weights(raw @ raw.T)
    np.testing.assert_allclose(combined(early, tensors), suspect, atol=2e-6 * float(suspect.abs().max()))
    assert np.abs(early - late).max() > 1e-5


def test_three_bent_directions_differ_from_multislerp():
    for reach, same in ((1.0, True), (5.0, True), (200.0, False)):
        tensors = models(UP, reach) * torch.tensor([1.0, 2.0, 1.0])[:, None, None]
        fit = Karcher().fit(measured(by_mergekit(tensors), tensors), NAMES)
        assert (MULTISLERP in fit.notes) is same
    pair = models(UP, 200.0)[:2]
    assert MULTISLERP in Karcher().fit(measured(by_mergekit(pair), pair), NAMES[:2]).notes


def test_members_may_leave_the_base_out():
    base, tensors = load("base")[UP], models(UP, 5.0)[:2]
    found = measured(by_mergekit(tensors, "float32, saved in bfloat16"), torch.stack([base, *tensors]))
    names = ("base", *NAMES[:2])
    fit, of_all = Karcher((1, 2)).fit(found, names), Karcher().fit(found, names)
    assert fit.coefficients[0] == 0
    assert fit.residual < 1.2 * fit.floor
    assert of_all.residual > 20 * of_all.floor
    assert of_all.parameters["standard errors away"] > 100


@pytest.mark.parametrize("reach", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("weights", [(0.565, 0.435), (0.5, 0.5), (0.7, 0.3)])
def test_linear_merges_are_not_claimed(reach, weights):
    values = merge(models(UP, reach)[:2].float().flatten(1).numpy(), weights)
    fit = Karcher().fit(moments(values), NAMES[:2])
    assert fit.residual > 5 * fit.floor or LINEAR in fit.notes
    assert (LINEAR in fit.notes) is (reach == 1)


@pytest.mark.parametrize("suspect", ["ft-code-half", "base"])
def test_fine_tunes_are_not_claimed(suspect):
    fit = Karcher().fit(moments(sources(UP, suspect, *NAMES)), NAMES)
    assert fit.residual > 20 * fit.floor
    assert fit.parameters["standard errors away"] > 5


def test_equal_zero_and_lone_parents():
    base, code = sources(UP, "base", "ft-code")
    fit = Karcher().fit(moments(np.stack([code, base, base])), NAMES[:2])
    assert LINEAR in fit.notes
    np.testing.assert_allclose(fit.coefficients, 0.5)
    zero = Karcher().fit(moments(np.stack([code, base, 0 * base])), NAMES[:2])
    np.testing.assert_allclose(zero.coefficients, [0.5, 0])
    nothing = Karcher().fit(moments(np.zeros((3, 64), np.float32)), NAMES[:2])
    assert np.isfinite([nothing.residual, *nothing.coefficients, *nothing.parameters.values()]).all()
    assert Karcher().fit(moments(np.stack([code, base])), NAMES[:1]) is None
    assert Karcher().fit(moments(np.stack([base, code, -code])), NAMES[:2]) is None
