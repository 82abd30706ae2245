"""Predict, round, compare and count in one pass, for many coefficient vectors; generated per formula."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.generate import compiled
from reconstruct.kernels.lattice import Lattice, working_coefficients
from reconstruct.kernels.replay_general import general_source
from reconstruct.kernels.replay_plain import plain_source
from reconstruct.kernels.replay_text import REPLAY_CHUNK
from reconstruct.kernels.results import ReplayResult, View, check_replay

__all__ = ["replay"]


@functools.cache
def _plain(dtypes: tuple[str, ...], formula: Formula, mantissa: int) -> Callable[..., Any]:
    return compiled("replay", plain_source(dtypes, formula, mantissa))


@functools.cache
def _general(dtypes: tuple[str, ...], formula: Formula) -> Callable[..., Any]:
    return compiled("replay", general_source(dtypes, formula))


def replay(
    models: Sequence[View],
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
    lattice: Lattice,
) -> ReplayResult:
    """Compare the suspect with predictions from the other models for V coefficient vectors; see `replay_reference`."""
    check_replay(models, coefficients, divisors, formula)
    dtypes = tuple(m.dtype for m in models)
    result = ReplayResult.empty(len(coefficients))
    counts = np.zeros((len(coefficients), 5), np.int64)
    vectors, scale = working_coefficients(coefficients, divisors, formula)
    # Exponents from which rounding is a matter of mantissa bits alone; with no stored bit left ties need more care.
    low = max(lattice.mantissa + 1, lattice.quantum + 127 + lattice.mantissa) if lattice.mantissa else 256
    shares = 0.5 + 0.5 * np.abs(coefficients / divisors[:, None]).sum(axis=1) + 1e-3
    vectors = np.ascontiguousarray(vectors)

    def general(start: int, stop: int, chosen: slice) -> None:
        _general(dtypes, formula)(
            *(m.bits[start:stop] for m in models), vectors[chosen], scale[chosen], shares[chosen],
            np.int32(lattice.mantissa), np.float32(2.0**lattice.quantum), np.int32(low), counts[chosen],
            result.energy[chosen], result.steps[chosen],
        )  # fmt: skip

    # Numbers that lie on the suspect's lattice need not be rounded to it; a wild sum needs the careful loops.
    on_lattice = all(lattice.holds(dtype) for dtype in dtypes[1:]) and lattice.mantissa > 0
    if on_lattice and formula.working != "float64" and np.abs(coefficients).sum() < 64:
        refused = np.zeros((len(vectors), -(-len(models[0]) // REPLAY_CHUNK)), np.bool_)
        _plain(dtypes, formula, lattice.mantissa)(
            *(m.bits for m in models), vectors, scale, shares, np.int32(low), counts, result.energy, result.steps,
            refused,
        )  # fmt: skip
        for v in np.flatnonzero(refused.any(axis=1)).tolist():
            for first, last in _runs(refused[v]):
                general(first * REPLAY_CHUNK, last * REPLAY_CHUNK, slice(v, v + 1))
    else:
        general(0, len(models[0]), slice(None))
    for column, name in enumerate(("total", "exact", "close", "inside_box", "novel")):
        getattr(result, name)[:] = counts[:, column]
    return result


def _runs(marks: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """[first, last) of neighbouring marked chunks."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
