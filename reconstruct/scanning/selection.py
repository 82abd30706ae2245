"""Which few candidates explain the suspect's movement, from inner products alone: a lead, never a proof.

Orthogonal matching pursuit in which every step chooses all picks anew: the best k of a dozen contenders, weights not
negative and summing to one at most (the pivot has the rest). Picking one after the other would begin with another merge
of the same parents, or with a relative of two of them, and never come back. A step counts only if it explains more than
the best of as many decoys does, by several standard errors of the scatter between blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from reconstruct.criteria import THRESHOLDS
from reconstruct.scanning.inner_products import InnerProducts

__all__ = ["BEYOND_DECOYS", "CONTENDERS", "LARGEST", "NEAR", "Selection", "Subset", "continued", "select_candidates"]

#: Standard errors by which a candidate must explain more than the best decoy.
BEYOND_DECOYS = 5.0
#: Candidates in a selection, at most.
LARGEST = 4
#: Candidates that subsets are chosen among, at most.
CONTENDERS = 14
#: Cosine of two movements above which regression cannot be trusted to tell them apart.
NEAR = 0.9
_MATERIAL = 0.02  # weight below which a pick explains nothing worth a name
_RIVAL = 1.25  # unexplained energy over the best subset's up to which another one is worth a fit
_MUCH = 0.5  # of the chosen subset's residual that a pair with a negative weight may leave, to be tried
_NOTHING = 1e-13  # share of the energy below which only the arithmetic's own error is left


@dataclass(frozen=True)
class Subset:
    """Candidates (positions, ascending) with their weights; `residual`: share of the suspect's movement unexplained."""

    members: tuple[int, ...]
    weights: tuple[float, ...]
    residual: float


@dataclass(frozen=True)
class Selection:
    """`chosen`: what explains the suspect best; `rivals`: others of the same size that do nearly as well, best first;
    `smaller`: the best of every size below, largest first; `without`: for each chosen one, the best subset of at most
    that size that lacks it. `extrapolated`: a pair that explains much more, but with a negative weight, as the children
    of the suspect do. `alone`: standard errors beyond decoys of each candidate by itself; `beside`: the same, added to
    the chosen ones (of a chosen one: beside the rest).
    """

    chosen: Subset
    rivals: tuple[Subset, ...]
    smaller: tuple[Subset, ...]
    without: dict[int, Subset]
    extrapolated: Subset | None
    alone: tuple[float, ...]
    beside: tuple[float, ...]


def select_candidates(products: InnerProducts, excluded: Sequence[int] = ()) -> Selection:
    """The selection from the inner products of N candidates, those at `excluded` positions apart. Nothing is chosen
    where none beats decoys.
    """
    contenders = [j for j in _contenders(products) if j not in excluded]
    chosen = nothing = Subset((), (), 1.0)
    smaller: list[Subset] = []
    for size in range(1, LARGEST + 1):
        best = next(iter(_best(products, contenders, size)), None)
        if best is None or min(best.weights) < _MATERIAL:
            break
        if _beyond_decoys(products, chosen, best) < BEYOND_DECOYS:
            break
        smaller += [chosen] if chosen.members else []
        chosen = best
    size = len(chosen.members)
    others = _best(products, contenders, size)[1:] if size else []
    rivals = [s for s in others if s.residual <= _RIVAL * chosen.residual + _NOTHING]
    without = {m: _largest(products, [c for c in contenders if c != m], size) for m in chosen.members}
    count = len(products.cosines)
    alone = [_beyond_decoys(products, nothing, _fitted(products, (j,))) for j in range(count)]
    beside = []
    for j in range(count):
        rest = tuple(m for m in chosen.members if m != j)
        beside.append(_beyond_decoys(products, _fitted(products, rest), _fitted(products, tuple(sorted((*rest, j))))))
    return Selection(
        chosen,
        tuple(rivals),
        tuple(smaller[::-1]),
        without,
        _extrapolated(products, contenders, chosen),
        tuple(alone),
        tuple(beside),
    )


def continued(products: InnerProducts) -> tuple[int, ...]:
    """Candidates that explain nearly all of the suspect's movement alone, with a coefficient near one: one of the two
    continues the other.
    """
    _, cross, gram = _pooled(products)
    size = np.diagonal(gram)
    coefficients = np.divide(cross, size, out=np.zeros(len(cross)), where=size > 0)
    alone = (np.abs(coefficients - 1) <= THRESHOLDS["derived"]) & (products.cosines > 0)
    return tuple(int(j) for j in np.flatnonzero(alone & (products.cosines**2 >= THRESHOLDS["derived explained"])))


def _contenders(products: InnerProducts) -> list[int]:
    """At most 14: what non-negative least squares over all candidates uses most, what resembles the suspect most, and
    in turn what resembles the rest most.
    """
    _, cross, gram = _pooled(products)
    scale = np.sqrt(np.diagonal(gram))
    moving = np.flatnonzero(scale > 0)
    if not len(moving):
        return []
    normal = gram[np.ix_(moving, moving)] / np.outer(scale[moving], scale[moving])
    factor = np.linalg.cholesky(normal + 1e-9 * np.eye(len(moving)))
    target = np.linalg.solve(factor, cross[moving] / scale[moving])
    shares, _ = nnls(factor.T, target, maxiter=50 * len(moving))
    used = [int(moving[k]) for k in np.argsort(-shares, kind="stable") if shares[k] > 0]
    alike = [int(j) for j in np.argsort(-products.cosines, kind="stable") if scale[j] > 0]
    pursued: list[int] = []
    for _ in range(LARGEST):
        left = cross - gram[:, pursued] @ np.linalg.pinv(gram[np.ix_(pursued, pursued)]) @ cross[pursued]
        left = np.divide(left, scale, out=np.zeros(len(left)), where=scale > 0)
        left[pursued] = -np.inf
        pursued.append(int(np.argmax(left)))
        if len(pursued) >= len(moving):
            break
    ordered = dict.fromkeys([*used[:6], *pursued, *alike[:6], *used, *alike])
    return sorted(list(ordered)[:CONTENDERS])


def _largest(products: InnerProducts, contenders: Sequence[int], size: int) -> Subset:
    """The best subset of that size or, where the weights allow for none, of a smaller one."""
    for k in range(size, 0, -1):
        if found := _best(products, contenders, k):
            return found[0]
    return Subset((), (), 1.0)


def _best(products: InnerProducts, contenders: Sequence[int], size: int) -> list[Subset]:
    """Every subset of that size in which all weights are positive, the least residual first."""
    combinations = np.array(list(itertools.combinations(contenders, size)), np.intp).reshape(-1, size)
    if not len(combinations):
        return []
    weights, residuals = _least_squares(products, combinations)
    order = [int(k) for k in np.argsort(residuals, kind="stable") if np.isfinite(residuals[k])]
    return [Subset(tuple(combinations[k].tolist()), tuple(weights[k].tolist()), float(residuals[k])) for k in order]


def _extrapolated(products: InnerProducts, contenders: Sequence[int], chosen: Subset) -> Subset | None:
    """A parent is an extrapolation from its child and the other parent: p = 1.67 s - .67 q of s = .6 p + .4 q."""
    pairs = np.array(list(itertools.combinations(contenders, 2)), np.intp).reshape(-1, 2)
    energy, cross, gram = _pooled(products)
    normal = gram[pairs[:, :, None], pairs[:, None, :]]
    diagonal = np.diagonal(normal, axis1=1, axis2=2)
    inverse = np.linalg.pinv(normal, hermitian=True)
    weights = np.einsum("mij,mj->mi", inverse, cross[pairs])
    left = np.where((diagonal > 0).all(axis=1), energy - (weights * cross[pairs]).sum(axis=1), np.inf)
    left[(weights > 0).all(axis=1)] = np.inf
    if not len(left) or not left.min() < _MUCH * chosen.residual * energy:
        return None
    k = int(np.argmin(left))
    return Subset(tuple(pairs[k].tolist()), tuple(weights[k].tolist()), max(float(left[k] / energy), 0.0))


def _pooled(products: InnerProducts) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Over all blocks: energy (never 0), y.delta [N], delta.delta [N, N]."""
    energy = max(float(products.energy.sum()), 1e-300)
    return energy, products.suspect.sum(axis=0), products.gram.sum(axis=0)


def _fitted(products: InnerProducts, members: tuple[int, ...]) -> Subset:
    """These candidates with their best weights; none of them where a weight would not be positive."""
    if members:
        weights, residuals = _least_squares(products, np.array([members], np.intp))
        if np.isfinite(residuals[0]):
            return Subset(members, tuple(weights[0].tolist()), float(residuals[0]))
    return Subset((), (), 1.0)


def _least_squares(
    products: InnerProducts, subsets: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [M, k] and residuals [M] of subsets [M, k]; infinite where a weight would be negative: then a smaller
    subset is the better one. Where the weights would sum to more than one, they sum to one.
    """
    energy, cross, gram = _pooled(products)
    normal = gram[subsets[:, :, None], subsets[:, None, :]]
    diagonal = np.diagonal(normal, axis1=1, axis2=2)
    ridge = 1e-12 * diagonal + 1e-300
    right = np.stack([cross[subsets], np.ones(subsets.shape)], axis=2)
    solved = np.linalg.solve(normal + ridge[:, :, None] * np.eye(subsets.shape[1]), right)
    weights, direction = solved[:, :, 0], solved[:, :, 1]
    excess = np.maximum(weights.sum(axis=1) - 1, 0) / np.maximum(direction.sum(axis=1), 1e-300)
    weights = weights - direction * excess[:, None]
    left = energy - 2 * (weights * cross[subsets]).sum(axis=1)
    left += np.einsum("mi,mij,mj->m", weights, normal, weights)
    positive = (weights > 0).all(axis=1) & (diagonal > 0).all(axis=1)
    return weights, np.where(positive, np.maximum(left / energy, 0), np.inf)


def _beyond_decoys(products: InnerProducts, before: Subset, after: Subset) -> float:
    """By how many standard errors `after` explains more than `before` and the best decoy beside it, block by block,
    each as a share of what `before` leaves of the block. 0 where there are too few blocks to know.
    """
    left, explained = _unexplained(products, before), _unexplained(products, after)
    some = left > _NOTHING * products.energy
    if some.sum() < 4 or not after.members:
        return 0.0
    members = list(before.members)
    weights = np.array(before.weights)
    cross = products.suspect_decoys - np.einsum("i,tij->tj", weights, products.gram_decoys[:, members])
    norms = np.diagonal(products.gram, axis1=1, axis2=2)
    total = norms.sum(axis=0)
    best = np.divide(np.maximum(cross.sum(axis=0), 0), total, out=np.zeros(len(total)), where=total > 0)
    gains = 2 * best * cross - best**2 * norms
    decoy = gains[:, int(np.argmax(gains.sum(axis=0)))]
    shares = ((left - explained - decoy) / np.where(some, left, 1))[some]
    error = max(float(shares.std(ddof=1)), 1e-6) / np.sqrt(len(shares))
    return float(shares.mean() / error)


def _unexplained(products: InnerProducts, subset: Subset) -> NDArray[np.float64]:
    """Energy left in every block, float64 [T]."""
    members, weights = list(subset.members), np.array(subset.weights)
    inner = products.gram[:, members][:, :, members]
    quadratic: NDArray[np.float64] = np.einsum("i,tij,j->t", weights, inner, weights)
    linear: NDArray[np.float64] = products.suspect[:, members] @ weights
    left: NDArray[np.float64] = products.energy - 2 * linear + quadratic
    return left
