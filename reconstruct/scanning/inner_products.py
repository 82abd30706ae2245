"""Inner products of all models' movements, one matrix after the other, and of the same movements in wrong places.

Per block of a sampled matrix, with y = s - b and delta_j = x_j - b to a pivot b:  y.y,  y.delta_j,  delta_i.delta_j;
and for the decoys delta'_j, the same numbers permuted within the block:  y.delta'_j,  delta_i.delta'_j. Only one matrix
of all models is in memory at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import Catalog
from reconstruct.kernels.formats import decode
from reconstruct.statistics.permutation import permutation

__all__ = ["InnerProducts", "Likeness", "compare_raw", "inner_products"]

_ELEMENTS = 16384  # of a matrix that enter; the rest of what was read is for the fits
_BLOCKS = 24  # wanted, so that the scatter between them is known: few matrices are cut into as many


@dataclass(frozen=True)
class Likeness:
    """Raw weights beside the suspect's. `cosine`: median over matrices; `identical`: whether all elements read are the
    same; `distance`: sum of squares of the difference; `digest`: equal for models whose rows are the same.
    """

    cosine: float
    identical: bool
    distance: float
    digest: str


@dataclass(frozen=True)
class InnerProducts:
    """Float64, by block T and candidate N: `energy` [T] of y; `suspect` [T, N] y.delta; `gram` [T, N, N];
    `suspect_decoys` [T, N] y.delta'; `gram_decoys` [T, N, N] delta_i.delta'_j. Blocks in which the suspect does not
    move are not among them.
    """

    energy: NDArray[np.float64]
    suspect: NDArray[np.float64]
    gram: NDArray[np.float64]
    suspect_decoys: NDArray[np.float64]
    gram_decoys: NDArray[np.float64]

    @property
    def cosines(self) -> NDArray[np.float64]:
        """Of each candidate's movement with the suspect's, pooled: float64 [N]; 0 where it has none."""
        norms = np.sqrt(self.energy.sum() * np.diagonal(self.gram.sum(axis=0)))
        found = np.zeros(len(norms))
        np.divide(self.suspect.sum(axis=0), norms, out=found, where=norms > 0)
        return found

    @property
    def similarity(self) -> NDArray[np.float64]:
        """Cosines of the candidates' movements with one another, pooled: float64 [N, N]."""
        gram = self.gram.sum(axis=0)
        scale = np.sqrt(np.outer(np.diagonal(gram), np.diagonal(gram)))
        found = np.zeros(gram.shape)
        np.divide(gram, scale, out=found, where=scale > 0)
        return found


def compare_raw(suspect: Catalog, other: Catalog) -> Likeness:
    """How like the suspect's sampled rows another model's are (both as `reading.open_rows` opens them)."""
    cosines, distance, identical, digest = [], 0.0, True, hashlib.sha256()
    for name in suspect.tensors:
        s, x = _values(suspect, name), _values(other, name)
        digest.update(x.tobytes())
        scale = float(np.sqrt((s @ s) * (x @ x)))
        cosines.append(float(s @ x) / scale if scale > 0 else float(bool((s == x).all())))
        identical = identical and bool((s == x).all())
        distance += float((s - x) @ (s - x))
    return Likeness(float(np.median(cosines)), identical, distance, digest.hexdigest())


def inner_products(suspect: Catalog, pivot: Catalog, candidates: Sequence[Catalog], seed: int) -> InnerProducts:
    """Over at most 16,384 elements of every matrix, drawn by `seed`; all models as `reading.open_rows` opens them."""
    energy: list[float] = []
    cross: list[NDArray[np.float64]] = []
    gram: list[NDArray[np.float64]] = []
    cross_decoys: list[NDArray[np.float64]] = []
    gram_decoys: list[NDArray[np.float64]] = []
    blocks = -(-_BLOCKS // len(suspect.tensors))
    for name in suspect.tensors:
        origin = _values(pivot, name)
        movement = _values(suspect, name) - origin
        chosen = np.sort(permutation(len(origin), seed)[:_ELEMENTS])
        deltas = np.stack([_values(catalog, name)[chosen] - origin[chosen] for catalog in candidates])
        for part in np.array_split(np.arange(len(chosen)), blocks):
            y, block = movement[chosen[part]], np.take(deltas, part, axis=1)
            if not y.any():
                continue
            decoys = np.take(block, permutation(len(part), seed + 1 + len(energy)), axis=1)
            energy.append(float(y @ y))
            cross.append(block @ y)
            gram.append(block @ block.T)
            cross_decoys.append(decoys @ y)
            gram_decoys.append(block @ decoys.T)
    count = len(candidates)
    return InnerProducts(
        np.array(energy), np.reshape(cross, (-1, count)), np.reshape(gram, (-1, count, count)),
        np.reshape(cross_decoys, (-1, count)), np.reshape(gram_decoys, (-1, count, count)),
    )  # fmt: skip


def _values(catalog: Catalog, name: str) -> NDArray[np.float64]:
    info = catalog.tensors[name]
    return decode(catalog.source.read(info, 0, info.elements), info.dtype).astype(np.float64)
