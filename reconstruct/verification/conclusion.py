"""From comparisons of tensors and a fit of the same models to what the weights say of the claim.

A file that is not the recipe's output refutes the recipe only if the weights show what they are instead: other numbers,
other tensors, another origin. Training after the merge leaves no such sign, and then nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from reconstruct.verification.comparison import CheckState, TensorCheck

__all__ = ["Conclusion", "ConclusionKind", "Instead", "conclude"]

_UNCOMPARED = 0.01  # share of elements that may be left uncompared in a confirmation
_SAME_NUMBER = 2e-4  # certified coefficients that differ by less are those claimed
_SAME_ESTIMATE = 5e-3  # and coefficients found among the untouched elements of a model trained on


class ConclusionKind(StrEnum):
    """What the weights say of a claimed recipe."""

    CONFIRMED = "confirmed"
    ROUNDING = "confirmed up to rounding"
    MODIFIED = "confirmed, then modified"
    REFUTED = "refuted"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Instead:
    """What a fit of the same models found. `deviation`: the largest difference between a claimed coefficient and the
    one found, over voting tensors; None where the claim is no fixed blend.
    """

    verdict: str
    arithmetic: str | None
    coefficients: dict[str, float]
    deviation: float | None
    untouched: float


@dataclass(frozen=True)
class Conclusion:
    """`reasons`: sentences with numbers, the decisive one first; `tensors`: names that do not follow the claim."""

    kind: ConclusionKind
    reasons: tuple[str, ...]
    tensors: tuple[str, ...] = ()


def conclude(
    checks: Sequence[TensorCheck],
    *,
    replayable: bool,
    instead: Instead | None = None,
    other_numbers: Sequence[str] = (),
) -> Conclusion:
    """`replayable`: the recipe's output is determined (no random draws without their seed). `other_numbers`: changes to
    the claimed numbers with which the recipe does reproduce the suspect.
    """
    compared = [c for c in checks if c.state is not CheckState.CANNOT_SAY]
    wrong = tuple(c.name for c in compared if c.state is not CheckState.MATCH)
    total = sum(c.total for c in checks)
    left = total - sum(c.total for c in compared)
    if not replayable:
        return _undetermined("the method draws random numbers, and its seed is not known", "Say recipe.seed=<number>")
    if not compared:
        return _undetermined("no tensor could be compared", *(c.detail for c in checks[:3]))
    if not wrong and left > _UNCOMPARED * total:
        return _undetermined(
            f"every compared tensor is identical, but {left / total:.1%} of the weights could not be compared"
        )
    if not wrong:
        elements = sum(c.total for c in compared)
        return Conclusion(
            ConclusionKind.CONFIRMED,
            (f"all {elements:,} weights of {len(compared)} tensors are identical, bit by bit",),
        )
    identical = sum(c.identical for c in compared) / max(sum(c.total for c in compared), 1)
    same = len(compared) - len(wrong)
    summary = f"{len(wrong)} of {len(compared)} tensors differ; {identical:.3%} of the weights are identical"
    if other_numbers:
        return Conclusion(ConclusionKind.REFUTED, (*other_numbers, summary), wrong)
    partly = len(wrong) <= len(compared) / 2
    if partly:
        summary = f"{same} tensors are identical to the last bit; {summary}"
    found = _from_fit(instead, summary, wrong) if instead is not None else None
    if found is not None:
        return found
    if partly:
        return Conclusion(ConclusionKind.REFUTED, (summary,), wrong)
    return _undetermined(
        summary, "nothing in the weights shows what was done instead; training after the merge would look like this"
    )


def _from_fit(instead: Instead, summary: str, wrong: tuple[str, ...]) -> Conclusion | None:
    numbers = ", ".join(f"{value:.4g} of {name}" for name, value in instead.coefficients.items())
    if instead.verdict == "reproduced":
        if instead.deviation is not None and instead.deviation <= _SAME_NUMBER:
            reason = f"the claimed numbers reproduce the suspect in another arithmetic: {instead.arithmetic}"
            return Conclusion(ConclusionKind.ROUNDING, (reason, summary), wrong)
        reason = f"another recipe of the same models reproduces the suspect: {numbers} ({instead.arithmetic})"
        return Conclusion(ConclusionKind.REFUTED, (reason, summary), wrong)
    if instead.verdict == "merge_then_modified" and instead.deviation is not None:
        where = f"{instead.untouched:.1%} of the decisive weights sit where {numbers} puts them"
        if instead.deviation <= _SAME_ESTIMATE:
            return Conclusion(ConclusionKind.MODIFIED, (f"{where}, as claimed", summary), wrong)
        return Conclusion(ConclusionKind.REFUTED, (f"{where}, which is not what is claimed", summary), wrong)
    if instead.verdict == "copy":
        return Conclusion(ConclusionKind.REFUTED, (f"the suspect is a copy: {numbers}", summary), wrong)
    return None


def _undetermined(*reasons: str) -> Conclusion:
    return Conclusion(ConclusionKind.UNDETERMINED, tuple(reasons))
