"""When a run under a byte budget has seen enough: rules on the stages so far, each with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reconstruct.byte_size import byte_text
from reconstruct.criteria import THRESHOLDS, detectable_share
from reconstruct.evidence import Coverage, ModelEvidence
from reconstruct.verdict import Verdict, VerdictKind

__all__ = ["StageOutcome", "outcome_of", "reason_to_stop"]

_NOVEL = 100_000  # novel elements that replay
_WIDTH = 1e-3  # of the certified bounds of every coefficient
_IDENTICAL = 1_000_000  # elements identical to one model
_INFORMATIVE = 500_000  # elements in which the sources differ, explained or not
_DETECTABLE = 0.02  # untouched share that would have been seen
_MARGIN = 2.0  # times the z that the table asks for
_VOTING = 100  # matrices


@dataclass(frozen=True)
class StageOutcome:
    """What the stages up to this one read, of all models together, and what it showed. `width`: widest certified
    bounds of a coefficient, None without; `detectable`: see `criteria.detectable_share`, None where no share would be
    seen; `z`: of the decisive spike over its controls.
    """

    stage: int
    bytes: int
    requests: int
    coverage: Coverage
    verdict: str
    voting: int
    informative: int
    novel: int
    width: float | None
    detectable: float | None
    z: float


def outcome_of(
    stage: int, read: tuple[int, int], evidence: ModelEvidence, verdict: Verdict, coverage: Coverage
) -> StageOutcome:
    """`read`: bytes and requests so far."""
    matrices = [t.measurement for t in evidence.tensors if t.measurement.is_matrix]
    estimate = evidence.estimate
    width = float(np.max(estimate.high - estimate.low)) if estimate.origin == "certified" else float("inf")
    seen = detectable_share(evidence)
    return StageOutcome(
        stage, *read, coverage, verdict.kind.value, len(evidence.voting), sum(m.informative for m in matrices),
        int(evidence.replay.novel[0]), width if np.isfinite(width) else None, seen if np.isfinite(seen) else None,
        evidence.spike.z - max(evidence.controls.spike_z, 0.0),
    )  # fmt: skip


def reason_to_stop(stages: Sequence[StageOutcome], models: int) -> str | None:
    """Why more bytes would not change the answer, or None. `models`: the suspect and its distinct sources."""
    last, read = stages[-1], stages[-1].coverage
    if models < 3 and _is(last, "UNDETERMINED"):
        return "one candidate without a base: more of its weights would tell no more"
    if (last.voting < _VOTING and not _is(last, "COPY")) or not read.spread:
        return None
    numbers = (
        f"{byte_text(last.bytes)} in {read.tensors:,} tensors, {read.layers} of {read.all_layers} layers and "
        f"{read.kinds} of {read.all_kinds} module kinds"
    )
    if _is(last, "REPRODUCED"):
        if last.novel >= _NOVEL and last.width is not None and last.width <= _WIDTH:
            return (
                f"reproduced on {numbers}: {last.novel:,} novel elements (at least {_NOVEL:,}) and certified bounds "
                f"{last.width:.2g} wide (at most {_WIDTH:g})"
            )
        return None
    if len(stages) < 2 or stages[-2].verdict != last.verdict:
        return None
    found = _settled(last)
    return f"{last.verdict} in two stages, on {numbers}: {found}" if found else None


def _settled(last: StageOutcome) -> str | None:
    """What makes a verdict that two stages agree on final."""
    if _is(last, "COPY") and last.coverage.elements >= _IDENTICAL:
        return f"{last.coverage.elements:,} identical elements (at least {_IDENTICAL:,})"
    if _is(last, "MERGE_THEN_MODIFIED") and last.z >= _MARGIN * THRESHOLDS["spike z"]:
        return f"z {last.z:.3g} (at least {_MARGIN * THRESHOLDS['spike z']:g})"
    if _is(last, "ANCESTOR") and last.informative >= _INFORMATIVE:
        return _informative(last)
    if last.informative < _INFORMATIVE:
        return None
    if _is(last, "NOT_EXPLAINED", "DERIVED"):
        return _informative(last)
    if _is(last, "RELATED") and last.detectable is not None and last.detectable <= _DETECTABLE:
        return f"an untouched share of {last.detectable:.2g} would have been seen (at most {_DETECTABLE:g})"
    return None


def _informative(last: StageOutcome) -> str:
    return f"{last.informative:,} elements in which the sources differ (at least {_INFORMATIVE:,})"


def _is(outcome: StageOutcome, *kinds: str) -> bool:
    return outcome.verdict in {VerdictKind[kind].value for kind in kinds}
