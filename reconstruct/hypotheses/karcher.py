"""karcher: s = (sum_i |x_i| / n) m, m the Karcher mean of the directions x_i / |x_i| on the unit sphere, flattened.

m minimises the sum of squared angles (Karcher 1977): start at the normalised mean of the directions, then step along
the mean of their logarithms, theta_i / sin(theta_i) (u_i - cos(theta_i) m), until it is shorter than 1e-5 or after ten
steps, as mergekit 0.1.5 does; sources no longer than 1e-5 have no say in m, angles below 1e-5 none in a step. A base
that mergekit is given is a source like the others. No parameter is free: the fit is a test.

Of two sources this is multislerp with equal weights; of more it differs from that by the cube of the angles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.hypotheses.base import Fit, misfit
from reconstruct.hypotheses.multislerp import multislerp_weights
from reconstruct.hypotheses.nuslerp import as_linear, separation, source_products
from reconstruct.statistics.moments import Moments

__all__ = ["Karcher", "karcher_weights", "standard_errors_away"]

_TOLERANCE = 1e-5
_ITERATIONS = 10
_ANTIPODAL = 1e-6  # 1 + cos below which the logarithm has no direction
_ELEMENT_ERROR = 2.0**-24  # relative error of an element in a merge program's float32
_SCALE_ERROR = 2.0**-20  # of all coefficients together: its norms and angles are float32 sums over a tensor


def karcher_weights(
    products: NDArray[np.float64], iterations: int = _ITERATIONS, tolerance: float = _TOLERANCE
) -> NDArray[np.float64] | None:
    """Coefficients [M] of the x_i, from their inner products [M, M]. None where directions oppose each other."""
    lengths = np.sqrt(np.maximum(np.diag(products), 0))
    live = lengths > tolerance
    result = np.zeros(len(lengths))
    if not live.any():
        return result
    cosines = products[np.ix_(live, live)] / np.outer(lengths[live], lengths[live])
    size = len(cosines)

    def length(of: NDArray[np.float64]) -> float:
        return float(np.sqrt(max(float(of @ cosines @ of), 0.0)))

    mean = np.full(size, 1 / size)  # as weights of the directions
    if length(mean) < tolerance:
        mean = np.eye(size)[0]
    mean = mean / length(mean)
    for _ in range(iterations):
        cosine = np.clip(cosines @ mean, -1, 1)
        if (cosine < -1 + _ANTIPODAL).any():
            return None
        theta = np.arccos(cosine)
        pull = np.where(theta < tolerance, 0.0, theta / np.where(theta < tolerance, 1.0, np.sin(theta))) / size
        tangent = pull - float(pull @ cosine) * mean
        far = length(tangent)
        if far < tolerance:
            break
        mean = np.cos(far) * mean + np.sin(far) / far * tangent
        mean = mean / length(mean)
    result[live] = mean / lengths[live] * lengths.mean()
    return result


def standard_errors_away(
    moments: Moments, coefficients: NDArray[np.float64], free: Sequence[int], *, has_base: bool
) -> float:
    """Root mean square distance of the best free coefficients from these, in their standard errors: about one where
    these are right, up to what rounding adds. `free` sources by position; with a base, of their task vectors. Rounding
    that depends on the element makes the errors a lower bound; a program's own float32 is allowed for.
    """
    basis = np.zeros((len(free), moments.parents + 1))  # source = row @ (delta_1, ..., delta_K, b)
    basis[:, -1] = 0 if has_base else 1
    for row, source in enumerate(free):
        if source:
            basis[row, source - 1] = 1
    left = np.concatenate([[1.0], -coefficients[1:], [1 - coefficients.sum()]])
    inner = basis @ (moments.gram[1:] @ left)
    normal = basis @ moments.gram[1:, 1:] @ basis.T
    scale = np.sqrt(np.maximum(np.diag(normal), 0))
    scale = np.where(scale > 0, scale, 1.0)
    inverse = np.linalg.pinv(normal / np.outer(scale, scale), rcond=1e-12, hermitian=True)
    gain = max(float((inner / scale) @ inverse @ (inner / scale)), 0.0)
    rest = max(misfit(moments, coefficients) * moments.count - gain, 0.0) / max(moments.count - len(free), 1)
    variance = max(rest, _ELEMENT_ERROR**2 * float(moments.gram[-1, -1]) / max(moments.count, 1))
    if not variance > 0:
        return 0.0
    # An error e common to all coefficients c adds e^2 c c^T to their covariance, variance * normal^-1.
    own = coefficients[list(free)]
    common = (_SCALE_ERROR * float(inner @ own) / variance) ** 2
    common /= 1 + _SCALE_ERROR**2 * float(own @ normal @ own) / variance
    return float(np.sqrt(max(gain / variance - common, 0.0) / len(free)))


class Karcher:
    """Of the sources at `members` (0 is the pivot), of all unless given."""

    name = "karcher"

    def __init__(self, members: Sequence[int] | None = None) -> None:
        self.members = members

    def _members(self, moments: Moments) -> list[int]:
        return list(range(moments.parents + 1) if self.members is None else self.members)

    def coefficients(self, moments: Moments) -> NDArray[np.float64] | None:
        """One coefficient per source, float64 [K+1]."""
        members = self._members(moments)
        products = source_products(moments.gram, has_base=False)
        found = karcher_weights(products[np.ix_(members, members)])
        if found is None:
            return None
        result = np.zeros(moments.parents + 1)
        result[members] = found
        return result

    def fit(self, moments: Moments, names: tuple[str, ...]) -> Fit | None:  # noqa: ARG002 - the protocol's
        """The predicted merge against the suspect; `standard errors away` is the distance of the best free one."""
        members = self._members(moments)
        if len(members) < 2 or max(members) > moments.parents:
            return None
        coefficients = self.coefficients(moments)
        if coefficients is None:
            return None
        chosen = source_products(moments.gram, has_base=False)[np.ix_(members, members)]
        notes = as_linear(moments, chosen, coefficients[members])
        equal = np.zeros_like(coefficients)
        same = multislerp_weights(np.full(len(members), 1 / len(members)), chosen)
        if same is not None:
            equal[members] = same
            if separation(moments, coefficients, equal) * moments.count <= moments.rounding_energy:
                notes += ("indistinguishable from multislerp with equal weights",)
        away = standard_errors_away(moments, coefficients, members, has_base=False)
        return Fit(self.name, {"standard errors away": away}, {}, coefficients, misfit(moments, coefficients),
                   moments.rounding_energy / max(moments.count, 1), notes)  # fmt: skip
