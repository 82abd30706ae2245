"""The proof step of a scan: few candidates are fitted on the rows read, and each that a merge needs is left out once.

Regression names leads; only a verdict that a fit rests on rounding or on untouched weights shows a parent, and only
where the other candidates do not get there without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reconstruct.criteria import THRESHOLDS, voting_tensors
from reconstruct.recipe import Recipe
from reconstruct.reconstruction import Reconstruction
from reconstruct.replay.stand_ins import changed_sources
from reconstruct.scanning.selection import CONTENDERS, LARGEST, NEAR, Selection
from reconstruct.verdict import VerdictKind

__all__ = ["SHOWS", "Proof", "Trial", "beyond_search", "prove", "prove_exact"]

#: Verdicts that show a merge.
SHOWS = frozenset({VerdictKind.REPRODUCED, VerdictKind.MERGE_THEN_MODIFIED})
#: Verdicts of fits that an untouched share may have been found in.
_SPIKED = frozenset({VerdictKind.MERGE_THEN_MODIFIED, VerdictKind.MERGE_CONSISTENT, VerdictKind.RELATED})
_RIVALS = 3  # subsets tried beside the chosen one
_WIDEST = 4  # candidates of a trial, at most
_VERSIONS = 2  # candidates near a member that are tried in its place
_CHANGED = 0.05  # of the untouched share: by so much, beyond three standard errors, a source seems to have been changed
#: Subsets that a selection chooses among: the fit it leads to is the luckiest of so many.
_LOOKS = sum(math.comb(CONTENDERS, size) for size in range(1, LARGEST + 1))
_HALF = 0.02  # a weight so near one half leaves two phases of rounding, which changes of a source carry over alike
_COMPARABLE = 0.8  # of the best untouched share: from there on another explanation is as good

#: (candidates' positions, ascending) -> the fit of the suspect from them and the base, on the sampled rows.
FitSubset = Callable[[tuple[int, ...]], Reconstruction]


@dataclass(frozen=True)
class Trial:
    """One fit. `material`: positions of the candidates with a share in the recipe or blend that was found; `untouched`:
    1 where the recipe reproduces every bit, else the share of the weights that sit where a merge left them.
    `coefficients` by candidate position; `product`: the candidate that is made from the suspect, if the verdict is
    `ancestor`. `searched`: the standard errors that a merge that was trained on is shown by, by their names among the
    thresholds; `version`: a source, rather than the suspect, seems to have been changed after the merge, or that could
    not be seen.
    """

    members: tuple[int, ...]
    verdict: VerdictKind
    summary: str
    coefficients: dict[int, float]
    material: tuple[int, ...]
    untouched: float
    product: int | None
    folder: str
    searched: dict[str, float]
    version: bool

    @property
    def shows(self) -> bool:
        """Whether it shows a merge with a candidate in it."""
        if self.verdict is VerdictKind.REPRODUCED or not self.material:
            return bool(self.material)
        clear = all(value >= beyond_search(THRESHOLDS[key]) for key, value in self.searched.items())
        return self.verdict in SHOWS and clear and not self.version

    def equals(self, other: Trial) -> bool:
        """Whether it leaves as little to explain as `other`, which shows a merge, whatever its own verdict is."""
        if other.verdict is VerdictKind.REPRODUCED:
            return self.verdict is VerdictKind.REPRODUCED and self.shows
        # With a version in a parent's place there is more to explain; where there is not, it may be the parent.
        share = 1.0 if self.version else _COMPARABLE
        return bool(self.material) and self.untouched >= share * other.untouched


def beyond_search(standard_errors: float) -> float:
    """The threshold at which the luckiest of all subsets is as unlikely as one is at the threshold given: the tail of a
    normal distribution falls as exp(-z^2 / 2).
    """
    return math.sqrt(standard_errors**2 + 2 * math.log(_LOOKS))


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
        if best.verdict is not VerdictKind.REPRODUCED:
            # An earlier or later version of a parent may have been selected in its place.
            for version in [j for j in near if j not in best.material][:_VERSIONS]:
                bench.attempt(_joined(rest, (version,)))
    shown = [
        m for m in best.material if not any(m not in trial.material and trial.equals(best) for trial in bench.trials)
    ]
    return Proof(best, tuple(shown), tuple(bench.products), bench.trials)


def prove_exact(
    selection: Selection,
    leads: Sequence[int],
    similarity: NDArray[np.float64],
    names: Sequence[str],
    fit_subset: FitSubset,
    least: int,
    before: Proof,
) -> Proof:
    """As `prove`, but only where the `leads` reproduce the suspect bit by bit; else `before` with that fit."""
    bench = _Bench(names, fit_subset, least, before)
    trial = bench.attempt(tuple(leads))
    tried = Proof(before.best, before.shown, tuple(bench.products), bench.trials)
    if trial is None or trial.verdict is not VerdictKind.REPRODUCED:
        return tried
    return prove(selection, leads, similarity, names, fit_subset, least, tried)


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
    e = run.evidence
    untouched = 1.0 if verdict.kind is VerdictKind.REPRODUCED else float(e.spike.untouched)
    searched = {
        "spike z": float(e.spike.z - max(e.controls.spike_z, 0.0)), "phase z": float(e.phases.overall_z),
        "boundary z": float(e.phases.boundary_z),
    }  # fmt: skip
    return Trial(
        members, verdict.kind, verdict.summary, coefficients, tuple(sorted(material)), untouched, product,
        run.folder.name, searched, verdict.kind in _SPIKED and _has_version(run),
    )  # fmt: skip


def _has_version(run: Reconstruction) -> bool:
    if any(abs(value - 0.5) < _HALF for value in run.coefficients.values()):
        return True
    tensors = voting_tensors(run.evidence)
    shares, errors = changed_sources([t.measurement for t in tensors], [t.coefficients for t in tensors])
    return bool((shares - 3 * errors > _CHANGED).any())


def _strength(trial: Trial) -> tuple[bool, float, int]:
    return trial.verdict is VerdictKind.REPRODUCED, trial.untouched, -len(trial.members)


def _joined(members: Sequence[int], extra: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({*members, *extra}))


def _with_neighbours(leads: Sequence[int], similarity: NDArray[np.float64]) -> tuple[int, ...]:
    """The leads, and the candidates nearest to any of them."""
    nearness = similarity[list(leads)].max(axis=0)
    near = [int(j) for j in np.argsort(-nearness, kind="stable") if nearness[j] > NEAR and j not in leads]
    return tuple(sorted([*leads, *near][:_WIDEST]))
