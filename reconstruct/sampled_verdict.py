"""What a verdict may say when only a part of the weights was read: never more than that part supports.

The decision table looks at what was read. Here its answer is held against how much that is: a merge found in a part is
one of that part, and "no trace of a merge" means something only where a trace would have been seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reconstruct.criteria import (
    THRESHOLDS,
    Reason,
    at_least,
    at_most,
    detectable_share,
    replayed_shares,
    voting_tensors,
)
from reconstruct.evidence import Coverage, ModelEvidence

if TYPE_CHECKING:
    from reconstruct.verdict import Verdict

__all__ = ["qualified"]

_ANGLES = (
    "Norms and angles of whole tensors were estimated from the rows read: families whose coefficients follow from them "
    "(slerp beyond its linear branch, nuslerp, multislerp, karcher, model_stock) may go unrecognised."
)
#: Verdicts whose one ground is how little or how much the candidates explain.
_REGRESSIONS = {"derived", "not_explained"}


def qualified(verdict: Verdict, evidence: ModelEvidence) -> Verdict:
    """The verdict as far as `evidence.coverage` carries it, which must be there, with its limits."""
    coverage = evidence.coverage
    assert coverage is not None
    kind = verdict.kind.value
    verdict = replace(verdict, limits=(*verdict.limits, _unread(coverage), _ANGLES))
    if kind == "undetermined":
        too_little = len(evidence.sources.names) > 1 and not evidence.estimate.collinear
        return replace(verdict, summary=_too_little(coverage)) if too_little else verdict
    reasons = [_enough_matrices(evidence, coverage, kind)]
    if kind == "copy":
        words = verdict.summary.replace("Every compared weight", "Every weight that was read")
        verdict = replace(verdict, summary=words)
        reasons.append(Reason("module kinds looked into, and half of the layers", coverage.kinds, coverage.all_kinds,
                              coverage.spread))  # fmt: skip
    elif kind == "reproduced":
        verdict = replace(verdict, summary=f"{verdict.summary.removesuffix('.')}, as far as they were read.")
    elif _replays_too_few(evidence):
        reasons.append(at_least("novel elements", int(evidence.replay.novel[0]), "novel elements"))
    elif kind in _REGRESSIONS:
        informative = sum(t.measurement.informative for t in evidence.tensors if t.measurement.is_matrix)
        reasons.append(at_least("elements read in which the sources differ", informative, "read informative"))
    elif kind == "related" and _coplanar(evidence):
        # Certified bounds agree and nearly every bit replays: numbers that few rows leave open may yet do the rest.
        nearly = evidence.arithmetic is not None
        reasons.append(Reason("certified bounds of one recipe in most of what was read (none)", nearly, 0, not nearly))
        angles = evidence.open_angles / len(evidence.voting)
        reasons.append(Reason("matrices that a slerp fits at an unknown angle", angles, 0.5, angles < 0.5))
    elif kind == "related":
        seen = detectable_share(evidence)
        reasons.append(at_most("untouched share that would have been seen", seen, "detectable"))
        if reasons[-1].passed:
            limit = f"An untouched share below {seen:.2g} would not have been seen in what was read."
            verdict = replace(verdict, limits=(*verdict.limits, limit))
    if all(reason.passed for reason in reasons):
        return replace(verdict, reasons=(*verdict.reasons, *reasons))
    return replace(
        verdict, kind=type(verdict.kind)("undetermined"), summary=_too_little(coverage), recipe=None, product=None,
        reasons=(*reasons, *verdict.reasons),
    )  # fmt: skip


def _enough_matrices(evidence: ModelEvidence, coverage: Coverage, kind: str) -> Reason:
    """A dozen matrices, or all there are, before some speak for all."""
    needed = min(THRESHOLDS["read tensors"], coverage.all_matrices)
    read = coverage.matrices if kind == "copy" else len(evidence.voting)
    return Reason("matrices read that may testify", read, needed, read >= needed)


def _replays_too_few(evidence: ModelEvidence) -> bool:
    """A recipe reproduces all that was read, but too little of it is novel: it may yet be the recipe."""
    if evidence.arithmetic is None:
        return False
    shares = [replayed_shares(t.replay) for t in voting_tensors(evidence)]
    replays = all(
        exact >= THRESHOLDS["replayed"] and novel >= THRESHOLDS["novel replayed"] for exact, novel, _ in shares
    )
    return replays and sum(count for _, _, count in shares) < THRESHOLDS["novel elements"]


def _coplanar(evidence: ModelEvidence) -> bool:
    """In one plane up to rounding: then all residuals are known, and no spike is looked for."""
    return evidence.box >= THRESHOLDS["box"] and evidence.controls.box <= THRESHOLDS["box of decoys"]


def _unread(coverage: Coverage) -> str:
    missed = 3 / max(coverage.matrices, 3)  # the rule of three: draws go round layers and module kinds evenly
    return (
        f"{_percent(coverage.share)} of the weights that could be compared were read, in {coverage.tensors:,} of "
        f"{coverage.all_tensors:,} tensors; nothing is said of the others. Were more than "
        f"{_percent(missed)} of the layers' modules unlike those read, one of them would have been met with 95 % "
        "probability."
    )


def _too_little(coverage: Coverage) -> str:
    return (
        f"What was read ({_percent(coverage.share)} of the weights) does not decide. A larger sampling.bytes, or "
        "reading everything, may."
    )


def _percent(share: float) -> str:
    """Two significant digits: "0.043 %"."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.1f} %"
