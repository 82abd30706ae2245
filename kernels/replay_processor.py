"""Predict, round, compare and count in one pass, for many coefficient vectors; generated per formula."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.generate import compiled
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.replay_source import replay_source
from reconstruct.kernels.results import STRATA, ReplayResult, View, check_replay

__all__ = ["replay"]


@functools.cache
def _function(dtypes: tuple[str, ...], formula: Formula, mantissa: int | None) -> Callable[..., Any]:
    return compiled("replay", replay_source(dtypes, formula, mantissa=mantissa))


def replay(
    models: Sequence[View],
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
    lattice: Lattice,
) -> ReplayResult:
    """Compare the suspect with predictions from the other models for V coefficient vectors; see `replay_reference`."""
    check_replay(models, coefficients, divisors, formula)
    # Numbers that lie on the suspect's lattice need not be rounded to it; a wild sum needs the careful loops.
    plain = all(_on_lattice(m.dtype, lattice) for m in models[1:]) and lattice.mantissa > 0
    plain &= bool(np.abs(coefficients).sum() < 64)
    function = _function(tuple(m.dtype for m in models), formula, lattice.mantissa if plain else None)
    result = ReplayResult.empty(len(coefficients))
    counts = np.zeros((len(coefficients), 5), np.int64)
    kind = np.dtype(np.float64 if formula.working == "float64" else np.float32)
    vectors: NDArray[np.floating] = coefficients.astype(kind)
    scale: NDArray[np.floating] = divisors.astype(kind)
    if formula.working in {"bfloat16", "float16"}:
        lower = Lattice.of_dtype("BF16" if formula.working == "bfloat16" else "F16")
        vectors, scale = lower.round(vectors), lower.round(scale)
    # Exponents from which rounding is a matter of mantissa bits alone; with no stored bit left ties need more care.
    low = max(lattice.mantissa + 1, lattice.quantum + 127 + lattice.mantissa) if lattice.mantissa else 256
    shares = 0.5 + 0.5 * np.abs(coefficients / divisors[:, None]).sum(axis=1) + 1e-3
    function(
        *(m.bits for m in models), np.ascontiguousarray(vectors), scale, shares, np.int32(lattice.mantissa),
        np.float32(2.0**lattice.quantum), np.int32(low), np.asarray(STRATA), counts, result.energy, result.steps,
    )  # fmt: skip
    for column, name in enumerate(("total", "exact", "close", "inside_box", "novel")):
        getattr(result, name)[:] = counts[:, column]
    return result


def _on_lattice(dtype: str, lattice: Lattice) -> bool:
    """Whether the lattice holds every number of a dtype (in float32, as the kernels decode it)."""
    own = Lattice.of_dtype(dtype)
    return own.mantissa <= lattice.mantissa and own.quantum >= lattice.quantum
