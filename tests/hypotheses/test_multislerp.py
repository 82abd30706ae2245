"""Multi-SLERP against mergekit's own, of two and three sources, with and without a base."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.family import load
from support.tensors import DOWN, QUERY, UP, merge, moments, sources

from reconstruct.hypotheses.linear import Linear
from reconstruct.hypotheses.multislerp import MultiSlerp

NAMES = ("base", "ft-code", "ft-docs", "ft-code-seed2")
#: dtype of the arithmetic, of the result, and how far the coefficients may leave the largest element.
MODES = {
    "float32": (torch.float32, torch.float32, 2e-6),
    "float32, saved in bfloat16": (torch.float32, torch.bfloat16, 2.0**-8),
    "bfloat16": (torch.bfloat16, torch.bfloat16, 1.5e-2),
}
WEIGHTS = {2: (0.7, 0.3), 3: (0.5, 0.3, 0.2)}
LINEAR = "indistinguishable from linear: they differ by less than the rounding"
NUSLERP = "indistinguishable from nuslerp: they differ by less than the rounding"
COLLINEAR = "the directions are collinear: weights cannot be told apart"


def models(tensor, reach, names=NAMES):
    """Base and fine-tunes, these `reach` times as far from it as training took them, bfloat16 [models, ...]."""
    base, *others = (load(name)[tensor].float() for name in names)
    return torch.stack([base, *(base + reach * (other - base) for other in others)]).bfloat16()


def by_mergekit(tensors, weights, has_base, mode="float32", **flags):
    dtype, out_dtype, _ = MODES[mode]
    return merge_tensors(list(tensors), "multislerp", parameters={"weight": list(weights), **flags},
                         base_index=0 if has_base else None, dtype=dtype, out_dtype=out_dtype)  # fmt: skip


def measured(suspect, tensors):
    return moments(torch.stack([suspect.float(), *tensors.float()]).flatten(1).numpy())


def combined(coefficients, tensors):
    return np.tensordot(coefficients, tensors.double().numpy(), 1)


@pytest.mark.parametrize("tensor", [QUERY, UP, DOWN])
@pytest.mark.parametrize("reach", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_coefficients_are_those_of_mergekit_and_weights_are_found(tensor, reach, size, has_base, mode):
    tensors = models(tensor, reach)[: size + has_base]
    names = NAMES[: size + has_base]
    weights = np.array(WEIGHTS[size])
    suspect = by_mergekit(tensors, 3 * weights, has_base, mode)
    found = measured(suspect, tensors)
    family = MultiSlerp(has_base=has_base)
    error = np.abs(combined(family.coefficients(weights, found), tensors) - suspect.double().numpy()).max()
    assert error <= MODES[mode][2] * suspect.abs().max()
    fit = family.fit(found, names)
    assert list(fit.parameters) == list(names[has_base:])
    atol = {"float32": 1e-5, "bfloat16": 0.02}.get(mode, 0.006)
    np.testing.assert_allclose(list(fit.parameters.values()), weights, atol=atol)
    if mode != "bfloat16":
        assert fit.residual < 1.25 * fit.floor
    if mode == "float32, saved in bfloat16":
        assert all(1e-6 < error < 5e-3 for error in fit.standard_errors.values())


def test_weights_that_are_not_normalised_scale_the_merge_and_span_all_of_linear():
    tensors, weights = models(UP, 20.0)[:3], np.array([0.9, 0.4, 0.3])
    suspect = by_mergekit(tensors, weights, has_base=False, normalize_weights=False)
    found = measured(suspect, tensors)
    expected = combined(MultiSlerp().coefficients(weights, found), tensors)
    assert np.abs(expected - suspect.double().numpy()).max() <= 2e-6 * suspect.abs().max()
    normalised = MultiSlerp().coefficients(weights / weights.sum(), found)
    np.testing.assert_allclose(MultiSlerp().coefficients(weights, found), 1.6 * normalised)
    fit = MultiSlerp().fit(found, NAMES[:3])
    assert fit.residual > 100 * fit.floor
    assert Linear().fit(found, NAMES[:3]).residual > 100 * fit.floor  # whose weights sum to one


@pytest.mark.parametrize("reach", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize("weights", [(0.2, 0.5, 0.3), (0.0, 0.565, 0.435), (0.1, 0.6, 0.3)])
def test_linear_merges_are_not_claimed(reach, has_base, weights):
    values = merge(models(UP, reach)[:3].float().flatten(1).numpy(), weights)
    fit = MultiSlerp(has_base=has_base).fit(moments(values), NAMES[:3])
    assert fit.residual > 5 * fit.floor or LINEAR in fit.notes
    assert bool(LINEAR in fit.notes) is (reach == 1 and not has_base)


@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_fine_tunes_are_not_claimed_and_weights_stay_bounded(has_base, suspect):
    fit = MultiSlerp(has_base=has_base).fit(moments(sources(UP, suspect, *NAMES[:3])), NAMES[:3])
    assert fit.residual > 20 * fit.floor
    assert np.abs(list(fit.parameters.values())).max() <= 4


def test_of_two_tensors_of_one_length_nuslerp_makes_the_same_merge():
    tensors = models(UP, 30.0)
    raw = measured(by_mergekit(tensors[1:3], (0.7, 0.3), has_base=False), tensors[1:3])
    assert NUSLERP in MultiSlerp().fit(raw, NAMES[1:3]).notes
    longer = torch.stack([tensors[0], tensors[1], 2 * tensors[2]])
    based = measured(by_mergekit(longer, (0.7, 0.3), has_base=True), longer)
    assert NUSLERP not in MultiSlerp(has_base=True).fit(based, NAMES[:3]).notes


def test_equal_parents_have_no_weights_of_their_own():
    base, code = sources(UP, "base", "ft-code")
    for has_base in (False, True):
        fit = MultiSlerp(has_base=has_base).fit(moments(np.stack([base, base, code, code])), NAMES[:3])
        assert fit.notes == (COLLINEAR,)
        assert np.isfinite([fit.residual, *fit.coefficients, *fit.parameters.values()]).all()
        assert np.isinf(list(fit.standard_errors.values())).all()


def test_unmoved_or_lone_parents_are_no_case():
    base, code = sources(UP, "base", "ft-code")
    assert MultiSlerp(has_base=True).fit(moments(np.stack([code, base, base, base])), NAMES[:3]) is None
    assert MultiSlerp(has_base=True).fit(moments(np.stack([code, base, code])), NAMES[:2]) is None
    assert MultiSlerp().fit(moments(np.stack([code, base])), NAMES[:1]) is None
    assert MultiSlerp().fit(moments(np.zeros((4, 64), np.float32)), NAMES[:3]) is None


def test_directions_that_cancel_are_added_where_two_and_refused_where_more():
    base, code = sources(UP, "base", "ft-code")
    pair = moments(np.stack([base, code, -code]))
    np.testing.assert_array_equal(MultiSlerp().coefficients(np.array([0.5, 0.5]), pair), [0.5, 0.5])
    three = moments(np.stack([base, code, -code, 0 * code]))
    assert MultiSlerp().coefficients(np.array([0.5, 0.5, 0.0]), three) is None


def test_an_unmoved_parent_only_takes_its_share():
    tensors = models(UP, 1.0)[[0, 0, 1, 2]]
    suspect = by_mergekit(tensors, (0.2, 0.5, 0.3), has_base=True)
    found = measured(suspect, tensors)
    expected = combined(MultiSlerp(has_base=True).coefficients(np.array([0.2, 0.5, 0.3]), found), tensors)
    np.testing.assert_allclose(expected, suspect, atol=1e-7)
    fit = MultiSlerp(has_base=True).fit(found, NAMES)
    np.testing.assert_allclose(list(fit.parameters.values()), (0.2, 0.5, 0.3), atol=1e-5)
