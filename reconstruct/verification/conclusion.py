"""From comparisons of tensors and a fit of the same models to what the weights say of the claim.

A file that is not the recipe's output refutes the recipe only if the weights show what they are instead: other numbers,
other tensors, another origin. Training after the merge leaves no such sign, and then nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from reconstruct.replay.comparison import CheckState, TensorCheck

__all__ = ["Conclusion", "ConclusionKind", "Instead", "conclude"]

_UNCOMPARED = 0.01  # share of elements that may be left uncompared in a confirmation
_SAME_NUMBER = 2e-4  # certified coefficients that differ by less are those claimed
_SAME_ESTIMATE = 5e-3  # and coefficients found among the untouched elements of a model trained on
_ROUNDED = 2.0**-7  # of a tensor's largest number: what the steps of a program in bfloat16 may be off by
_MATCHING = 0.1  # share of elements in tensors that follow the recipe to the last bit, from which they testify


class ConclusionKind(StrEnum):
    """What the weights say of a claimed recipe."""

    CONFIRMED = "confirmed"
    ROUNDING = "confirmed up to rounding"
    MODIFIED = "confirmed, then modified"
    REFUTED = "refuted"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Instead:
    """What a fit of the same models found. `deviations`: voting tensor -> the largest difference between a coefficient
    claimed for it and the one found; empty where the claim is no fixed blend, of which nothing follows. `uniform`:
    whether the same coefficients are claimed for all of them.
    """

    verdict: str
    arithmetic: str | None
    coefficients: dict[str, float]
    deviations: dict[str, float]
    uniform: bool
    untouched: float

    @property
    def agrees(self) -> bool:
        """Whether the coefficients found are those claimed, in every tensor."""
        return bool(self.deviations) and max(self.deviations.values()) <= _SAME_NUMBER


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
    the claimed numbers with which the recipe does reproduce every compared tensor of the suspect.
    """
    compared = [c for c in checks if c.state is not CheckState.CANNOT_SAY]
    wrong = [c for c in compared if c.state is not CheckState.MATCH]
    total = sum(c.total for c in checks)
    left = total - sum(c.total for c in compared)
    if not replayable:
        return _undetermined("the method draws random numbers, and its seed is not known", "Say recipe.seed=<number>")
    if not compared:
        return _undetermined("no tensor could be compared", *(c.detail for c in checks[:3]))
    apart = [f"{c.name}: {c.detail}" for c in checks if c.state is CheckState.CANNOT_SAY][:8]
    uncompared = f"{left / max(total, 1):.1%} of the weights could not be compared"
    if not wrong and left > _UNCOMPARED * total:
        return _undetermined(f"every compared tensor is identical, but {uncompared}", *apart)
    if not wrong:
        elements = sum(c.total for c in compared)
        reason = f"all {elements:,} weights of {len(compared)} tensors are identical, bit by bit"
        return Conclusion(ConclusionKind.CONFIRMED, (reason, *apart))
    identical = sum(c.identical for c in compared) / max(sum(c.total for c in compared), 1)
    summary = f"{len(wrong)} of {len(compared)} tensors differ; {identical:.3%} of the weights are identical"
    names = tuple(c.name for c in wrong)
    if other_numbers:
        return Conclusion(ConclusionKind.REFUTED, (*other_numbers, summary), names)
    found = _from_fit(instead, summary, wrong, names) if instead is not None else None
    if found is not None and found.kind is ConclusionKind.ROUNDING:
        return found if left <= _UNCOMPARED * total else _undetermined(found.reasons[0], uncompared, summary)
    # What follows the recipe to the last bit speaks for it, however much the rest was changed afterwards.
    same = [c for c in compared if c.state is CheckState.MATCH]
    if sum(c.total for c in same) >= _MATCHING * sum(c.total for c in compared) and len(same) > 1:
        reason = f"{len(same)} tensors are the recipe's to the last bit, these are not"
        return Conclusion(ConclusionKind.MODIFIED, (reason, summary, *apart), names)
    if found is not None:
        return found
    return _undetermined(
        summary, "nothing in the weights shows what was done instead; training after the merge would look like this"
    )


def _from_fit(
    instead: Instead, summary: str, wrong: Sequence[TensorCheck], names: tuple[str, ...]
) -> Conclusion | None:
    """What the fit allows to be said; None where that is nothing."""
    if not instead.deviations:
        return None
    numbers = ", ".join(f"{value:.4g} of {name}" for name, value in instead.coefficients.items())
    limit = _SAME_ESTIMATE if instead.verdict == "merge_then_modified" else _SAME_NUMBER
    off = [name for name, deviation in instead.deviations.items() if deviation > limit]
    if instead.verdict in {"reproduced", "copy"}:
        beyond = tuple(c.name for c in wrong if c.worst > _ROUNDED)
        if not off and not beyond:
            reason = f"the claimed numbers reproduce the suspect in another arithmetic: {instead.arithmetic}"
            return Conclusion(ConclusionKind.ROUNDING, (reason, summary), names)
        if len(off) <= len(instead.deviations) / 2:  # most tensors have the claimed numbers
            reason = f"the claimed numbers reproduce most tensors ({instead.arithmetic}), but not these"
            return Conclusion(ConclusionKind.MODIFIED, (reason, summary), tuple(dict.fromkeys([*off, *beyond])))
        what = (
            "the suspect is a copy" if instead.verdict == "copy" else "another recipe of the same models reproduces it"
        )
        return Conclusion(ConclusionKind.REFUTED, (f"{what}: {numbers} ({instead.arithmetic})", summary), names)
    # One consensus for the whole model says nothing of a claim that varies over it.
    if instead.verdict == "merge_then_modified" and instead.uniform:
        where = f"{instead.untouched:.1%} of the decisive weights sit where {numbers} puts them"
        if not off:
            return Conclusion(ConclusionKind.MODIFIED, (f"{where}, as claimed", summary), names)
        return Conclusion(ConclusionKind.REFUTED, (f"{where}, which is not what is claimed", summary), names)
    return None


def _undetermined(*reasons: str) -> Conclusion:
    return Conclusion(ConclusionKind.UNDETERMINED, tuple(reasons))
