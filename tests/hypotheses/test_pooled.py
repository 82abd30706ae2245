"""Families side by side: each with its parameters and what it leaves unexplained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.cases import dataset
from support.family import BASE, CODE, DOCS, load
from support.tensors import DOWN, QUERY, UP
from support.tensors import moments as tensor_moments
from support.tensors import sources as tensor_sources

from reconstruct.hypotheses.pooled import fit_families


@pytest.fixture(scope="module")
def moments(blend_folder):
    data = dataset(blend_folder, [CODE, DOCS], BASE)
    return [data.measurements[i].moments for i in data.voting]


NAMES = ("base", "code", "docs")
ALL = {"linear", "slerp", "task_arithmetic"}


def test_all_families_are_fitted_and_the_true_one_leaves_the_least(moments):
    fits = fit_families(moments, NAMES, ALL, has_base=True)
    assert [f.hypothesis for f in fits[:2]] == ["linear", "task_arithmetic"]
    assert {f.hypothesis for f in fits[2:]} == {
        "slerp of base and code", "slerp of base and docs", "slerp of code and docs",
    }  # fmt: skip
    assert fits[0].parameters == pytest.approx({"base": 0, "code": 0.565, "docs": 0.435}, abs=0.01)
    assert fits[0].residual <= min(f.residual for f in fits)
    assert np.sqrt(fits[0].residual / fits[0].floor) == pytest.approx(1, abs=0.15)


def test_task_arithmetic_needs_a_base_and_names_only_the_parents(moments):
    task = next(f for f in fit_families(moments, NAMES, ALL, has_base=True) if f.hypothesis == "task_arithmetic")
    assert set(task.parameters) == {"code", "docs"}
    assert not [f for f in fit_families(moments, NAMES, ALL, has_base=False) if f.hypothesis == "task_arithmetic"]


def test_slerp_in_its_linear_branch_says_so(moments):
    slerp = next(f for f in fit_families(moments, NAMES, {"slerp"}, has_base=True) if "code and docs" in f.hypothesis)
    assert slerp.parameters["t"] == pytest.approx(0.435, abs=0.02)
    assert any("indistinguishable from linear" in note for note in slerp.notes)


def test_standard_errors_are_those_of_the_median_and_know_nothing_of_the_rounding_bias(moments):
    linear = fit_families(moments, NAMES, {"linear"}, has_base=True)[0]
    for name, truth in (("code", 0.565), ("docs", 0.435)):
        assert 0 < linear.standard_errors[name] < 2e-3
        assert abs(linear.parameters[name] - truth) < 5e-3


NEW = {"nuslerp", "multislerp", "karcher", "model_stock", "passthrough"}


def bent(method, weights=None, based=False, reach=8.0, **parameters):
    """Moments of a few tensors merged by mergekit from fine-tunes `reach` times as far from the base."""
    found = []
    states = [load(name) for name in ("base", "ft-code", "ft-docs")]
    for tensor in (QUERY, UP, DOWN):
        base, *others = (state[tensor].float() for state in states)
        models = [base, *(base + reach * (other - base) for other in others)]
        models = [model.bfloat16() for model in models]
        if weights is not None:
            parameters["weight"] = list(weights)
        suspect = merge_tensors(models if based else models[1:], method, parameters=parameters,
                                base_index=0 if based else None, dtype=torch.float32,
                                out_dtype=torch.bfloat16)  # fmt: skip
        found.append(tensor_moments(torch.stack([suspect, *models]).float().flatten(1).numpy()))
    return found


@pytest.mark.parametrize(
    ("method", "weights", "based", "label", "parameters"),
    [
        ("nuslerp", (0.7, 0.3), False, "nuslerp of code and docs", {"t": 0.3}),
        ("nuslerp", (0.7, 0.3), True, "nuslerp of code and docs on base", {"t": 0.3}),
        ("multislerp", (0.6, 0.4), False, "multislerp", {"base": 0, "code": 0.6, "docs": 0.4}),
        ("multislerp", (0.6, 0.4), True, "multislerp on base", {"code": 0.6, "docs": 0.4}),
        ("karcher", None, False, "karcher without base", {}),
        ("model_stock", None, True, "model_stock", {}),
    ],
)
def test_each_family_is_recognised_in_what_mergekit_makes(method, weights, based, label, parameters):
    fits = {f.hypothesis: f for f in fit_families(bent(method, weights, based), NAMES, ALL | NEW, has_base=True)}
    fit = fits[label]
    # Half of two bfloat16 numbers often falls between two others, where rounding costs most.
    assert fit.residual < (1.4 if method == "karcher" else 1.1) * fit.floor
    for name, value in parameters.items():
        assert fit.parameters[name] == pytest.approx(value, abs=0.01)
    of_another_family = {"nuslerp": "model_stock", "multislerp": "karcher"}.get(method, "multislerp on base")
    assert fits[of_another_family].residual > 10 * fits[of_another_family].floor


def test_families_are_fitted_to_every_choice_of_sources_that_applies(moments):
    based = {f.hypothesis for f in fit_families(moments, NAMES, NEW, has_base=True)}
    pairs = {"base and code", "base and docs", "code and docs"}
    everywhere = {f"nuslerp of {pair}" for pair in pairs} | {f"passthrough of {name}" for name in NAMES}
    everywhere |= {"multislerp", "karcher"}
    assert based == everywhere | {
        "nuslerp of code and docs on base", "multislerp on base", "karcher without base", "model_stock",
    }  # fmt: skip
    assert {f.hypothesis for f in fit_families(moments, NAMES, NEW, has_base=False)} == everywhere


def test_a_family_that_is_not_asked_for_is_not_fitted(moments):
    assert [f.hypothesis for f in fit_families(moments, NAMES, {"model_stock"}, has_base=True)] == ["model_stock"]
    assert fit_families(moments, NAMES, (), has_base=True) == ()


def test_no_new_family_claims_a_linear_merge_unless_it_says_so(moments):
    for fit in fit_families(moments, NAMES, NEW, has_base=True):
        claimed = fit.residual < 2 * fit.floor
        assert claimed is (fit.hypothesis in {"nuslerp of code and docs", "multislerp"})
        assert not claimed or any("indistinguishable from linear" in note for note in fit.notes)


def test_tensors_that_say_nothing_of_a_parameter_have_no_vote():
    informative = bent("nuslerp", (0.7, 0.3))
    base, code = tensor_sources(UP, "base", "ft-code")
    silent = [tensor_moments(np.stack([code, base, code, code]))] * 4
    fits = fit_families(informative + silent, NAMES, {"nuslerp", "multislerp", "passthrough"}, has_base=True)
    fit = next(f for f in fits if f.hypothesis == "nuslerp of code and docs")
    assert fit.parameters["t"] == pytest.approx(0.3, abs=0.01)
    assert "t cannot be told: the two tensors are the same" in fit.notes
    zero = [tensor_moments(np.zeros((4, 64), np.float32))]
    fits = fit_families(informative + zero, NAMES, {"multislerp", "passthrough"}, has_base=True)
    assert all("applies to 3 of 4 tensors" in fit.notes for fit in fits)
    assert all(np.isfinite([fit.residual, fit.floor, *fit.coefficients]).all() for fit in fits)
