"""Numbers in, one class with its reason for every comparable candidate out. The wording says what the weights show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.scanning.proof import Proof, Trial
from reconstruct.scanning.result import CandidateKind
from reconstruct.scanning.selection import BEYOND_DECOYS, NEAR, Selection
from reconstruct.verdict import VerdictKind

__all__ = ["Classes", "classify"]


@dataclass(frozen=True)
class Classes:
    """For every relative, by position: its class, the reason, its coefficient, and the others that are near it."""

    kinds: tuple[CandidateKind, ...]
    reasons: tuple[str, ...]
    coefficients: tuple[float, ...]
    groups: tuple[tuple[int, ...], ...]


def classify(
    leads: dict[int, float], selection: Selection, similarity: NDArray[np.float64], proof: Proof, names: Sequence[str]
) -> Classes:
    """`leads`: position -> weight of the candidates that regression selects (the pivot among them, if it is one)."""
    count = len(selection.alone)
    near = [tuple(int(k) for k in np.flatnonzero(similarity[j] > NEAR) if k != j) for j in range(count)]
    found = [_one(j, leads, selection, near, proof, names) for j in range(count)]
    coefficients = proof.best.coefficients if proof.best is not None else leads
    return Classes(
        tuple(kind for kind, _ in found), tuple(reason for _, reason in found),
        tuple(float(coefficients.get(j, 0.0)) for j in range(count)), tuple(near),
    )  # fmt: skip


def _one(
    j: int, leads: dict[int, float], selection: Selection, near: Sequence[tuple[int, ...]], proof: Proof,
    names: Sequence[str],
) -> tuple[CandidateKind, str]:  # fmt: skip
    best = proof.best
    if j in proof.products:
        return CandidateKind.MADE_FROM_SUSPECT, "it replays from the suspect and others: the suspect is its source"
    if best is not None and j in proof.shown:
        return CandidateKind.MATERIAL_PARENT, f"{_words(best)}; without this one the other candidates do not get there"
    if best is not None and j in best.material:
        return CandidateKind.LEAD, f"{_words(best)}, but other candidates do as well without this one"
    if best is not None:
        if selection.alone[j] >= BEYOND_DECOYS:
            return CandidateKind.REDUNDANT, "resembles the suspect, and has no share in the merge that is found"
        return CandidateKind.SHARES_BASE, "a relative that explains no more of the suspect's movement than decoys do"
    fitted = next((t for t in proof.trials if set(t.members) == set(leads)), None)
    if fitted is not None and fitted.verdict is VerdictKind.DERIVED and _largest(fitted) == j:
        return CandidateKind.DERIVED, fitted.summary
    if j in leads:
        outcome = f"a fit of the rows read: {fitted.verdict.value.replace('_', ' ')}" if fitted else "not fitted"
        return CandidateKind.LEAD, f"a lead: to be fitted ({outcome})"
    if kept := [m for m in near[j] if m in leads]:
        return CandidateKind.LEAD, f"a lead: regression cannot tell it from {names[kept[0]]}"
    if selection.alone[j] >= BEYOND_DECOYS:
        return CandidateKind.REDUNDANT, "resembles the suspect, and adds nothing to what is selected"
    return CandidateKind.SHARES_BASE, "a relative that explains no more of the suspect's movement than decoys do"


def _words(best: Trial) -> str:
    if best.verdict is VerdictKind.REPRODUCED:
        return "a recipe with it reproduces the rows read, bit by bit"
    return (
        f"{best.untouched:.1%} of the decisive weights read sit where a merge with it, or with a version very close to "
        "it, would have left them"
    )


def _largest(trial: Trial) -> int:
    return max(trial.coefficients, key=lambda m: trial.coefficients[m])
