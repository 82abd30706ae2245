"""How much of each parent's movement a thinning merge kept, and by how much it scaled it: where its numbers may lie.

Where the other parents hardly move, an element is either the base's (dropped) or the base plus a multiple of this
parent's movement (kept): the commonest multiple is the scale, and the share with it the density. Only a start for a
search, never evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import ModelEvidence

__all__ = ["SparseEstimate", "sparse_estimates"]

_QUIET = 0.3  # quantile of the other parents' movements below which they do not matter
_BINS = np.linspace(0.05, 2.05, 81)  # of the multiple
_NEAR = 0.1  # multiples within this distance of the commonest are kept elements
_FEWEST = 200


@dataclass(frozen=True)
class SparseEstimate:
    """`density`: share of the elements of a parent's movement that were kept, in (0, 1]; `scale`: what they were
    multiplied by.
    """

    density: float
    scale: float


def sparse_estimates(evidence: ModelEvidence) -> tuple[SparseEstimate, ...]:
    """One a parent, medians over the voting tensors; with a base as the first source."""
    tensors = [evidence.tensors[i].measurement for i in evidence.voting]
    found = []
    for parent in range(1, len(evidence.sources.names)):
        each = [e for m in tensors if (e := _estimate(m.values, parent, m.informative / m.elements)) is not None]
        if not each:
            found.append(SparseEstimate(0.5, 1.0))
            continue
        density = float(np.clip(np.median([e.density for e in each]), 0.05, 1.0))
        found.append(SparseEstimate(density, float(np.median([e.scale for e in each]))))
    return tuple(found)


def _estimate(values: NDArray[np.float32], parent: int, informative: float) -> SparseEstimate | None:
    """`values`: suspect, base, parents: float32 [models, n]; `informative`: share of elements sampled from."""
    wide = values.astype(np.float64)
    moved = np.abs(wide[2:] - wide[1])
    own = moved[parent - 1]
    others = np.delete(moved, parent - 1, axis=0)
    chosen = own > 0
    for other in others:
        chosen &= other <= np.quantile(other, _QUIET)
    if chosen.sum() < _FEWEST:
        return None
    multiple = (wide[0] - wide[1])[chosen] / (wide[parent + 1] - wide[1])[chosen]
    counts, _ = np.histogram(multiple, _BINS)
    if not counts.any():
        return None
    scale = float(_BINS[int(np.argmax(counts))] + (_BINS[1] - _BINS[0]) / 2)
    return SparseEstimate(float((np.abs(multiple - scale) < _NEAR).mean()) * informative, scale)
