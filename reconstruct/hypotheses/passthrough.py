"""passthrough: s = c x_k, one source times a scale; the least squares c is <s, x_k> / |x_k|^2.

mergekit 0.1.5 multiplies in the tensor's own dtype, or copies where no scale is given. A scale of one is a copy, which
linear with a single weight also makes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.hypotheses.base import Fit, misfit
from reconstruct.hypotheses.nuslerp import source_products
from reconstruct.statistics.moments import Moments

__all__ = ["Passthrough"]


class Passthrough:
    """Of the source at a position (0 is the pivot), or of whichever leaves the least."""

    name = "passthrough"

    def __init__(self, source: int | None = None) -> None:
        self.source = source

    def coefficients(self, scale: float, moments: Moments, source: int | None = None) -> NDArray[np.float64]:
        """One coefficient per source, float64 [K+1]: zero for all but one (the pivot, if none was chosen)."""
        result = np.zeros(moments.parents + 1)
        result[(self.source or 0) if source is None else source] = scale
        return result

    def fit(self, moments: Moments, names: tuple[str, ...]) -> Fit | None:
        """The scale of the best source; a note names it. None where the source is zero."""
        sources = range(moments.parents + 1) if self.source is None else [self.source]
        fits = [self._fit_to(source, moments, names) for source in sources if source <= moments.parents]
        return min((fit for fit in fits if fit is not None), key=lambda fit: fit.residual, default=None)

    def _fit_to(self, source: int, moments: Moments, names: tuple[str, ...]) -> Fit | None:
        squared = float(source_products(moments.gram, has_base=False)[source, source])
        if not squared > 0:
            return None
        # <s - x, x> / |x|^2, so that a scale near one loses no digits
        away = self.coefficients(1.0, moments, source)
        left = moments.gram @ np.concatenate([[1.0], -away[1:], [1 - away.sum()]])
        excess = float(left[-1] + (left[source] if source else 0.0)) / squared
        coefficients = self.coefficients(1 + excess, moments, source)
        residual = misfit(moments, coefficients)
        error = float(np.sqrt(residual * moments.count / max(moments.count - 1, 1) / squared))
        notes: tuple[str, ...] = (f"of {names[source]}",) if self.source is None else ()
        if excess**2 * squared <= moments.rounding_energy:
            notes += ("indistinguishable from linear: a copy, to within the rounding",)
        return Fit(self.name, {"scale": 1 + excess}, {"scale": error}, coefficients, residual,
                   moments.rounding_energy / max(moments.count, 1), notes)  # fmt: skip
