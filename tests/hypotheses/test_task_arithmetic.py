"""Task arithmetic: the same span with the base's share left over."""

from __future__ import annotations

import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.family import load
from support.tensors import QUERY, UP, moments, sources

from reconstruct.hypotheses.linear import Linear
from reconstruct.hypotheses.task_arithmetic import TaskArithmetic

NAMES = ("base", "ft-code", "ft-docs")


@pytest.mark.parametrize("tensor", [QUERY, UP])
@pytest.mark.parametrize(("scale", "weights"), [(1.0, (0.5, 0.3)), (0.8, (0.5, 1.0))])
def test_products_of_scale_and_weights_are_found_in_what_mergekit_makes(tensor, scale, weights):
    models = [load(name)[tensor] for name in NAMES]
    parameters = {"weight": list(weights), "lambda": scale}
    merged = merge_tensors(models, "task_arithmetic", parameters=parameters, base_index=0, dtype=torch.float32)
    values = torch.cat([merged.float().flatten()[None], torch.from_numpy(sources(tensor, *NAMES))]).numpy()
    fit = TaskArithmetic(has_base=True).fit(moments(values), NAMES)
    assert fit.hypothesis == "task_arithmetic"
    assert fit.parameters == pytest.approx({"ft-code": scale * weights[0], "ft-docs": scale * weights[1]}, abs=1e-4)


def test_coefficients_are_those_of_the_linear_family():
    found = moments(sources(UP, "ft-code-half", *NAMES))
    task, linear = TaskArithmetic(has_base=True).fit(found, NAMES), Linear().fit(found, NAMES)
    assert task.coefficients.tolist() == linear.coefficients.tolist()
    assert task.residual == linear.residual
    assert set(task.parameters) == {"ft-code", "ft-docs"}


def test_family_does_not_apply_without_a_base():
    assert TaskArithmetic(has_base=False).fit(moments(sources(UP, "ft-code-half", *NAMES)), NAMES) is None
