"""Families side by side: each with its parameters and what it leaves unexplained."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import dataset
from support.family import BASE, CODE, DOCS

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
