"""nuslerp: s = o + (sin((1-t) theta) v_1 + sin(t theta) v_2) / sin(theta), t = w_2 / (w_1 + w_2).

Without a base o = 0 and v_j = x_j; with one o = base and v_j = x_j - base. theta is the angle between v_1 and v_2: of
the flattened tensors (`nuslerp_flatten`, the default), else of each slice along the last axis (a row), or along the
first (a column: what `nuslerp_row_wise` does). The v_j keep their lengths. The linear fallback, 1 - cos^2 <= 1e-16, is
where float32 rounds |cos| to one: as good as none. Directions divide by max(|v|, 1e-7): a zero v has cos 0, not 1.
(Shoemake 1985 for the formula; its form, thresholds and flags are those of mergekit 0.1.5.)

Without a base the coefficients are those of slerp wherever slerp is not in its linear branch. With a base they lie in
the span of linear with the base as a source: only one parameter where linear needs two tells them apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.hypotheses.base import Fit, misfit
from reconstruct.hypotheses.slerp import LINEAR_BRANCH
from reconstruct.statistics.moments import Moments, affine

__all__ = [
    "UNTOLD", "NuSlerp", "as_linear", "nuslerp_weights", "separation", "slice_coefficients", "source_products",
]  # fmt: skip

#: Squared share of a tensor's length below which two tensors count as the same.
UNTOLD = 1e-14
_SHORTEST = 1e-7  # least length that a direction is divided by
_COLLINEAR = 1e-16  # 1 - cos^2 of the linear fallback
_LOW, _HIGH = -0.5, 1.5  # of t
_STEP = 1e-5


def source_products(gram: NDArray[np.float64], *, has_base: bool) -> NDArray[np.float64]:
    """Inner products, from a Gram matrix [..., K+2, K+2]: of the task vectors [..., K, K] with a base, else of the raw
    sources [..., K+1, K+1], pivot first.
    """
    if has_base:
        return gram[..., 1:-1, 1:-1]
    size = gram.shape[-1] - 1
    raw = np.zeros((size, size))  # raw source = (this row) @ (delta_1, ..., delta_K, b)
    raw[:, -1] = 1
    raw[np.arange(1, size), np.arange(size - 1)] = 1
    return np.asarray(raw @ gram[..., 1:, 1:] @ raw.T)


def separation(moments: Moments, first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Mean squared difference of the merges that two coefficient vectors [K+1] make."""
    change = first - second
    vector = np.concatenate([[0.0], change[1:], [change.sum()]])
    return max(float(vector @ moments.gram @ vector), 0.0) / max(moments.count, 1)


def as_linear(moments: Moments, products: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[str, ...]:
    """A note where sum_i weights_i v_i lies within the rounding of some linear merge of the v_i, whose weights sum to
    one: the distance is |1 - sum of weights| times that of the origin to the v_i's affine hull. `products` [M, M].
    """
    rest = products[1:, 1:] - products[1:, :1] - products[:1, 1:] + products[0, 0]
    across = products[0, 1:] - products[0, 0]
    inverse = np.linalg.pinv(rest, rcond=1e-10, hermitian=True)
    hull = max(float(products[0, 0] - across @ inverse @ across), 0.0)
    if (1 - float(weights.sum())) ** 2 * hull > moments.rounding_energy:
        return ()
    return ("indistinguishable from linear: they differ by less than the rounding",)


def nuslerp_weights(t: NDArray[np.float64], products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients [..., 2] of v_1 and v_2, from their inner products [..., 2, 2]; t broadcasts over the slices."""
    lengths = np.sqrt(np.maximum(np.diagonal(products, axis1=-2, axis2=-1), 0))
    cosine = np.clip(products[..., 0, 1] / np.maximum(lengths, _SHORTEST).prod(axis=-1), -1, 1)
    linear = 1 - cosine**2 <= _COLLINEAR
    theta = np.arccos(np.where(linear, 0.0, cosine))
    first = np.where(linear, 1 - t, np.sin((1 - t) * theta) / np.sin(theta))
    second = np.where(linear, t, np.sin(t * theta) / np.sin(theta))
    return np.stack([first, second], axis=-1)


def slice_coefficients(
    t: NDArray[np.float64], grams: NDArray[np.float64], first: int, second: int, *, has_base: bool
) -> NDArray[np.float64]:
    """Coefficients of the sources [T, S, K+1] for each t [T], slice by slice, from Gram matrices [S, K+2, K+2] of the
    rows, the columns, or (one slice) of the whole tensor. Sources are given by position; 0 is the pivot or the base.
    """
    at = [first - has_base, second - has_base]
    products = source_products(grams, has_base=has_base)
    weights = np.zeros((len(t), *products.shape[:-1]))
    weights[..., at] = nuslerp_weights(t[:, None], products[:, at][:, :, at])
    return affine(weights) if has_base else weights


class NuSlerp:
    """Between two sources, given by position (0 is the pivot); with a base (the pivot), between their task vectors."""

    name = "nuslerp"

    def __init__(self, first: int = 0, second: int = 1, *, has_base: bool = False) -> None:
        self.first, self.second, self.has_base = first, second, has_base

    def coefficients(self, t: float, moments: Moments) -> NDArray[np.float64]:
        """One coefficient per source, float64 [K+1], of the flattened form."""
        return np.asarray(self._coefficients(np.array([t]), moments.gram[None])[0, 0])

    def _coefficients(self, t: NDArray[np.float64], grams: NDArray[np.float64]) -> NDArray[np.float64]:
        return slice_coefficients(t, grams, self.first, self.second, has_base=self.has_base)

    def estimate(self, grams: NDArray[np.float64], count: int) -> tuple[float, float]:
        """Least squares t over [-0.5, 1.5], and its standard error, from the Gram matrices [S, K+2, K+2] of all slices;
        `count` elements. A t that no element depends on is 0.5 with an infinite error.
        """

        def misfits(t: NDArray[np.float64]) -> NDArray[np.float64]:
            sources = self._coefficients(t, grams)
            one = np.ones((*sources.shape[:-1], 1))
            vectors = np.concatenate([one, -sources[..., 1:], 1 - sources.sum(axis=-1, keepdims=True)], axis=-1)
            return np.asarray(np.einsum("tsi,sij,tsj->t", vectors, grams, vectors))

        low, high = _LOW, _HIGH
        for _ in range(6):  # to within 2e-9
            grid = np.linspace(low, high, 65)
            best = int(np.argmin(misfits(grid)))
            low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 64)])
        t = (low + high) / 2
        near = self._coefficients(np.array([t - _STEP, t + _STEP]), grams)
        slope = (near[1] - near[0]) / (2 * _STEP)
        vectors = np.concatenate([slope[:, 1:], slope.sum(axis=-1, keepdims=True)], axis=-1)
        curvature = float(np.einsum("si,sij,sj->", vectors, grams[:, 1:, 1:], vectors))
        if curvature <= UNTOLD * float(source_products(grams, has_base=False)[:, 0, 0].sum()):
            return 0.5, np.inf
        return t, float(np.sqrt(max(float(misfits(np.array([t]))[0]), 0.0) / max(count - 1, 1) / curvature))

    def fit(self, moments: Moments, names: tuple[str, ...]) -> Fit | None:  # noqa: ARG002 - the protocol's
        """Estimate t of the flattened form. The names of the sources play no part."""
        pair = (self.first, self.second)
        if self.first == self.second or max(pair) > moments.parents or (self.has_base and 0 in pair):
            return None
        t, error = self.estimate(moments.gram[None], moments.count)
        coefficients = self.coefficients(t, moments)
        at = np.array(pair) - self.has_base
        notes = as_linear(moments, source_products(moments.gram, has_base=self.has_base)[np.ix_(at, at)],
                          coefficients[list(pair)])  # fmt: skip
        if not self.has_base and abs(moments.cosine(*pair)) <= LINEAR_BRANCH:
            notes += ("indistinguishable from slerp: the same coefficients",)
        if not np.isfinite(error):
            notes = ("t cannot be told: the two tensors are the same",)
        return Fit(self.name, {"t": t}, {"t": error}, coefficients, misfit(moments, coefficients),
                   moments.rounding_energy / max(moments.count, 1), notes)  # fmt: skip
