"""model_stock: s = t mean_j(x_j) + (1 - t) base, t = n c / (1 + (n - 1) c), c the mean cosine of the task vectors.

c averages cos(x_i - base, x_j - base) over all pairs of the n parents: of the whole tensor, or of each row with
`filter_wise`. Products of lengths count as at least 1e-6; where |1 + (n - 1) c| < 1e-6 the base is kept, t = 0.
(Jang et al. 2024, "Model Stock", equation 7; limits as in mergekit 0.1.5.) No parameter is free: the fit is a test.

The coefficients lie in the span of linear with the base as a source: that none is free is all that tells them apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.hypotheses.base import Fit, misfit
from reconstruct.hypotheses.karcher import standard_errors_away
from reconstruct.hypotheses.nuslerp import as_linear, source_products
from reconstruct.statistics.moments import Moments, affine

__all__ = ["ModelStock", "model_stock_coefficients"]

_SHORTEST = 1e-6  # least product of two lengths
_SINGULAR = 1e-6


def model_stock_coefficients(grams: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients of the sources [..., K+1], base first, from Gram matrices [..., K+2, K+2] of rows or tensors."""
    products = source_products(grams, has_base=True)
    count = products.shape[-1]
    lengths = np.sqrt(np.maximum(np.diagonal(products, axis1=-2, axis2=-1), 0))
    outer = np.maximum(lengths[..., :, None] * lengths[..., None, :], _SHORTEST)
    first, second = np.triu_indices(count, 1)
    cosine = np.clip((products / outer)[..., first, second], -1, 1).mean(axis=-1)
    denominator = 1 + (count - 1) * cosine
    singular = np.abs(denominator) < _SINGULAR
    ratio = np.where(singular, 0.0, count * cosine / np.where(singular, 1.0, denominator))
    return affine(np.repeat(ratio[..., None] / count, count, axis=-1))


class ModelStock:
    """Of all parents around the pivot, which is the base."""

    name = "model_stock"

    def __init__(self, *, has_base: bool = True) -> None:
        self.has_base = has_base

    def coefficients(self, moments: Moments) -> NDArray[np.float64]:
        """One coefficient per source, float64 [K+1], base first."""
        return model_stock_coefficients(moments.gram)

    def fit(self, moments: Moments, names: tuple[str, ...]) -> Fit | None:  # noqa: ARG002 - the protocol's
        """The predicted merge against the suspect; None without a base or with fewer than two parents."""
        if not self.has_base or moments.parents < 2:
            return None
        coefficients = self.coefficients(moments)
        products = source_products(moments.gram, has_base=True)
        notes = as_linear(moments, products, coefficients[1:])
        if not np.diag(products).any():
            notes = ("the parents do not differ from the base",)
        away = standard_errors_away(moments, coefficients, range(1, moments.parents + 1), has_base=True)
        parameters = {"t": 1 - float(coefficients[0]), "standard errors away": away}
        return Fit(self.name, parameters, {}, coefficients, misfit(moments, coefficients),
                   moments.rounding_energy / max(moments.count, 1), notes)  # fmt: skip
