"""Replay a recipe over the whole model, and on samples its decoys: wrong coefficients on the right weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset
from reconstruct.kernels.results import ReplayResult
from reconstruct.parallel import parallel
from reconstruct.replay.samples import DELTA
from reconstruct.replay.variants import Variant, in_program_form

__all__ = ["ModelReplay", "replay_model", "wrong_coefficients"]


@dataclass(frozen=True)
class ModelReplay:
    """Per tensor: coefficients float64 [K+1] in the sources' own order, the result, and that of the best decoy (on the
    sample).
    """

    variant: Variant
    coefficients: tuple[NDArray[np.float64], ...]
    results: tuple[ReplayResult, ...]
    decoys: tuple[ReplayResult, ...]

    @property
    def exact(self) -> int:
        """Elements reproduced over all tensors."""
        return sum(int(r.exact[0]) for r in self.results)


def wrong_coefficients(coefficients: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Decoys of one coefficient vector [K+1]: weights exchanged (where that changes them) and deltas flipped."""
    weights = coefficients[1:]
    flipped = -weights
    decoys = [np.concatenate([[coefficients.sum() - flipped.sum()], flipped])]
    live = np.flatnonzero(np.abs(coefficients) > 1e-9)
    exchanged = coefficients.copy()
    exchanged[live] = coefficients[np.roll(live, 1)]
    if np.abs(exchanged - coefficients).max() > 0.02:
        decoys.append(exchanged)
    return decoys


def replay_model(
    data: Dataset,
    coefficients: Sequence[NDArray[np.float64]],
    variant: Variant,
    progress: Callable[[int], None] | None = None,
    scales: Sequence[float | None] | None = None,
) -> ModelReplay:
    """Replay every tensor with its coefficients (and the sums they were divided by, where known); `progress` is told
    the number of elements compared.
    """

    def one(position: int) -> tuple[ReplayResult, ReplayResult]:
        chosen = coefficients[position]
        vector, divisor = in_program_form(chosen, variant, scales[position] if scales is not None else None)
        formula = variant.arithmetic.formula
        result = data.replay(position, variant.order, vector[None], np.array([divisor]), formula)
        # What chance reaches does not depend on the order of operations: one formula serves all decoys.
        decoys = data.replay_sample(position, np.array(wrong_coefficients(chosen)), DELTA)
        if progress is not None:
            progress(data.measurements[position].elements)
        return result, decoys.vector(int(np.argmax(decoys.novel_exact)))

    pairs = parallel(one, range(len(coefficients)), data.threads)
    return ModelReplay(variant, tuple(coefficients), tuple(r for r, _ in pairs), tuple(d for _, d in pairs))
