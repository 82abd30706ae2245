"""NuSLERP against mergekit's own: raw tensors and task vectors, flattened, by rows and by columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.family import load
from support.tensors import DOWN, QUERY, UP, merge, moments, sources

from reconstruct.hypotheses.nuslerp import NuSlerp, slice_coefficients

NAMES = ("base", "ft-code", "ft-docs")
#: dtype of the arithmetic, of the result, and how far the coefficients may leave the largest element.
MODES = {
    "float32": (torch.float32, torch.float32, 1e-6),
    "float32, saved in bfloat16": (torch.float32, torch.bfloat16, 2.0**-8),
    "bfloat16": (torch.bfloat16, torch.bfloat16, 1e-2),
}
LINEAR = "indistinguishable from linear: they differ by less than the rounding"
SLERP = "indistinguishable from slerp: the same coefficients"


def models(tensor, reach):
    """Base and fine-tunes, these `reach` times as far from it as training took them, bfloat16 [3, rows, columns]."""
    base, *others = (load(name)[tensor].float() for name in NAMES)
    return torch.stack([base, *(base + reach * (other - base) for other in others)]).bfloat16()


def by_mergekit(tensors, t, has_base, mode="float32", **flags):
    dtype, out_dtype, _ = MODES[mode]
    parameters = {"weight": [2 * (1 - t), 2 * t], **flags}
    return merge_tensors(list(tensors if has_base else tensors[1:]), "nuslerp", parameters=parameters,
                         base_index=0 if has_base else None, dtype=dtype, out_dtype=out_dtype)  # fmt: skip


def measured(suspect, tensors):
    return moments(torch.stack([suspect.float(), *tensors.float()]).flatten(1).numpy())


def combined(coefficients, tensors):
    return np.tensordot(coefficients, tensors.double().numpy(), 1)


def slice_grams(suspect, tensors):
    """Gram matrices of the rows, float64 [rows, 4, 4]."""
    s, b, *x = torch.stack([suspect.float(), *tensors.float()]).double().numpy()
    columns = np.stack([s - b, *(one - b for one in x), b], axis=-1)
    return np.einsum("rci,rcj->rij", columns, columns)


@pytest.mark.parametrize("tensor", [QUERY, UP, DOWN])
@pytest.mark.parametrize("reach", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_coefficients_are_those_of_mergekit_and_t_is_found(tensor, reach, has_base, mode):
    tensors, t = models(tensor, reach), 0.3
    suspect = by_mergekit(tensors, t, has_base, mode)
    found = measured(suspect, tensors)
    family = NuSlerp(1, 2, has_base=has_base)
    error = np.abs(combined(family.coefficients(t, found), tensors) - suspect.double().numpy()).max()
    assert error <= MODES[mode][2] * suspect.abs().max()
    fit = family.fit(found, NAMES)
    assert fit.parameters["t"] == pytest.approx(t, abs=1e-5 if mode == "float32" else 0.006)
    if mode != "bfloat16":  # whose own cosine and coefficients have eight bits
        assert fit.residual < 1.2 * fit.floor
    assert (LINEAR in fit.notes) is (not has_base and reach == 1)
    if mode != "float32":
        assert 1e-6 < fit.standard_errors["t"] < 2e-3


@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("mode", ["float32", "float32, saved in bfloat16"])
def test_slices_have_angles_of_their_own(has_base, by_column, mode):
    tensors, t = models(UP, 20.0), 0.35
    suspect = by_mergekit(tensors, t, has_base, mode, nuslerp_flatten=False, nuslerp_row_wise=by_column)
    turned = (suspect.T, tensors.transpose(1, 2)) if by_column else (suspect, tensors)
    grams = slice_grams(*turned)
    coefficients = slice_coefficients(np.array([t]), grams, 1, 2, has_base=has_base)[0]
    expected = np.einsum("rk,krc->rc", coefficients, turned[1].double().numpy())
    error = np.abs(expected - turned[0].double().numpy()).max()
    assert error <= MODES[mode][2] * suspect.abs().max()
    family = NuSlerp(1, 2, has_base=has_base)
    found, standard_error = family.estimate(grams, suspect.numel())
    assert found == pytest.approx(t, abs=1e-6 if mode == "float32" else 1e-3)
    assert standard_error < 1e-4
    flattened = family.fit(measured(suspect, tensors), NAMES)
    assert flattened.residual > 10 * flattened.floor


def test_weights_that_cancel_mean_half():
    tensors = models(QUERY, 20.0)
    suspect = merge_tensors(list(tensors[1:]), "nuslerp", parameters={"weight": [1.0, -1.0]}, dtype=torch.float32)
    assert NuSlerp(1, 2).fit(measured(suspect, tensors), NAMES).parameters["t"] == pytest.approx(0.5, abs=1e-5)


def test_slerp_beyond_its_linear_branch_has_the_same_coefficients():
    bent, straight = (measured(t[0], t) for t in (models(UP, 5.0), models(UP, 0.5)))
    assert SLERP in NuSlerp(1, 2).fit(bent, NAMES).notes
    assert SLERP not in NuSlerp(1, 2, has_base=True).fit(bent, NAMES).notes
    assert SLERP not in NuSlerp(0, 1).fit(straight, NAMES).notes


@pytest.mark.parametrize("reach", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize("weights", [(0.2, 0.5, 0.3), (0.0, 0.565, 0.435), (0.1, 0.6, 0.3)])
def test_linear_merges_are_not_claimed(reach, has_base, weights):
    values = merge(models(UP, reach).float().flatten(1).numpy(), weights)
    fit = NuSlerp(1, 2, has_base=has_base).fit(moments(values), NAMES)
    assert fit.residual > 5 * fit.floor or LINEAR in fit.notes
    assert bool(LINEAR in fit.notes) is (reach == 1 and not has_base)


@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_fine_tunes_are_not_claimed(has_base, suspect):
    fit = NuSlerp(1, 2, has_base=has_base).fit(moments(sources(UP, suspect, *NAMES)), NAMES)
    assert fit.residual > 20 * fit.floor


@pytest.mark.parametrize("has_base", [False, True])
def test_equal_or_unmoved_tensors_say_nothing_of_t(has_base):
    base, code = sources(UP, "base", "ft-code")
    for one in (base, code, 0 * base):
        fit = NuSlerp(1, 2, has_base=has_base).fit(moments(np.stack([code, base, one, one])), NAMES)
        assert fit.notes == ("t cannot be told: the two tensors are the same",)
        assert np.isfinite([fit.residual, *fit.coefficients, *fit.parameters.values()]).all()
        assert fit.standard_errors == {"t": np.inf}


def test_an_unmoved_parent_is_at_right_angles_to_the_other():
    tensors = models(UP, 1.0)[[0, 0, 1]]
    suspect = by_mergekit(tensors, 0.3, has_base=True)
    found = measured(suspect, tensors)
    family = NuSlerp(1, 2, has_base=True)
    assert family.coefficients(0.3, found)[2] == pytest.approx(np.sin(0.3 * np.pi / 2))
    np.testing.assert_allclose(combined(family.coefficients(0.3, found), tensors), suspect, atol=1e-7)
    assert family.fit(found, NAMES).parameters["t"] == pytest.approx(0.3, abs=1e-5)


def test_family_needs_two_sources_beside_a_base():
    found = moments(sources(UP, "ft-code-half", "base", "ft-code"))
    assert NuSlerp(0, 1, has_base=True).fit(found, NAMES[:2]) is None
    assert NuSlerp(1, 2).fit(found, NAMES[:2]) is None
    assert NuSlerp(1, 1).fit(found, NAMES[:2]) is None
    assert NuSlerp(0, 1).fit(found, NAMES[:2]) is not None
