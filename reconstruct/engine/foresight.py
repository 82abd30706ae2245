"""Which replay the analysis will ask for, foreseen from the tensors that were measured first.

A merge with one recipe for the whole model shows it in a handful of tensors. The others are then replayed with it while
their weights are at hand, and the analysis, which finds its recipe from all tensors and knows nothing of this, meets
most replays in the store: each byte was read once. A wrong guess costs a replay and changes no result.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.dataset import Dataset, fit_all, subset, without_duplicates
from reconstruct.evidence import Measurement, SourceTable
from reconstruct.fitting import rows_for
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.select import Kernels
from reconstruct.recipe import Recipe
from reconstruct.replay.search import find_exact
from reconstruct.replay.variants import Variant, in_program_form

__all__ = ["Foreseen", "Foresight"]

_ENOUGH = 6  # voting tensors that a recipe is read off
_AT_EASE = 1e-3  # mean excess over the permitted distance, in spacings, of a tensor that follows the recipe


@dataclass(frozen=True)
class Foreseen:
    """The replay of one tensor; `models` in the formula's order, 0 is the suspect."""

    models: tuple[int, ...]
    coefficients: NDArray[np.float64]
    divisors: NDArray[np.float64]
    formula: Formula


class Foresight:
    """Learns from finished tensors in the thread that collects them; asked by the workers."""

    def __init__(self, table: SourceTable, families: frozenset[str], kernels: Kernels, seed: int) -> None:
        self._table, self._families, self._kernels, self._seed = table, families, kernels, seed
        self._first: list[Measurement] = []
        self._guess: tuple[SourceTable, Recipe, list[Variant], int] | None = None
        self._tried = False
        self._lock = threading.Lock()

    def learn(self, measurement: Measurement) -> None:
        """Another tensor is finished."""
        if self._tried or not measurement.votes or len(self._table.names) < 2:
            return
        self._first.append(measurement)
        if len(self._first) < _ENOUGH:
            return
        self._tried = True
        distinct, table = without_duplicates(self._first, self._table)
        self._first = []
        if len(table.names) < 2:
            return
        fits = fit_all(distinct, self._families, 1, self._seed)
        exact = find_exact(Dataset(table, distinct, fits, self._kernels, self._families, 1, self._seed))
        if exact is None or exact.recipe.partition != "constant" or exact.recipe.pair is not None:
            return
        with self._lock:
            self._guess = table, exact.recipe, exact.tied, exact.tolerance

    def replays_of(self, measurement: Measurement) -> list[Foreseen]:
        """What will be asked of this tensor; nothing if nothing is known or the tensor contradicts it."""
        with self._lock:
            guess = self._guess
        if guess is None:
            return []
        table, recipe, variants, tolerance = guess
        keep = [self._table.models.index(model) for model in table.models]
        (own,), _ = subset([measurement], self._table, keep)
        coefficients = recipe.evaluate(recipe.cells[0].parameters, own.moments)
        rows = rows_for(own)
        if len(rows) and rows.violation(coefficients[1:], tolerance) > _AT_EASE:
            return []
        found = []
        for variant in variants:
            vector, divisor = in_program_form(coefficients, variant, recipe.scale(measurement.name))
            models = (0, *(table.models[j] for j in variant.order))
            found.append(Foreseen(models, vector[None], np.array([divisor]), variant.arithmetic.formula))
        return found
