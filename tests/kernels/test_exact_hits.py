"""Counts of reproduced elements against the reference's own predictions, in every formula and on every lattice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.kernel_inputs import trained

from reconstruct.kernels.exact_hits import exact_hits
from reconstruct.kernels.formats import decode
from reconstruct.kernels.formulas import FORMULAS, WORKING_FORMATS, Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.replay_reference import predict


def _defined() -> list[Formula]:
    found = []
    for order in FORMULAS:
        for working in WORKING_FORMATS:
            try:
                found.append(Formula(order, working))
            except ValueError:
                continue
    return found


VECTORS = np.array([[0.2, 0.5, 0.3], [0.0, 0.6, 0.4], [0.0, 1.0, 2.0], [-0.3, 0.0, 1.3]])
DIVISORS = np.array([1.0, 1.0, 3.0, 1.0])
LATTICES = [Lattice.of_dtype(d) for d in ("BF16", "F16", "F32", "F8_E4M3")] + [Lattice(5, -20), Lattice(1, -9)]


def expected(
    values: NDArray[np.float32], lattice: Lattice, coefficients: NDArray[np.float64], divisors: NDArray[np.float64],
    formula: Formula,
) -> list[int]:  # fmt: skip
    found = []
    for vector, divisor in zip(coefficients, divisors, strict=True):
        raw = predict(torch.from_numpy(values[1:]), vector, float(divisor), formula).double().numpy()
        found.append(int((lattice.round(raw) == values[0]).sum()))
    return found


def sample(seed: int, scale: float = 0.02, count: int = 3001) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    base = random.standard_normal(count) * scale
    moved = [base + 0.05 * scale * random.standard_normal(count) for _ in range(3)]
    values = np.array([0.6 * moved[1] + 0.4 * moved[2], *moved], np.float32)
    values[:, ::97] = 0
    return values


def vectors_for(formula: Formula) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if formula.order == "lerp":
        return np.array([[0.4, 0.6, 0.0], [0.7, 0.3, 0.0], [1.8, -0.8, 0.0]]), np.ones(3)
    return VECTORS, DIVISORS


@pytest.mark.parametrize("formula", _defined(), ids=str)
@pytest.mark.parametrize("scale", [0.02, 1e-6, 3e4, 1e-39])
def test_counts_are_those_of_the_reference(formula: Formula, scale: float) -> None:
    coefficients, divisors = vectors_for(formula)
    for seed, lattice in enumerate(LATTICES):
        values = sample(seed, scale)
        values[0] = lattice.round(values[0])
        # So that there is something to reproduce: the target is the first vector's prediction for half of the elements.
        first = predict(torch.from_numpy(values[1:]), coefficients[0], float(divisors[0]), formula).double().numpy()
        with np.errstate(invalid="ignore"):
            values[0, ::2] = lattice.round(first)[::2]
        with np.errstate(invalid="ignore", over="ignore"):
            assert exact_hits(values, lattice, coefficients, divisors, formula, range(3)).tolist() == expected(
                values, lattice, coefficients, divisors, formula
            )


@pytest.mark.parametrize("formula", _defined(), ids=str)
def test_trained_weights(formula: Formula) -> None:
    models = trained(["ft-code-half", "base", "ft-code", "ft-docs"])
    values = np.stack([decode(m.bits, m.dtype) for m in models])[:, ::7]
    coefficients, divisors = vectors_for(formula)
    lattice = Lattice.of_dtype("BF16")
    assert exact_hits(values, lattice, coefficients, divisors, formula, range(3)).tolist() == expected(
        values, lattice, coefficients, divisors, formula
    )


def test_no_elements_no_hits() -> None:
    assert (
        exact_hits(
            np.empty((4, 0), np.float32), LATTICES[0], VECTORS, DIVISORS, Formula("sum", "float32"), range(3)
        ).tolist()
        == [0] * 4
    )


def test_sources_are_taken_in_the_order_given() -> None:
    values, formula = sample(5), Formula("delta", "float32")
    turned = values[[0, 3, 1, 2]]
    lattice = LATTICES[0]
    expected_counts = exact_hits(turned, lattice, VECTORS, DIVISORS, formula, range(3)).tolist()
    assert exact_hits(values, lattice, VECTORS, DIVISORS, formula, (2, 0, 1)).tolist() == expected_counts
