"""The decision table: evidence in, one of nine verdicts out, every reason with its number and its threshold.

Nothing else decides. The order of the rules is part of the table: what rounding proves comes first, what training
after a merge leaves comes next, what only regression suggests comes last. The wording says what the weights show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from reconstruct.criteria import (
    THRESHOLDS,
    Reason,
    above,
    at_least,
    at_most,
    below,
    direction_of_descent,
    firm_strata,
    has_spike,
    in_range,
    phase_reasons,
    replayed_shares,
    replays_as_product,
    rounded_after,
    shares_suspect,
    slope_in_copies,
    stored_finely,
    voting_tensors,
)
from reconstruct.evidence import ModelEvidence, OrientationEvidence
from reconstruct.recipe import Recipe, WholeRecipe
from reconstruct.sampled_verdict import qualified

__all__ = ["THRESHOLDS", "Reason", "Verdict", "VerdictKind", "decide"]


class VerdictKind(StrEnum):
    """What the weights show."""

    REPRODUCED = "reproduced"
    MERGE_THEN_MODIFIED = "merge_then_modified"
    MERGE_CONSISTENT = "merge_consistent"
    COPY = "copy"
    DERIVED = "derived"
    ANCESTOR = "ancestor"
    RELATED = "related"
    NOT_EXPLAINED = "not_explained"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Verdict:
    """`summary`: one neutral sentence. `recipe` only where one replays; `product`: the model that is made from the
    suspect, of an ancestor.
    """

    kind: VerdictKind
    summary: str
    reasons: tuple[Reason, ...]
    recipe: Recipe | WholeRecipe | None = None
    limits: tuple[str, ...] = ()
    product: str | None = None


_LIMITS = (
    "Distillation, and parents that are not among the candidates, leave no trace that this test can see.",
    "Permuted (but for the order of experts), rotated or rescaled copies are not aligned before the comparison.",
    "The verdict speaks of weights, not of people, licences or intentions.",
)


def decide(evidence: ModelEvidence) -> Verdict:
    """Apply the table, first match wins; where only a part of the weights was read, as far as that part carries."""
    verdict = _by_the_table(evidence)
    return verdict if evidence.coverage is None else qualified(verdict, evidence)


def _by_the_table(evidence: ModelEvidence) -> Verdict:
    limits = list(_LIMITS)
    if not evidence.exhaustive:
        limits.append("Replayed on stored samples only, not on every element.")
    rules = (_copy, _too_little, _collinear, _computed, _reproduced, _assembled, _ancestor, _coplanar,
             _merge_then_modified, _derived, _merge_consistent, _related)  # fmt: skip
    noted: list[Reason] = []
    for rule in rules:
        found = rule(evidence)
        if isinstance(found, Verdict):
            reasons = (*found.reasons, *(r for r in noted if r.name not in {f.name for f in found.reasons}))
            return replace(found, reasons=reasons, limits=tuple(limits))
        noted += found
    name = "the candidates" if len(evidence.sources.names) > 1 else evidence.sources.names[0]
    return Verdict(
        VerdictKind.NOT_EXPLAINED, f"{name} explain no more of the suspect's weights than permuted controls do.",
        tuple(noted), None, tuple(limits),
    )  # fmt: skip


def _copy(e: ModelEvidence) -> Verdict | list[Reason]:
    total = sum(t.measurement.elements for t in e.tensors)
    same = np.sum([t.measurement.moments.identical for t in e.tensors], axis=0) / max(total, 1)
    best = int(np.argmax(same))
    reason = Reason(f"elements identical to {e.sources.names[best]}", float(same[best]), 1.0, bool(same[best] == 1.0))
    if not reason.passed or not any(t.measurement.is_matrix for t in e.tensors):  # norms and buffers agree for free
        return [reason]
    return Verdict(VerdictKind.COPY, f"Every compared weight is identical to {e.sources.names[best]}.", (reason,))


def _too_little(e: ModelEvidence) -> Verdict | list[Reason]:
    informative = sum(t.measurement.informative for t in e.tensors if t.measurement.is_matrix)
    enough = Reason("elements in which the sources differ", informative, THRESHOLDS["informative"],
                    informative >= THRESHOLDS["informative"])  # fmt: skip
    if len(e.sources.names) < 2:
        return _undetermined(
            "One candidate without a base: apart from a copy nothing can be told. Give base=, or another parent.",
            enough,
        )
    if not enough.passed:
        return _undetermined("The sources hardly differ from one another: nothing tells a recipe apart.", enough)
    if not e.voting:
        return _undetermined(
            "No matrix is fit to testify: all are small, or the sources hardly differ in them.",
            enough,
        )
    return [enough]


def _collinear(e: ModelEvidence) -> Verdict | list[Reason]:
    """Candidates that are blends of one another, stored finely: more than one recipe gives the same bits."""
    if not e.estimate.collinear:
        return []
    return _undetermined(
        "The candidates' movements are collinear: several sets of coefficients give the same weights. Leave one of "
        "them out.",
        Reason("collinear candidates", 1.0, 0.0, passed=False),
    )


def _undetermined(summary: str, *reasons: Reason) -> Verdict:
    return Verdict(VerdictKind.UNDETERMINED, summary, reasons)


def _computed(e: ModelEvidence) -> Verdict | list[Reason]:
    """The merge program itself makes every bit of the suspect from the candidates, by a recipe that is no fixed blend.

    Nothing but the whole is accepted here: the recipe was searched for, and a search finds what is nearly right. What
    testifies are the elements that no single source has: some methods take each element from one source or another,
    and make nothing that is novel beside all of them.
    """
    proof = e.proof
    if proof is None or not proof.families or proof.failure:
        return []
    matrices = {t.measurement.name for t in e.tensors if t.measurement.is_matrix}
    apart = proof.apart_from_nearest(matrices)
    recipe = WholeRecipe(proof.document, proof.families)
    reasons = [
        Reason(f"weights that {proof.program} makes to the last bit", proof.identical, 1.0, proof.complete),
        at_least("elements that differ from the nearest source", sum(apart), "novel elements"),
        at_least("matrices with a hundred of them", sum(n >= 100 for n in apart), "sources"),
        at_least("sources none of which can be left out", len(recipe.models), "sources"),
    ]
    if not all(r.passed for r in reasons):
        return reasons
    return Verdict(
        VerdictKind.REPRODUCED,
        f"{proof.program} makes every weight of the suspect from {_join(list(recipe.models))}, by "
        f"{' or '.join(proof.families)}.",
        tuple(reasons), recipe,
    )  # fmt: skip


def _reproduced(e: ModelEvidence) -> Verdict | list[Reason]:
    """Every compared matrix replays from one recipe in one arithmetic, with two material sources at least.

    Bits are asked for in float32 storage too. Agreement within two spacings would also accuse a parent of its own
    child there: rounding errors are amplified by 1.43, not by orders of magnitude, when A = 1.43 S - .43 B is formed.
    """
    if e.arithmetic is None or e.recipe is None:
        certified = sum(t.fit.affine is not None for t in voting_tensors(e)) / len(e.voting)
        return [Reason("voting tensors whose rounding one set of coefficients explains", certified, 1.0, passed=False)]
    matrices = [t for t in e.tensors if t.measurement.is_matrix]
    shares = [replayed_shares(t.replay) for t in matrices]
    novel = sum(s[2] for s in shares)
    carriers = sum(s[2] >= 100 for s in shares)
    worst = min(s[0] for s in shares)
    worst_novel = min((s[1] for s in shares if s[2] >= 100), default=0.0)
    reasons = [
        at_least("replayed elements identical, worst matrix", worst, "replayed"),
        at_least("novel elements identical, worst matrix", worst_novel, "novel replayed"),
        at_least("novel elements", novel, "novel elements"),
        at_least("matrices with a hundred of them", carriers, "sources"),
        at_least("sources with material weight", len(e.recipe.material), "sources"),
        at_most("novel elements identical under wrong recipes", e.controls.hit_rate, "decoy hits"),
    ]
    if not all(stored_finely(t) for t in matrices):
        reasons.append(at_least("rounding came last (phase of the predictions)", e.rounding, "rounding"))
    # A child stored more finely than its parents determines them to the bit, so they replay from it too. Shares between
    # 0 and 1 in the other orientation say which is the product, unless the suspect's own finer rounding does.
    outside = not in_range(e.estimate.coefficients.tolist())
    rivals = [o for o in e.orientations[1:] if outside and shares_suspect(o) and not rounded_after(e, o.target)]
    if rivals:
        fits = max(max(o.exact, o.box) for o in rivals)
        reasons.append(Reason("fit of another orientation, with shares in [0, 1]", fits, THRESHOLDS["box"],
                              fits < THRESHOLDS["box"]))  # fmt: skip
    if not all(r.passed for r in reasons):
        return reasons
    names = [e.sources.names[j] for j in e.recipe.material]
    return Verdict(
        VerdictKind.REPRODUCED,
        f"One recipe from {_join(names)} recomputes the suspect's matrices in {e.arithmetic}.",
        tuple(reasons), e.recipe,
    )  # fmt: skip


def _assembled(e: ModelEvidence) -> Verdict | list[Reason]:
    """Every tensor is a copy of one source's, and two parents are needed for that (slices, passthrough)."""
    totals = np.array([t.measurement.elements for t in e.tensors])
    same = np.array([t.measurement.moments.identical for t in e.tensors]) == totals[:, None]
    covered = float(totals[same.any(axis=1)].sum() / max(totals.sum(), 1))
    if covered < 1 or e.recipe is None:
        return []
    matrix = np.array([t.measurement.is_matrix for t in e.tensors])
    sole = {j: matrix & same[:, j] & (same.sum(axis=1) == 1) for j in e.sources.parents}
    parents = [j for j, own in sole.items() if totals[own].sum() >= THRESHOLDS["novel elements"]]
    reasons = [
        Reason("elements in tensors that are copies of a source's", covered, 1.0, passed=True),
        at_least("parents with matrices that no other source has", len(parents), "sources"),
    ]
    if not reasons[-1].passed:
        return reasons
    slopes = [slope_in_copies(e, sole[j], k) for j in parents for k in parents if k != j]
    names = [e.sources.names[j] for j in parents]
    if e.sources.has_base:
        reasons.append(at_most("slope of a parent's movement on another's, in tensors that are copies of the other's",
                               max(slopes), "copies continued"))  # fmt: skip
    if not e.sources.has_base or not reasons[-1].passed:
        return Verdict(
            VerdictKind.RELATED,
            f"Every tensor is a copy of one in {_join(names)}: the suspect was put together from them, or they are "
            "continuations of it that left parts unchanged. Only a base from which they moved apart can tell.",
            tuple(reasons),
        )
    return Verdict(
        VerdictKind.REPRODUCED,
        f"Every tensor is a copy of one in {_join(names)}: the suspect was put together from them.",
        tuple(reasons), e.recipe,
    )  # fmt: skip


def _ancestor(e: ModelEvidence) -> Verdict | list[Reason]:
    """Another model at hand replays from the suspect and the rest."""
    if not e.orientations:
        return []
    own, reasons = e.orientations[0], []
    for other in e.orientations[1:]:
        if rounded_after(e, other.target):
            continue
        if replays_as_product(other):
            reason = Reason(f"elements of {other.target} replayed from the suspect and the rest", other.exact,
                            THRESHOLDS["replayed"], passed=True)  # fmt: skip
            return _is_ancestor(other.target, reason)
        if not shares_suspect(other):
            continue
        larger = other.spike.untouched / max(own.spike.untouched, 1e-9)
        reason = Reason(f"untouched share of {other.target} as the product, over the suspect's", larger,
                        THRESHOLDS["orientation"], larger >= THRESHOLDS["orientation"])  # fmt: skip
        holds = has_spike(other.spike, other.strata, 0.0) and all(r.passed for r in phase_reasons(other.phases))
        if reason.passed and other.box < THRESHOLDS["box"] and holds:
            return _is_ancestor(other.target, reason)
        reasons.append(reason)
    return reasons


def _is_ancestor(target: str, reason: Reason) -> Verdict:
    return Verdict(
        VerdictKind.ANCESTOR,
        f"{target} is made from the suspect and other models at hand: the suspect is a source, not the product.",
        (reason,),
        product=target,
    )


def _coplanar(e: ModelEvidence) -> Verdict | list[Reason]:
    """All residuals are rounding, yet nothing replays: sources in common, no descent among the files at hand."""
    reasons = [
        at_least("elements inside the rounding box", e.box, "box"),
        at_most("the same for decoys", e.controls.box, "box of decoys"),
    ]
    if not all(r.passed for r in reasons):
        return reasons
    return Verdict(
        VerdictKind.RELATED,
        "The suspect lies in the plane of the candidates up to rounding alone, but no named arithmetic makes it from "
        "them: the files share sources, or the merge was computed in a way not known here.",
        tuple(reasons),
    )


def _merge_then_modified(e: ModelEvidence) -> Verdict | list[Reason]:
    """A share of the weights sits where a merge left it: large, known well, the same at every phase of rounding."""
    if e.estimate.origin == "regression" or not e.orientations:
        return []
    smooth = [t for t in voting_tensors(e) if t.measurement.smooth_lattice]
    positive = float(np.mean([t.spike.z > 0 for t in smooth])) if len(smooth) >= 2 else 0.0
    own, rivals = e.orientations[0], [o for o in e.orientations[1:] if in_range(list(o.coefficients.values()))]
    best = max((o.spike.untouched for o in rivals), default=0.0)
    reasons = [
        at_least("untouched decisive elements, z over smoothness and decoys", e.spike.z - max(e.controls.spike_z, 0.0),
                 "spike z"),
        at_least("decisive strata with a firm spike", firm_strata(e.strata), "strata"),
        *phase_reasons(e.phases),
        above("voting tensors with a spike of their own", positive, "voting majority"),
        at_most("consensus of two halves of the tensors, distance", e.controls.halves or 0.0, "halves"),
        *_shares_of_sources(e),
        below("inside the rounding box (not full)", e.box, "box"),
        Reason("largest untouched share in another orientation, at most this one's", best, own.spike.untouched,
               best <= own.spike.untouched),
    ]  # fmt: skip
    if not all(r.passed for r in reasons):
        return reasons
    return Verdict(
        VerdictKind.MERGE_THEN_MODIFIED,
        f"{e.spike.untouched:.1%} of the decisive weights sit exactly where a merge of {_join(_material(e))} (or of "
        "checkpoints that share these weights with them) would have left them; the others were changed afterwards.",
        tuple(reasons),
    )


def _material(e: ModelEvidence) -> list[str]:
    """Names of the sources that matter where no recipe is exact."""
    shares = zip(e.sources.names, e.estimate.coefficients, strict=True)
    return [name for name, share in shares if abs(share) >= THRESHOLDS["consistent material"]]


def _shares_of_sources(e: ModelEvidence) -> list[Reason]:
    coefficients = e.estimate.coefficients
    return [
        at_most("coefficients outside [0, 1] by", max(0.0, -coefficients.min(), coefficients.max() - 1), "range"),
        at_least("sources with material weight", len(_material(e)), "sources"),
    ]


def _derived(e: ModelEvidence) -> Verdict | list[Reason]:
    """One parent with coefficient 1, plus movement of its own; related only, where either may have come first."""
    if not e.sources.has_base:
        return []
    weights = e.estimate.least_squares[1:]
    top = int(np.argmax(weights))
    name = e.sources.names[1 + top]
    reasons = [
        at_most(f"coefficient of {name}, distance from 1", abs(weights[top] - 1), "derived"),
        at_least("movement that it explains", e.estimate.explained, "derived explained"),
        at_most("largest other parent", np.abs(np.delete(weights, top)).max(initial=0.0), "derived others"),
    ]
    if not all(r.passed for r in reasons):
        return reasons
    direction = direction_of_descent(e, 1 + top)
    if all(r.passed for r in direction):
        return Verdict(
            VerdictKind.DERIVED,
            f"{name} alone explains the suspect, with coefficient 1 and further movement of its own: the suspect "
            "continues it, or a checkpoint close to it.",
            (*reasons, *direction),
        )
    return Verdict(
        VerdictKind.RELATED,
        f"{name} alone explains the suspect, and they are nearly one model: one continues the other, or both a "
        "checkpoint close to them. The weights do not say which was there first.",
        (*direction, *reasons),
    )


def _merge_consistent(e: ModelEvidence) -> Verdict | list[Reason]:
    """No spike, but one set of coefficients in all tensors and all their blocks: a lead, not a proof.

    With one direction of movement alone it says nothing: every point of a training trajectory has one coefficient in
    all tensors. Nor does it with converted scaled formats, whose errors bias all regressions alike. A candidate that
    was trained on from the true parent has one coefficient in all tensors too, but a smaller one than its parent had:
    regression shrinks it by the share of its movement that the suspect lacks, and what it lost shows as the base's.
    """
    if not e.agreement or not e.sources.has_base:
        return []
    regular = float(np.mean([t.measurement.smooth_lattice for t in voting_tensors(e)]))
    preferred = not e.orientations or all(_better(e.orientations[0], o) for o in e.orientations[1:])
    reasons = [
        at_most("coefficients over tensors, spread", max(a.spread for a in e.agreement), "spread"),
        at_most("coefficients over blocks of a tensor, spread", max(e.block_agreement), "block spread"),
        *_shares_of_sources(e),
        at_least("explained beyond decoys", e.estimate.explained - e.controls.explained, "consistent explained"),
        at_least("tensors that vote", len(e.voting), "tensors"),
        at_least("tensors on lattices without gaps, in all models", regular, "regular"),
        at_most("overlap of the material parents' movements", e.overlap, "overlap"),
        at_most("share of the base, or of what the parents lack", abs(e.estimate.least_squares[0]), "consistent base"),
        Reason("this orientation is the best", float(preferred), 1, preferred),
    ]
    if not all(r.passed for r in reasons):
        return reasons
    return Verdict(
        VerdictKind.MERGE_CONSISTENT,
        f"The same coefficients of {_join(_material(e))} explain every tensor and its parts, but no weight sits "
        "exactly on the merge: a lead, not a proof, and near twins of the parents would do the same.",
        tuple(reasons),
    )


def _better(own: OrientationEvidence, other: OrientationEvidence) -> bool:
    return own.spike.untouched >= other.spike.untouched or not in_range(list(other.coefficients.values()))


def _related(e: ModelEvidence) -> Verdict | list[Reason]:
    beyond = e.estimate.explained - e.controls.explained
    reason = at_least("movement explained beyond decoys", beyond, "related")
    if not reason.passed:
        return [reason]
    return Verdict(
        VerdictKind.RELATED,
        "The candidates explain part of the suspect, but no weights sit where a merge of them would have left them: as "
        "after training with something in common (an earlier checkpoint, a sibling, shared data).",
        (reason,),
    )


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
