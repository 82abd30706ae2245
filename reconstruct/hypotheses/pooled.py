"""Every family fitted to every tensor, pooled: median parameters, their scatter, and what each leaves unexplained."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from reconstruct.hypotheses.base import Fit, Hypothesis
from reconstruct.hypotheses.linear import Linear
from reconstruct.hypotheses.slerp import Slerp
from reconstruct.hypotheses.task_arithmetic import TaskArithmetic
from reconstruct.statistics.moments import Moments

__all__ = ["fit_families"]


def fit_families(
    tensors: Sequence[Moments], names: tuple[str, ...], families: Collection[str], *, has_base: bool
) -> tuple[Fit, ...]:
    """One Fit a family (a slerp for every pair of sources), the least residual first. `residual` and `floor` are mean
    squares over all elements; `standard_errors` are those of the median, from the scatter between tensors.
    """
    hypotheses: list[tuple[str, Hypothesis]] = []
    if "linear" in families:
        hypotheses.append(("linear", Linear()))
    if "task_arithmetic" in families:
        hypotheses.append(("task_arithmetic", TaskArithmetic(has_base=has_base)))
    if "slerp" in families:
        for i, j in itertools.combinations(range(len(names)), 2):
            hypotheses.append((f"slerp of {names[i]} and {names[j]}", Slerp(i, j)))
    fitted = (_pooled(label, hypothesis, tensors, names) for label, hypothesis in hypotheses)
    return tuple(sorted((fit for fit in fitted if fit is not None), key=lambda fit: fit.residual))


def _pooled(label: str, hypothesis: Hypothesis, tensors: Sequence[Moments], names: tuple[str, ...]) -> Fit | None:
    fits = [fit for moments in tensors if (fit := hypothesis.fit(moments, names)) is not None]
    if not fits:
        return None
    sizes = np.array([moments.count for moments in tensors], np.float64)
    values = {key: np.array([fit.parameters[key] for fit in fits]) for key in fits[0].parameters}
    scale = 1.2533 / np.sqrt(len(fits))  # standard error of a median over that of a mean
    return Fit(
        label,
        {key: float(np.median(v)) for key, v in values.items()},
        {key: float(scale * 1.4826 * np.median(np.abs(v - np.median(v)))) for key, v in values.items()},
        np.median([fit.coefficients for fit in fits], axis=0),
        float(np.average([fit.residual for fit in fits], weights=sizes)),
        float(np.average([fit.floor for fit in fits], weights=sizes)),
        tuple(dict.fromkeys(note for fit in fits for note in fit.notes)),
    )
