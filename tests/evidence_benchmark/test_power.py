"""Power curves of a handful of cases."""

from __future__ import annotations

from typing import Any

import power
from case import Case
from observations import Finding, Observation
from support.evidence_lines import case_line, result_line


def modified(name: str, verdict: str, **truth: Any) -> Observation:
    case = case_line(name, "modified merge", group="trained on", **truth)
    return Observation(Case.of(case), Finding.of(result_line(name, verdict)))


def test_power_by_untouched_share() -> None:
    rows = [
        modified("a", "related", untouched=0.002),
        modified("b", "merge_then_modified", untouched=0.01),
        modified("c", "merge_then_modified", untouched=0.02),
        modified("d", "related", untouched=0.029),
        modified("e", "merge_then_modified", untouched=1.0),
        modified("f", "merge_then_modified"),
    ]
    bins = power.power(rows)
    counts = {(b.low, b.high): (b.rate.hits, b.rate.total) for b in bins if b.rate.total}
    assert counts == {(0.001, 0.003): (0, 1), (0.01, 0.03): (2, 3), (0.3, 1.0): (1, 1)}
    assert next(b.center for b in bins if b.low == 0.01) == 0.02
    assert len(bins) == len(power.SHARE_EDGES) - 1


def test_power_by_strength() -> None:
    rows = [
        modified("a", "related", strength=2.0),
        modified("b", "merge_then_modified", strength=1.0),
        modified("c", "merge_then_modified", strength=2.0),
    ]
    table = power.strengths(rows)["trained on"]
    assert [(s, rate.hits, rate.total) for s, rate in table.items()] == [(1.0, 1, 1), (2.0, 1, 2)]


def test_strengths_of_different_families_are_taken_together() -> None:
    rows = [modified(name, "related", strength=s) for name, s in (("a", 4.0), ("b", 6.25), ("c", 9.0))]
    table = power.strengths(rows)["trained on"]
    assert {s: rate.total for s, rate in table.items()} == {5.0: 2, 9.0: 1}  # 5 is the geometric mean of 4 and 6.25


def test_a_lead_is_no_proof() -> None:
    rows = [modified(v, v, untouched=0.5) for v in ("merge_then_modified", "merge_consistent", "reproduced", "related")]
    assert [power.proved(row) for row in rows] == [True, False, True, False]
    assert power.power(rows, power.proved)[-1].rate.hits == 2
