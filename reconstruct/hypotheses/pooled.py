"""Every family fitted to every tensor, pooled: median parameters, their scatter, and what each leaves unexplained."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from reconstruct.hypotheses.base import Fit, Hypothesis
from reconstruct.hypotheses.karcher import Karcher
from reconstruct.hypotheses.linear import Linear
from reconstruct.hypotheses.model_stock import ModelStock
from reconstruct.hypotheses.multislerp import MultiSlerp
from reconstruct.hypotheses.nuslerp import NuSlerp
from reconstruct.hypotheses.passthrough import Passthrough
from reconstruct.hypotheses.slerp import Slerp
from reconstruct.hypotheses.task_arithmetic import TaskArithmetic
from reconstruct.statistics.moments import Moments

__all__ = ["fit_families"]


def fit_families(
    tensors: Sequence[Moments], names: tuple[str, ...], families: Collection[str], *, has_base: bool
) -> tuple[Fit, ...]:
    """One Fit a family and choice of sources, the least residual first: slerp and nuslerp of every pair, passthrough of
    every source, the others of all; nuslerp, multislerp also around the base, karcher also without it. `residual` and
    `floor` are mean squares over all elements; `standard_errors` those of the median, from the scatter between tensors.
    """
    hypotheses = [
        (label, hypothesis)
        for label, hypothesis in [*_of_pairs(names, has_base), *_of_all(names, has_base)]
        if hypothesis.name in families
    ]
    fitted = (_pooled(label, hypothesis, tensors, names) for label, hypothesis in hypotheses)
    return tuple(sorted((fit for fit in fitted if fit is not None), key=lambda fit: fit.residual))


def _of_pairs(names: tuple[str, ...], has_base: bool) -> list[tuple[str, Hypothesis]]:
    found: list[tuple[str, Hypothesis]] = []
    for i, j in itertools.combinations(range(len(names)), 2):
        pair = f"{names[i]} and {names[j]}"
        found += [(f"slerp of {pair}", Slerp(i, j)), (f"nuslerp of {pair}", NuSlerp(i, j))]
        if has_base and i:
            found.append((f"nuslerp of {pair} on {names[0]}", NuSlerp(i, j, has_base=True)))
    return found


def _of_all(names: tuple[str, ...], has_base: bool) -> list[tuple[str, Hypothesis]]:
    # Of equal residuals the first stays first: linear before what spans the same.
    found: list[tuple[str, Hypothesis]] = [
        ("linear", Linear()), ("task_arithmetic", TaskArithmetic(has_base=has_base)),
        ("model_stock", ModelStock(has_base=has_base)), ("multislerp", MultiSlerp()), ("karcher", Karcher()),
    ]  # fmt: skip
    found += [(f"passthrough of {name}", Passthrough(source)) for source, name in enumerate(names)]
    if has_base:
        found.append((f"multislerp on {names[0]}", MultiSlerp(has_base=True)))
        found.append((f"karcher without {names[0]}", Karcher(range(1, len(names)))))
    return found


def _pooled(label: str, hypothesis: Hypothesis, tensors: Sequence[Moments], names: tuple[str, ...]) -> Fit | None:
    found = [(moments.count, fit) for moments in tensors if (fit := hypothesis.fit(moments, names)) is not None]
    if not found:
        return None
    fits = [fit for _, fit in found]
    sizes = np.array([count for count, _ in found], np.float64)
    # A tensor that says nothing of a parameter, an infinite standard error, has no vote on it.
    votes = [fit for fit in fits if np.isfinite(list(fit.standard_errors.values())).all()] or fits
    values = {key: np.array([fit.parameters[key] for fit in votes]) for key in fits[0].parameters}
    scale = 1.2533 / np.sqrt(len(votes))  # standard error of a median over that of a mean
    notes = tuple(dict.fromkeys(note for fit in fits for note in fit.notes))
    if len(fits) < len(tensors):
        notes += (f"applies to {len(fits)} of {len(tensors)} tensors",)
    return Fit(
        label,
        {key: float(np.median(v)) for key, v in values.items()},
        {key: float(scale * 1.4826 * np.median(np.abs(v - np.median(v)))) for key, v in values.items()},
        np.median([fit.coefficients for fit in votes], axis=0),
        float(np.average([fit.residual for fit in fits], weights=sizes)),
        float(np.average([fit.floor for fit in fits], weights=sizes)),
        notes,
    )
