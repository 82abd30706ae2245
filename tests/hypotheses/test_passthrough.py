"""One source times a scale, as mergekit's passthrough makes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.family import load
from support.tensors import QUERY, UP, merge, moments, sources

from reconstruct.hypotheses.passthrough import Passthrough

NAMES = ("base", "ft-code", "ft-docs")
#: dtype of the arithmetic, of the result, and how far the coefficients may leave an element, relative to it.
MODES = {
    "float32": (torch.float32, torch.float32, 2.0**-23),
    "float32, saved in bfloat16": (torch.float32, torch.bfloat16, 2.0**-8),
    "bfloat16": (torch.bfloat16, torch.bfloat16, 2.0**-8),
}
COPY = "indistinguishable from linear: a copy, to within the rounding"


def measured(suspect, tensor):
    return moments(np.concatenate([suspect.float().flatten()[None].numpy(), sources(tensor, *NAMES)]))


@pytest.mark.parametrize("tensor", [QUERY, UP])
@pytest.mark.parametrize("scale", [0.3, 0.8, -1.0, 1.4142])
@pytest.mark.parametrize("mode", MODES)
def test_scale_and_source_are_those_of_mergekit(tensor, scale, mode):
    dtype, out_dtype, tolerance = MODES[mode]
    source = load("ft-docs")[tensor]
    suspect = merge_tensors([source], "passthrough", parameters={"scale": scale}, dtype=dtype, out_dtype=out_dtype)
    assert ((scale * source.double() - suspect.double()).abs() <= tolerance * suspect.double().abs()).all()
    fit = Passthrough().fit(measured(suspect, tensor), NAMES)
    assert fit.parameters["scale"] == pytest.approx(scale, abs=1e-7 if mode == "float32" else 4e-4)
    assert fit.coefficients[:2].tolist() == [0, 0]
    assert fit.coefficients[2] == fit.parameters["scale"]
    assert fit.residual < 1.2 * fit.floor or mode == "float32"
    assert fit.notes == ("of ft-docs",)


def test_without_a_scale_the_source_is_copied():
    suspect = merge_tensors([load("ft-code")[UP]], "passthrough", dtype=torch.bfloat16)
    fit = Passthrough().fit(measured(suspect, UP), NAMES)
    assert fit.parameters == {"scale": 1}
    assert fit.residual == 0
    assert fit.notes == ("of ft-code", COPY)


def test_source_may_be_given():
    found = measured(0.5 * load("base")[UP].float(), UP)
    right, wrong = Passthrough(0).fit(found, NAMES), Passthrough(1).fit(found, NAMES)
    assert right.coefficients.tolist() == pytest.approx([0.5, 0, 0])
    assert right.notes == ()
    assert wrong.coefficients[[0, 2]].tolist() == [0, 0]
    assert wrong.residual > 10 * wrong.floor > 10 * right.residual
    assert Passthrough(0).coefficients(0.25, found).tolist() == [0.25, 0, 0]
    assert Passthrough(2).coefficients(0.25, found).tolist() == [0, 0, 0.25]
    assert Passthrough(3).fit(found, NAMES) is None


@pytest.mark.parametrize("weights", [(0.2, 0.5, 0.3), (0.0, 0.565, 0.435)])
def test_linear_merges_are_not_claimed(weights):
    fit = Passthrough().fit(moments(merge(sources(UP, *NAMES), weights)), NAMES)
    assert fit.residual > 20 * fit.floor


@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_fine_tunes_are_not_claimed(suspect):
    fit = Passthrough().fit(moments(sources(UP, suspect, *NAMES)), NAMES)
    assert fit.residual > 20 * fit.floor


def test_zero_sources_are_no_case():
    base, code = sources(UP, "base", "ft-code")
    assert Passthrough().fit(moments(np.stack([code, 0 * base, 0 * base])), NAMES[:2]) is None
    fit = Passthrough().fit(moments(np.stack([code, 0 * base, base])), NAMES[:2])
    assert fit.coefficients[0] == 0
    zero = Passthrough().fit(moments(np.stack([0 * code, base, code])), NAMES[:2])
    assert zero.parameters["scale"] == pytest.approx(0, abs=1e-12)
    assert Passthrough().fit(moments(np.stack([code, code])), NAMES[:1]).notes == ("of base", COPY)
