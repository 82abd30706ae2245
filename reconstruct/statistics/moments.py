"""Moments: sums over elements that every linear fit needs, and least squares from them alone.

Columns are d = (y, delta_1, ..., delta_K, b) with y = s - b and delta_j = x_j - b, so that nothing cancels.
Moments of disjoint elements add; a change of pivot, a subset of the parents or another model in the suspect's place
is a linear map of the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLLINEAR", "LeastSquares", "Moments", "affine", "least_squares"]

#: Condition number of the deltas' correlation matrix above which coefficients cannot be told apart.
COLLINEAR = 1e6


@dataclass(frozen=True)
class Moments:
    """`gram` float64 [K+2, K+2]; `blocks` float64 [B, K+2, K+2], the same by contiguous parts of the tensor;
    `identical` int64 [K+1]: elements equal to the suspect's, per source, pivot first. `angles`: cosines of pairs of
    sources that are known better than from these elements (which may be some rows of the tensor).
    """

    count: int
    gram: NDArray[np.float64]
    rounding_energy: float
    identical: NDArray[np.int64]
    blocks: NDArray[np.float64]
    angles: dict[tuple[int, int], float] = field(default_factory=dict)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.gram + other.gram,
            self.rounding_energy + other.rounding_energy,
            self.identical + other.identical,
            np.concatenate([self.blocks, other.blocks]),
        )

    @property
    def parents(self) -> int:
        """K, the number of sources beside the pivot."""
        return len(self.gram) - 2

    def with_roles(self, roles: Sequence[int]) -> Moments:
        """Other models in the suspect's and the sources' places: model 0 is the suspect, 1 the pivot, 2 ... further
        sources. `roles` names target, pivot, sources; models left out are dropped. No weights are read.

        `identical` and `rounding_energy` are the suspect's own and stay as they are where the target is another.
        """
        size = self.parents + 1
        raw = np.zeros((size + 1, size + 1))  # raw model = (this row) @ d
        raw[:, -1] = 1
        raw[0, 0] = 1
        for j in range(1, size):
            raw[j + 1, j] = 1
        chosen = raw[list(roles)]
        pivot = chosen[1]
        transform = np.vstack([chosen[0] - pivot, chosen[2:] - pivot, pivot])
        same = np.concatenate([[self.count], self.identical])
        return Moments(
            self.count,
            transform @ self.gram @ transform.T,
            self.rounding_energy,
            same[list(roles[1:])],
            transform @ self.blocks @ transform.T,
            self._angles_in(roles),
        )

    def _angles_in(self, roles: Sequence[int]) -> dict[tuple[int, int], float]:
        """The angles between those that are sources in other roles too."""
        place = {model - 1: position for position, model in enumerate(roles[1:])}
        return {
            (min(place[i], place[j]), max(place[i], place[j])): cosine
            for (i, j), cosine in self.angles.items()
            if i in place and j in place
        }

    def cosine(self, first: int, second: int) -> float:
        """Cosine of two raw sources (0 is the pivot), as flattened tensors."""
        if (known := self.angles.get((min(first, second), max(first, second)))) is not None:
            return known
        g, last = self.gram, self.parents + 1

        def inner(i: int, j: int) -> float:
            value = g[last, last]
            if i:
                value += g[i, last]
            if j:
                value += g[j, last]
            return float(value + (g[i, j] if i and j else 0.0))

        norm = np.sqrt(max(inner(first, first), 0.0) * max(inner(second, second), 0.0))
        return float(np.clip(inner(first, second) / norm, -1, 1)) if norm > 0 else 1.0


@dataclass(frozen=True)
class LeastSquares:
    """`weights` float64 [K]: coefficients of the deltas; the pivot's share is 1 - sum. `standard_errors` assume
    independent residuals, which rounding and training are not: they are a lower bound. `explained` is R^2.
    """

    weights: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    sum_to_one: NDArray[np.float64]
    residual: float
    explained: float
    condition: float

    @property
    def collinear(self) -> bool:
        """Whether the coefficients cannot be told apart."""
        return not self.condition < COLLINEAR


def affine(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the deltas [..., K] -> coefficients of the sources [..., K+1], pivot first, which sum to one."""
    return np.concatenate([1 - weights.sum(axis=-1, keepdims=True), weights], axis=-1)


def least_squares(gram: NDArray[np.float64], count: int) -> LeastSquares:
    """min_w |y - sum w_j delta_j|^2 from the moments. `residual` is the sum of squares left.

    The fit with weights that sum to one is given beside the free one: less biased where it applies.
    """
    size = len(gram) - 2
    G, g, total = gram[1 : 1 + size, 1 : 1 + size], gram[0, 1 : 1 + size], float(gram[0, 0])
    scale = np.sqrt(np.maximum(np.diag(G), 0))
    live = scale > 0
    weights, errors, one = np.zeros(size), np.full(size, np.inf), np.zeros(size)
    condition = np.inf
    if live.any():
        normal = G[np.ix_(live, live)] / np.outer(scale[live], scale[live])
        eigenvalues = np.linalg.eigvalsh(normal)
        condition = float(eigenvalues[-1] / max(eigenvalues[0], 1e-300))
        inverse = np.linalg.pinv(normal, rcond=1e-12, hermitian=True)
        weights[live] = inverse @ (g[live] / scale[live]) / scale[live]
        residual = max(total - 2 * float(weights @ g) + float(weights @ G @ weights), 0.0)
        variance = residual / max(count - int(live.sum()), 1)
        errors[live] = np.sqrt(variance * np.maximum(np.diag(inverse), 0)) / scale[live]
        direction = np.zeros(size)
        direction[live] = inverse @ (1 / scale[live]) / scale[live]
        curvature = float(direction.sum())
        one = weights + direction * ((1 - weights.sum()) / curvature) if curvature > 0 else weights
    else:
        residual = total
    explained = 1 - residual / total if total > 0 else 0.0
    return LeastSquares(weights, errors, one, residual, explained, condition)
