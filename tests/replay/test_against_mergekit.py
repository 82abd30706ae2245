"""The named arithmetics against the program they are named after, on every tensor of the trained family."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.family import load
from support.tensors import moments

from reconstruct.hypotheses.slerp import slerp_coefficients
from reconstruct.kernels.exact_hits import exact_hits
from reconstruct.kernels.lattice import Lattice
from reconstruct.replay.arithmetic import ARITHMETICS, arithmetics_for
from reconstruct.replay.variants import Variant, in_program_form

NAMES = ("base", "ft-code", "ft-docs")
STORAGE = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
FUSED = "float32 fused multiply-add, rounded once"
BY_NAME = {a.name: a for a in ARITHMETICS}


@dataclass(frozen=True)
class Case:
    """A merge of ft-code and ft-docs as mergekit makes it, and the arithmetic that ought to reproduce it."""

    method: str
    parameters: dict
    dtype: torch.dtype
    out_dtype: torch.dtype | None
    coefficients: tuple[float, float, float]
    arithmetic: str

    def suspect(self, models):
        """The merged tensor."""
        based = self.method == "task_arithmetic"
        return merge_tensors(
            models if based else models[1:], self.method, parameters=self.parameters, base_index=0 if based else None,
            dtype=self.dtype, out_dtype=self.out_dtype,
        )  # fmt: skip


LINEAR = {"weight": [0.565, 0.435]}
TASK = {"weight": [0.5, 0.3]}
TASK_COEFFICIENTS = (0.2, 0.5, 0.3)
CASES = {
    "linear in bfloat16": Case("linear", LINEAR, torch.bfloat16, None, (0, 0.565, 0.435), FUSED),
    "linear in float32": Case("linear", LINEAR, torch.float32, None, (0, 0.565, 0.435), FUSED),
    "linear in float32, saved in bfloat16":
        Case("linear", LINEAR, torch.float32, torch.bfloat16, (0, 0.565, 0.435), FUSED),
    "linear normalised": Case("linear", {"weight": [1.0, 0.5]}, torch.bfloat16, None, (0, 2 / 3, 1 / 3), FUSED),
    "task arithmetic in bfloat16": Case("task_arithmetic", TASK, torch.bfloat16, None, TASK_COEFFICIENTS,
                                        "bfloat16 base plus sum of weighted deltas"),
    "task arithmetic in float16": Case("task_arithmetic", TASK, torch.float16, None, TASK_COEFFICIENTS,
                                       "float16 base plus sum of weighted deltas"),
    "task arithmetic in float32": Case("task_arithmetic", TASK, torch.float32, None, TASK_COEFFICIENTS,
                                       "float32 base plus sum of weighted deltas, rounded once"),
    "task arithmetic in float32, saved in bfloat16":
        Case("task_arithmetic", TASK, torch.float32, torch.bfloat16, TASK_COEFFICIENTS,
             "float32 base plus sum of weighted deltas, rounded once"),
}  # fmt: skip


def flat(tensors):
    return np.stack([t.float().flatten().numpy() for t in tensors])


def tensors():
    states = [load(name) for name in NAMES]
    return {name: [state[name] for state in states] for name in states[0]}


def hits(values, dtype, coefficients, arithmetic):
    """Elements reproduced by one coefficient vector over base, ft-code, ft-docs."""
    first = coefficients[0] == 0 and arithmetic.formula.order in {"lerp", "delta", "task"}
    order = (1, 2, 0) if first else (0, 1, 2)
    vector, divisor = in_program_form(np.array(coefficients, float), Variant(arithmetic, order))
    lattice = Lattice.of_dtype(STORAGE[dtype])
    return int(exact_hits(values, lattice, vector[None], np.array([divisor]), arithmetic.formula, order)[0])


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def case(request):
    return CASES[request.param]


def test_named_arithmetic_reproduces_every_bit(case):
    for name, models in tensors().items():
        suspect = case.suspect(models)
        values = flat([suspect, *models])
        found = hits(values, suspect.dtype, case.coefficients, BY_NAME[case.arithmetic])
        assert found == values.shape[1], name


def test_other_arithmetics_do_not_all_tie(case):
    material = 2 if case.coefficients[0] == 0 else 3
    shares = {}
    for arithmetic in arithmetics_for(material, has_base=True):
        exact = total = 0
        for models in tensors().values():
            suspect = case.suspect(models)
            exact += hits(flat([suspect, *models]), suspect.dtype, case.coefficients, arithmetic)
            total += suspect.numel()
        shares[arithmetic.name] = exact / total
    assert max(shares.values()) == shares[case.arithmetic] == 1.0
    assert min(shares.values()) < 0.95


def test_weights_of_another_merge_reproduce_little(case):
    wrong = tuple(np.roll(case.coefficients, 1).tolist())
    for models in list(tensors().values())[3:6]:
        suspect = case.suspect(models)
        assert hits(flat([suspect, *models]), suspect.dtype, wrong, BY_NAME[case.arithmetic]) < 0.3 * suspect.numel()


@pytest.mark.parametrize("reach", [1.0, 20.0], ids=["fine-tunes", "bent"])
def test_slerp_with_a_t_for_every_tensor_is_reproduced(reach):
    random = np.random.default_rng(0)
    exact = total = 0
    for base, code, docs in tensors().values():
        t = round(float(random.uniform(0.1, 0.9)), 2)
        far = (base.float() + reach * (docs.float() - base.float())).bfloat16()
        suspect = merge_tensors([code, far], "slerp", parameters={"t": t}, base_index=0, dtype=torch.bfloat16)
        values = flat([suspect, code, far])
        coefficients = np.array([slerp_coefficients(t, moments(values).cosine(0, 1))])
        arithmetic = BY_NAME["float32 products and sums, rounded once"]
        lattice = Lattice.of_dtype("BF16")
        exact += int(exact_hits(values, lattice, coefficients, np.ones(1), arithmetic.formula, (0, 1))[0])
        total += values.shape[1]
    assert exact >= 0.9999 * total
