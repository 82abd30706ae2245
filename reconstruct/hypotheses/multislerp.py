"""multislerp: s = o + (sum_i w_i |v_i|) m / |m|, m = sum_i w_i u_i, u_i = v_i / (|v_i| + 1e-8), w_i summing to one.

Without a base o = 0 and v_i = x_i; with one o = base and v_i = x_i - base; all are flattened. mergekit 0.1.5 then maps
the u_i to the tangent space at m / |m|, averages them with the same w and maps back; the average of the tangents is
m - (m . m/|m|) m/|m| = 0 whatever w is, so the step changes nothing but rounding. Where |m| < 1e-8, two sources are
added linearly and more are refused.

With `normalize_weights` off, w_i ~ c_i |v_i| gives any coefficients c: nothing tells that form from linear.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.hypotheses.base import Fit, misfit
from reconstruct.hypotheses.nuslerp import UNTOLD, NuSlerp, as_linear, separation, source_products
from reconstruct.statistics.moments import COLLINEAR, Moments, affine

__all__ = ["MultiSlerp", "multislerp_weights"]

_EPSILON = 1e-8
_STEP = 1e-6
_ITERATIONS = 30
_LARGEST = 4.0  # weight looked at: beyond, the direction hardly turns any more


def multislerp_weights(weights: NDArray[np.float64], products: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Coefficients [M] of the v_i for weights [M] as they are (normalise them first, if the program does), from the
    inner products [M, M]. None where the directions cancel.
    """
    lengths = np.sqrt(np.maximum(np.diag(products), 0))
    inverse = np.where(lengths > 0, 1 / (lengths + _EPSILON), 0.0)  # a zero v has no say, whatever its coefficient
    mean = weights * inverse
    length = np.sqrt(max(float(mean @ products @ mean), 0.0))
    if length < _EPSILON:
        return weights.copy() if len(weights) == 2 else None
    return np.asarray(mean * (float(weights @ lengths) / length))


def _inverse(normal: NDArray[np.float64], moments: Moments) -> tuple[NDArray[np.float64], bool]:
    """Inverse of a normal matrix, zero along what cannot be told, and whether everything can."""
    scale = np.sqrt(np.maximum(np.diag(normal), 0))
    live = scale**2 > UNTOLD * float(moments.gram[-1, -1])
    by = np.where(live, scale, np.inf)
    unit = normal / np.outer(by, by)
    told = bool(live.all()) and not np.linalg.cond(unit) > COLLINEAR
    return np.linalg.pinv(unit, rcond=1 / COLLINEAR, hermitian=True) / np.outer(by, by), told


class MultiSlerp:
    """Of all sources; with a base (the pivot), of the task vectors of all others."""

    name = "multislerp"

    def __init__(self, *, has_base: bool = False) -> None:
        self.has_base = has_base

    def coefficients(self, weights: NDArray[np.float64], moments: Moments) -> NDArray[np.float64] | None:
        """One coefficient per source, float64 [K+1]; `weights` as the program uses them, none for a base."""
        found = multislerp_weights(weights, source_products(moments.gram, has_base=self.has_base))
        return affine(found) if found is not None and self.has_base else found

    def fit(self, moments: Moments, names: tuple[str, ...]) -> Fit | None:
        """Weights that sum to one: from those of unconstrained least squares, by Gauss-Newton steps on the misfit."""
        products = source_products(moments.gram, has_base=self.has_base)
        members = names[1:] if self.has_base else names
        if len(products) < 2 or not (np.diag(products) > 0).any():
            return None
        weights = self._start(moments, products)
        if self.coefficients(weights, moments) is None:
            return None
        for _ in range(_ITERATIONS):
            normal, gradient = self._linearised(weights, moments)
            better = self._step(weights, _inverse(normal, moments)[0] @ gradient, moments)
            if better is None:
                break
            weights = better
        coefficients = self.coefficients(weights, moments)
        assert coefficients is not None
        residual = misfit(moments, coefficients)
        notes = as_linear(moments, products, coefficients[1:] if self.has_base else coefficients)
        notes += self._as_nuslerp(moments, names, coefficients)
        inverse, told = _inverse(self._linearised(weights, moments)[0], moments)
        covariance = inverse * residual * moments.count / max(moments.count - len(inverse), 1)
        errors = np.sqrt(np.maximum(np.concatenate([[covariance.sum()], np.diag(covariance)]), 0))
        if not told:
            errors[:] = np.inf
            notes = ("the directions are collinear: weights cannot be told apart",)
        return Fit(
            self.name,
            dict(zip(members, weights.tolist(), strict=True)), dict(zip(members, errors.tolist(), strict=True)),
            coefficients, residual, moments.rounding_energy / max(moments.count, 1), notes,
        )  # fmt: skip

    def _start(self, moments: Moments, products: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of the best free coefficients c: w_i ~ c_i |v_i|."""
        suspect = moments.gram[0, 1:] if self.has_base else moments.gram[0, 1:] + moments.gram[-1, 1:]
        inner = suspect[:-1] if self.has_base else np.concatenate([suspect[-1:], suspect[:-1] + suspect[-1]])
        lengths = np.sqrt(np.maximum(np.diag(products), 0))
        scale = np.where(lengths > 0, lengths, 1.0)
        weights = np.linalg.pinv(products / np.outer(scale, scale), rcond=1e-9, hermitian=True) @ (inner / scale)
        total = float(weights.sum())
        usable = abs(total) * _LARGEST >= np.abs(weights).max() > 0
        return weights / total if usable else np.full(len(weights), 1 / len(weights))

    def _linearised(
        self, weights: NDArray[np.float64], moments: Moments
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Normal matrix [M-1, M-1] and gradient [M-1] of the misfit in all weights but the first, which takes up what
        is missing to one.
        """
        here = self.coefficients(weights, moments)
        assert here is not None
        columns = []
        for j in range(1, len(weights)):
            step = np.zeros(len(weights))
            step[j], step[0] = _STEP, -_STEP
            after, before = self.coefficients(weights + step, moments), self.coefficients(weights - step, moments)
            columns.append(np.zeros(len(here)) if after is None or before is None else (after - before) / (2 * _STEP))
        slopes = np.array(columns)
        change = np.concatenate([slopes[:, 1:], slopes.sum(axis=1, keepdims=True)], axis=1)
        left = np.concatenate([[1.0], -here[1:], [1 - here.sum()]]) @ moments.gram[:, 1:]
        return change @ moments.gram[1:, 1:] @ change.T, change @ left

    def _step(
        self, weights: NDArray[np.float64], move: NDArray[np.float64], moments: Moments
    ) -> NDArray[np.float64] | None:
        """The weights after a step, halved until the misfit falls; None where it no longer does."""
        here = self.coefficients(weights, moments)
        assert here is not None
        for halving in range(12):
            part = move / 2**halving
            tried = weights + np.concatenate([[-part.sum()], part])
            found = self.coefficients(tried, moments)
            if found is None or np.abs(tried).max() > _LARGEST:
                continue
            if misfit(moments, found) < misfit(moments, here) * (1 - 1e-12):
                return np.asarray(tried)
        return None

    def _as_nuslerp(self, moments: Moments, names: tuple[str, ...], found: NDArray[np.float64]) -> tuple[str, ...]:
        """A note where two sources of nearly one length leave nuslerp the same merge."""
        if len(names) != (3 if self.has_base else 2):
            return ()
        other = NuSlerp(len(names) - 2, len(names) - 1, has_base=self.has_base).fit(moments, names)
        assert other is not None
        if separation(moments, found, other.coefficients) * moments.count > moments.rounding_energy:
            return ()
        return ("indistinguishable from nuslerp: they differ by less than the rounding",)
