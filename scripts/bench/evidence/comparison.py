"""Three tests on the same cases: this program's verdict, least squares with R squared, and the peer `modeldna`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import baselines
from observations import Observation
from peers import PEER, PeerAnswer
from proportions import Proportion, proportion

__all__ = ["ComparedTest", "accused_by_kind", "compare", "peer_can_say"]

_KIN = {"second merge", "true parent missing", "wrong parent beside a true one"}  # groups: merges, but not of these
_MATERIAL = 0.05
_OWN = "reconstruct"
_BALANCED, _CLEAN = "least squares, R² of best balanced accuracy", "least squares, R² that accuses none"
_ANSWERED = "those of it that the peer answers"


@dataclass(frozen=True)
class ComparedTest:
    """`scope`: which cases; `unmodified`, `modified`: merges that the test calls merges; the others that it accuses
    falsely: `accused_trained` models that are no merge of anything, and `accused_kin`, merges of other models than the
    candidates, or of them and another.
    """

    test: str
    scope: str
    unmodified: Proportion
    modified: Proportion
    accused_trained: Proportion
    accused_kin: Proportion


def compare(observations: Sequence[Observation], answers: Mapping[str, PeerAnswer]) -> list[ComparedTest]:
    """All tests on the reporting half, and this program on both; then all on the cases of that half for which the peer
    has an answer and MERGE could be one. The naive thresholds come from the tuning half.
    """
    reporting = [o for o in observations if o.truth.half == "reporting"]
    tests = _tests(observations)
    rows = [_counted(_OWN, "both halves", observations, _own)]
    rows += [_counted(name, "reporting half", reporting, accuses) for name, accuses in tests.items()]
    if answers:
        answered = [o for o in reporting if peer_can_say(o, answers)]
        tests[PEER.replace("==", " ")] = lambda o: bool(answers[o.truth.name].accuses)
        rows += [_counted(name, _ANSWERED, answered, accuses) for name, accuses in tests.items()]
    return rows


def accused_by_kind(
    observations: Sequence[Observation], answers: Mapping[str, PeerAnswer]
) -> dict[str, dict[str, Proportion]]:
    """Test -> group of cases that are no merge -> how many it accuses falsely, on the reporting half."""
    others = [o for o in observations if o.truth.half == "reporting" and not o.truth.is_merge]
    table = {name: _by_group(others, accuses) for name, accuses in _tests(observations).items()}
    if answers:
        answered = [o for o in others if peer_can_say(o, answers)]
        table[PEER.replace("==", " ")] = _by_group(answered, lambda o: bool(answers[o.truth.name].accuses))
    return table


def peer_can_say(o: Observation, answers: Mapping[str, PeerAnswer]) -> bool:
    """Whether the peer answers, and MERGE, which takes two parents besides the base, would be right where it is one."""
    answer = answers.get(o.truth.name)
    if answer is None or answer.accuses is None:
        return False
    if not o.truth.is_merge:
        return True
    true = o.truth.coefficients
    took_part = [path for path in o.truth.parents if true is None or abs(true.get(path, 0.0)) >= _MATERIAL]
    return len([path for path in took_part if path != o.truth.base]) >= 2


def _tests(observations: Sequence[Observation]) -> dict[str, Callable[[Observation], bool]]:
    """Name of each test but the peer's -> whether it accuses."""
    balanced, clean = baselines.choose([o for o in observations if o.truth.half == "tuning"])

    def naive(found: baselines.BaselineScore) -> Callable[[Observation], bool]:
        return lambda o: baselines.score(o, with_base=found.rule.with_base) >= found.rule.threshold

    return {
        _OWN: _own,
        f"{_BALANCED} ({balanced.rule.threshold:.3f})": naive(balanced),
        f"{_CLEAN} ({clean.rule.threshold:.3f})": naive(clean),
    }


def _own(o: Observation) -> bool:
    """A merge that is called one; of others, any verdict that accuses falsely, also of a wrong direction."""
    return o.finding.accuses if o.truth.is_merge else o.false_accusation


def _counted(
    test: str, scope: str, cases: Sequence[Observation], accuses: Callable[[Observation], bool]
) -> ComparedTest:
    def share(sort: str, *, kin: bool) -> Proportion:
        return proportion(accuses(o) for o in cases if o.truth.sort == sort and (o.truth.group in _KIN) == kin)

    return ComparedTest(
        test, scope, share("merge", kin=False), share("modified merge", kin=False), share("no merge", kin=False),
        share("no merge", kin=True),
    )  # fmt: skip


def _by_group(cases: Sequence[Observation], accuses: Callable[[Observation], bool]) -> dict[str, Proportion]:
    groups: dict[str, list[bool]] = {}
    for o in cases:
        groups.setdefault(o.truth.group, []).append(accuses(o))
    return {group: proportion(hits) for group, hits in groups.items()}
