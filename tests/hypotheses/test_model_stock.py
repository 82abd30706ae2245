"""Model Stock against mergekit's own, by tensor and by row: a prediction with nothing to fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.family import load
from support.tensors import DOWN, QUERY, UP, merge, moments, sources

from reconstruct.hypotheses.model_stock import ModelStock, model_stock_coefficients

NAMES = ("base", "ft-code", "ft-docs", "ft-code-half")
#: dtype of the arithmetic, of the result, and how far the coefficients may leave the largest element.
MODES = {
    "float32": (torch.float32, torch.float32, 5e-7),
    "float32, saved in bfloat16": (torch.float32, torch.bfloat16, 2.0**-8),
    "bfloat16": (torch.bfloat16, torch.bfloat16, 1e-2),
}
LINEAR = "indistinguishable from linear: they differ by less than the rounding"


def models(tensor, reach=1.0, names=NAMES):
    """Base and fine-tunes, these `reach` times as far from it as training took them, bfloat16 [models, ...]."""
    base, *others = (load(name)[tensor].float() for name in names)
    return torch.stack([base, *(base + reach * (other - base) for other in others)]).bfloat16()


def by_mergekit(tensors, mode="float32", **parameters):
    dtype, out_dtype, _ = MODES[mode]
    return merge_tensors(
        list(tensors), "model_stock", parameters=parameters, base_index=0, dtype=dtype, out_dtype=out_dtype
    )


def measured(suspect, tensors):
    return moments(torch.stack([suspect.float(), *tensors.float()]).flatten(1).numpy())


def combined(coefficients, tensors):
    return np.tensordot(coefficients, tensors.double().numpy(), 1)


@pytest.mark.parametrize("tensor", [QUERY, UP, DOWN])
@pytest.mark.parametrize("reach", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_coefficients_are_those_of_mergekit(tensor, reach, size, mode):
    tensors = models(tensor, reach)[: size + 1]
    suspect = by_mergekit(tensors, mode)
    found = measured(suspect, tensors)
    coefficients = ModelStock().coefficients(found)
    assert coefficients.sum() == pytest.approx(1)
    error = np.abs(combined(coefficients, tensors) - suspect.double().numpy()).max()
    assert error <= MODES[mode][2] * suspect.abs().max()
    fit = ModelStock().fit(found, NAMES[: size + 1])
    assert fit.parameters["t"] == pytest.approx(1 - coefficients[0])
    assert fit.residual < {"float32": 1e-5, "bfloat16": 10}.get(mode, 1.2) * fit.floor
    if mode == "float32":
        assert fit.parameters["standard errors away"] < 3


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("mode", ["float32", "float32, saved in bfloat16"])
def test_rows_have_ratios_of_their_own(size, mode):
    tensors = models(UP, 5.0)[: size + 1]
    suspect = by_mergekit(tensors, mode, filter_wise=True)
    s, b, *x = torch.stack([suspect.float(), *tensors.float()]).double().numpy()
    columns = np.stack([s - b, *(one - b for one in x), b], axis=-1)
    coefficients = model_stock_coefficients(np.einsum("rci,rcj->rij", columns, columns))
    assert coefficients[:, 0].std() > 0.05
    expected = np.einsum("rk,krc->rc", coefficients, tensors.double().numpy())
    assert np.abs(expected - suspect.double().numpy()).max() <= MODES[mode][2] * suspect.abs().max()
    whole = ModelStock().fit(measured(suspect, tensors), NAMES[: size + 1])
    assert whole.residual > 5 * whole.floor


@pytest.mark.parametrize("weights", [(0.2, 0.5, 0.3), (0.0, 0.565, 0.435), (0.0, 0.5, 0.5)])
def test_linear_merges_are_not_claimed(weights):
    fit = ModelStock().fit(moments(merge(sources(UP, *NAMES[:3]), weights)), NAMES[:3])
    assert fit.notes == ()
    assert fit.residual > 20 * fit.floor
    assert fit.parameters["standard errors away"] > 100


def test_merge_is_that_of_linear_with_the_right_base_share():
    tensors = models(UP)[:3]
    share = ModelStock().coefficients(measured(tensors[0], tensors))[0]
    values = merge(tensors.float().flatten(1).numpy(), (share, (1 - share) / 2, (1 - share) / 2))
    fit = ModelStock().fit(moments(values), NAMES[:3])
    assert fit.residual < 1.2 * fit.floor


@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_fine_tunes_are_not_claimed(suspect):
    fit = ModelStock().fit(moments(sources(UP, suspect, *NAMES[:3])), NAMES[:3])
    assert fit.residual > 20 * fit.floor
    assert fit.parameters["standard errors away"] > 20


def test_equal_parents_are_averaged_and_noted():
    base, code = sources(UP, "base", "ft-code")
    fit = ModelStock().fit(moments(np.stack([code, base, code, code])), NAMES[:3])
    np.testing.assert_allclose(fit.coefficients, [0, 0.5, 0.5], atol=1e-12)
    assert fit.notes == (LINEAR,)


def test_unmoved_parents_leave_the_base():
    base, code = sources(UP, "base", "ft-code")
    fit = ModelStock().fit(moments(np.stack([code, base, base, base])), NAMES[:3])
    assert fit.notes == ("the parents do not differ from the base",)
    assert fit.coefficients.tolist() == [1, 0, 0]
    assert fit.parameters == {"t": 0, "standard errors away": 0}
    one = ModelStock().fit(moments(np.stack([code, base, base, code])), NAMES[:3])
    assert one.coefficients.tolist() == [1, 0, 0]


def test_opposite_task_vectors_leave_the_base():
    base = np.ones(64, np.float32)
    step = np.tile(np.float32([0.5, -0.25]), 32)
    found = moments(np.stack([base, base, base + step, base - step]))
    assert ModelStock().coefficients(found).tolist() == [1, 0, 0]


def test_family_needs_a_base_and_two_parents():
    found = moments(sources(UP, "ft-code-seed2", *NAMES[:3]))
    assert ModelStock(has_base=False).fit(found, NAMES[:3]) is None
    assert ModelStock().fit(moments(sources(UP, "ft-code-seed2", *NAMES[:2])), NAMES[:2]) is None
