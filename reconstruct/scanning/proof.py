"""The proof step of a scan: few candidates are fitted on the rows read, and each that a merge needs is left out once.

Regression names leads; only a verdict that a fit rests on rounding or on untouched weights shows a parent, and only
where the other candidates do not get there without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reconstruct.criteria import THRESHOLDS
from reconstruct.recipe import Recipe
from reconstruct.reconstruction import Reconstruction
from reconstruct.scanning.selection import NEAR, Selection
from reconstruct.verdict import VerdictKind

__all__ = ["SHOWS", "Proof", "Trial", "prove"]

#: Verdicts that show a merge.
SHOWS = frozenset({VerdictKind.REPRODUCED, VerdictKind.MERGE_THEN_MODIFIED})
_RIVALS = 3  # subsets tried beside the chosen one
_WIDEST = 4  # candidates of a trial, at most
_COMPARABLE = 0.8  # of the best untouched share: from there on another explanation is as good

#: (candidates' positions, ascending) -> the fit of the suspect from them and the base, on the sampled rows.
FitSubset = Callable[[tuple[int, ...]], Reconstruction]


@dataclass(frozen=True)
class Trial:
    """One fit. `material`: positions of the candidates with a share in the recipe or blend that was found; `untouched`:
    1 where the recipe reproduces every bit, else the share of the weights that sit where a merge left them.
    `coefficients` by candidate position; `product`: the candidate that is made from the suspect, if the verdict is
    `ancestor`.
    """

    members: tuple[int, ...]
    verdict: VerdictKind
    summary: str
    coefficients: dict[int, float]
    material: tuple[int, ...]
    untouched: float
    product: int | None
    folder: str

    @property
    def shows(self) -> bool:
        """Whether it shows a merge with a candidate in it."""
        return self.verdict in SHOWS and bool(self.material)

    def equals(self, other: Trial) -> bool:
        """Whether it shows a merge as well as `other` does."""
        if not self.shows or (other.verdict is VerdictKind.REPRODUCED and self.verdict is not VerdictKind.REPRODUCED):
            return False
        return self.untouched >= _COMPARABLE * other.untouched


@dataclass
class Proof:
    """`best`: the trial that shows the merge, None if none does; `shown`: the candidates it cannot do without;
    `products`: candidates that are made from the suspect; `trials`: every fit, in order.
    """

    best: Trial | None = None
    shown: tuple[int, ...] = ()
    products: tuple[int, ...] = ()
    trials: list[Trial] = field(default_factory=list)


def prove(
    selection: Selection,
    leads: Sequence[int],
    similarity: NDArray[np.float64],
    names: Sequence[str],
    fit_subset: FitSubset,
    least: int,
    before: Proof,
) -> Proof:
    """Fit the `leads` (the chosen ones, and the pivot if it is a candidate with a share), then rivals.

    `similarity` [N, N]: cosines of the candidates' movements; `names` of the candidates as the fits know them;
    `least`: candidates that a fit needs; `before`: what is known of an earlier selection. Raises what the fits raise.
    """
    bench = _Bench(names, fit_subset, least, before)
    extra = [j for j in leads if j not in selection.chosen.members]
    subsets = [tuple(leads), *(_joined(rival.members, extra) for rival in selection.rivals[:_RIVALS])]
    for subset in subsets:
        trial = bench.attempt(subset)
        if trial is not None and trial.verdict is VerdictKind.REPRODUCED:
            break
    # Training after a merge resembles other training: that is selected as well, and blurs the fit.
    for fewer in selection.smaller:
        if len(fewer.members) > 1 and not any(trial.shows for trial in bench.trials):
            bench.attempt(_joined(fewer.members, extra))
    if not any(trial.shows for trial in bench.trials):
        bench.attempt(_with_neighbours(leads, similarity))
    if selection.extrapolated is not None and not any(trial.shows for trial in bench.trials):
        bench.attempt(selection.extrapolated.members)
    best = max((t for t in bench.trials if t.shows), key=_strength, default=None)
    if best is None:
        return Proof(None, (), tuple(bench.products), bench.trials)
    for member in best.material:
        others = selection.without[member].members if member in selection.without else ()
        near = [int(j) for j in np.argsort(-similarity[member], kind="stable") if similarity[member, j] > NEAR]
        substitutes = [j for j in dict.fromkeys([*others, *extra, *near]) if j not in best.material]
        # As many as the merge has: with more, a fit takes long, and least squares has found the best of this size.
        rest = [m for m in best.material if m != member]
        bench.attempt(_joined(rest, substitutes[:1]) if set(rest) <= {*others, *extra} else _joined(others, ()))
    shown = [
        m for m in best.material if not any(m not in trial.material and trial.equals(best) for trial in bench.trials)
    ]
    return Proof(best, tuple(shown), tuple(bench.products), bench.trials)


class _Bench:
    """Runs trials, each once. `products`: candidates found to be made from the suspect, which no later trial has."""

    def __init__(self, names: Sequence[str], fit_subset: FitSubset, least: int, before: Proof) -> None:
        self._names, self._fit, self._least = list(names), fit_subset, least
        self.trials, self.products = list(before.trials), list(before.products)

    def attempt(self, members: tuple[int, ...]) -> Trial | None:
        """The trial of these candidates, without those that are made from the suspect; None if too few are left."""
        while True:
            members = tuple(sorted(m for m in members if m not in self.products))
            if len(members) < self._least:
                return None
            if known := next((t for t in self.trials if t.members == members), None):
                return known
            trial = _trial(members, self._names, self._fit(members))
            self.trials.append(trial)
            if trial.product is None:
                return trial
            self.products.append(trial.product)


def _trial(members: tuple[int, ...], names: Sequence[str], run: Reconstruction) -> Trial:
    position = {names[m]: m for m in members}
    coefficients = {position[name]: value for name, value in run.coefficients.items() if name in position}
    recipe = run.recipe
    if isinstance(recipe, Recipe):
        material = [position[recipe.sources[j]] for j in recipe.material if recipe.sources[j] in position]
    else:
        material = [m for m, value in coefficients.items() if abs(value) >= THRESHOLDS["consistent material"]]
    verdict = run.verdict
    product = position.get(verdict.product) if verdict.product is not None else None
    untouched = 1.0 if verdict.kind is VerdictKind.REPRODUCED else float(run.evidence.spike.untouched)
    return Trial(
        members, verdict.kind, verdict.summary, coefficients, tuple(sorted(material)), untouched, product,
        run.folder.name,
    )  # fmt: skip


def _strength(trial: Trial) -> tuple[bool, float, int]:
    return trial.verdict is VerdictKind.REPRODUCED, trial.untouched, -len(trial.members)


def _joined(members: Sequence[int], extra: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({*members, *extra}))


def _with_neighbours(leads: Sequence[int], similarity: NDArray[np.float64]) -> tuple[int, ...]:
    """The leads, and the candidates nearest to any of them."""
    nearness = similarity[list(leads)].max(axis=0)
    near = [int(j) for j in np.argsort(-nearness, kind="stable") if nearness[j] > NEAR and j not in leads]
    return tuple(sorted([*leads, *near][:_WIDEST]))
