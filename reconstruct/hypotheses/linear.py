"""linear: s = sum_j c_j x_j with weights that sum to one (the base counts as a source)."""

from __future__ import annotations

from reconstruct.hypotheses.base import Fit, misfit
from reconstruct.statistics.moments import Moments, affine, least_squares

__all__ = ["Linear"]


class Linear:
    """Closed form: least squares in delta space; the pivot's share is what is missing to one."""

    name = "linear"

    def fit(self, moments: Moments, names: tuple[str, ...]) -> Fit | None:
        """Free weights of every delta. Collinear deltas are fitted, and said to be so."""
        solution = least_squares(moments.gram, moments.count)
        coefficients = affine(solution.weights)
        notes = ("the deltas are collinear: coefficients cannot be told apart",) if solution.collinear else ()
        return Fit(
            self.name,
            dict(zip(names, coefficients.tolist(), strict=True)),
            dict(zip(names[1:], solution.standard_errors.tolist(), strict=True)),
            coefficients,
            misfit(moments, coefficients),
            moments.rounding_energy / max(moments.count, 1),
            notes,
        )
