"""The naive test on a few scores, its thresholds chosen by hand."""

from __future__ import annotations

import math

import pytest
from baselines import BaselineRule, apply, choose, score
from case import Case
from curves import operating_curve
from observations import Finding, Observation
from support.evidence_lines import case_line, result_line


def case(name: str, sort: str, explained: float | None, *shares: float) -> Observation:
    given = result_line(name, "related", shares=shares or (0.0, 0.6, 0.4), explained=explained)
    return Observation(Case.of(case_line(name, sort)), Finding.of(given))


ROWS = [
    case("a", "merge", 0.99), case("b", "merge", 0.90), case("c", "modified merge", 0.70),
    case("d", "no merge", 0.80), case("e", "no merge", 0.10), case("f", "no merge", 0.98, 0.02, 0.98, 0.0),
]  # fmt: skip


def test_one_parent_alone_is_no_merge_however_much_it_explains() -> None:
    assert score(case("x", "no merge", 0.98, 0.02, 0.98, 0.0), with_base=True) == -math.inf
    blend = case("y", "merge", 0.98, 0.4, 0.6, 0.0)
    assert score(blend, with_base=True) == 0.98
    assert score(blend, with_base=False) == -math.inf
    assert score(case("z", "merge", None), with_base=True) == -math.inf


def test_both_rules_are_the_most_favourable_ones() -> None:
    best, clean = choose(ROWS)
    assert clean.rule.threshold == pytest.approx(0.85)  # above the innocent .80, below the merges at .90
    assert (clean.detected.hits, clean.accused.hits) == (2, 0)
    # .85 gives (2/3 + 3/3) / 2 = .833; between .10 and .70 it would be (3/3 + 2/3) / 2, as good: the stricter is taken
    assert best.rule == clean.rule
    assert best.balanced_accuracy == pytest.approx(5 / 6)


def test_a_rule_counts_on_other_cases() -> None:
    found = apply(BaselineRule(0.75, with_base=False), ROWS)
    assert (found.detected.hits, found.detected.total) == (2, 3)
    assert (found.accused.hits, found.accused.total) == (1, 3)


def test_no_rule_from_one_kind_alone() -> None:
    with pytest.raises(ValueError, match="lacks one kind"):
        choose(ROWS[:3])


def test_the_curve_rises_and_ends_where_nothing_more_is_accused() -> None:
    rows = [(o.truth.is_merge, score(o, with_base=False)) for o in ROWS]
    assert operating_curve(rows) == [
        (0.0, 0.0), (0.0, 1 / 3), (0.0, 2 / 3), (1 / 3, 2 / 3), (1 / 3, 1.0), (2 / 3, 1.0),
    ]  # fmt: skip


def test_equal_scores_are_one_step_of_the_curve() -> None:
    assert operating_curve([(True, 0.5), (False, 0.5)]) == [(0.0, 0.0), (1.0, 1.0)]
