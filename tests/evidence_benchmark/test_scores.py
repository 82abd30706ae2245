"""Scores of a handful of cases that can be counted by hand."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import scores
from case import Case
from observations import Finding, Observation
from proportions import proportion
from support.evidence_lines import case_line, result_line


def observed(case: dict[str, Any], verdict: str, *shares: float, **others: Any) -> Observation:
    line = result_line(case["name"], verdict, **({"shares": shares} if shares else {}), **others)
    return Observation(Case.of(case), Finding.of(line))


def test_bounds_of_none_and_of_all() -> None:
    none = proportion([False] * 300)
    assert none.share == 0
    assert none.low == 0
    assert none.at_most == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-9)  # .9936 %
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 300), rel=1e-9)
    every = proportion([True] * 10)
    assert (every.high, every.at_most) == (1.0, 1.0)
    assert every.low == pytest.approx(0.025**0.1, rel=1e-9)
    half = proportion([True, False])
    assert half.low == pytest.approx(1 - math.sqrt(0.975), rel=1e-9)  # P(at least 1 of 2) = .025
    nothing = proportion([])
    assert math.isnan(nothing.share)
    assert (nothing.low, nothing.high) == (0.0, 1.0)


def test_confusion_and_false_accusations() -> None:
    rows = [
        observed(case_line("m"), "related"),
        observed(case_line("n"), "merge_consistent"),
        observed(case_line("o"), "not_explained"),  # not expected, but accuses nobody
        observed(case_line("p", "merge"), "reproduced"),
        observed(case_line("q", group="parent", forbidden=["derived"]), "derived"),  # a wrong direction
    ]
    assert scores.confusion(rows)["no merge", "sibling"] == Counter(related=1, merge_consistent=1, not_explained=1)
    accused = scores.false_accusations(rows)
    assert (accused.hits, accused.total) == (2, 4)
    assert scores.detection(rows)["merge", "linear"].share == 1.0
    missed = scores.misses(rows)
    assert [(miss.name, miss.false_accusation) for miss in missed] == [("q", True), ("n", True), ("o", False)]


def test_an_innocent_candidate_in_a_recipe_is_named() -> None:
    case = case_line("m", "merge", coefficients={"f/base": 0.0, "f/a": 1.0, "f/b": 0.0})
    assert scores.accused_innocents([observed(case, "reproduced", 0.0, 0.9, 0.1)]) == {"m": ["f/b"]}
    assert not scores.accused_innocents([observed(case, "reproduced", 0.0, 1.0, 0.01)])
    assert not scores.accused_innocents([observed(case, "related", 0.0, 0.9, 0.1)])


def test_exact_merges_have_exactly_the_round_numbers() -> None:
    rows = [
        observed(case_line("a", "merge"), "reproduced", 0.0, 0.6, 0.4),
        observed(case_line("b", "merge"), "reproduced", 0.0, 0.6001, 0.3999),
        observed(case_line("c", "merge"), "merge_then_modified", 0.0, 0.6, 0.4),
        observed(case_line("d", "merge", coefficients=None), "reproduced"),  # no single true number: not counted
    ]
    exact = scores.exact_merges(rows)
    assert (exact.hits, exact.total) == (1, 3)


def test_errors_are_those_of_the_worst_coefficient_on_the_same_cases() -> None:
    first = observed(case_line("a", "merge"), "reproduced", 0.0, 0.61, 0.4)
    line = result_line("b", "reproduced")
    line["coefficients"]["f/a"]["interval"] = None
    second = Observation(Case.of(case_line("b", "merge")), Finding.of(line))
    errors = scores.coefficient_errors([first, second])
    assert {method: list(of) for method, of in errors.items()} == {method: ["a"] for method in scores.METHODS}
    assert errors["least_squares"]["a"] == pytest.approx(0.01)


def test_without_a_base_least_squares_sums_to_one_by_itself() -> None:
    case = case_line("a", "merge", base=None, coefficients={"f/a": 0.6, "f/b": 0.4})
    line = result_line("a", "reproduced", (0.0, 0.59, 0.41))
    for path, value in (("f/a", 0.0), ("f/b", 1.0)):  # what is left of the first parent, the pivot
        line["coefficients"][path]["sum_to_one"] = value
    errors = scores.coefficient_errors([Observation(Case.of(case), Finding.of(line))])
    assert errors["sum_to_one"]["a"] == errors["least_squares"]["a"] == pytest.approx(0.01)


def test_calibration_counts_issued_bounds_and_lists_those_without_the_truth() -> None:
    rows = [
        observed(case_line("a", "merge"), "reproduced"),
        observed(case_line("b", "merge"), "reproduced", 0.0, 0.6001, 0.4),
        observed(case_line("c", "merge"), "merge_then_modified", 0.0, 0.7, 0.3, origin="consensus"),  # issues none
        observed(case_line("d"), "related"),  # no true number
    ]
    share, outside = scores.calibration(rows)
    assert (share.hits, share.total) == (1, 2)
    assert outside == {"b": pytest.approx(1e-4 - 1e-7)}


def test_untouched_shares_are_compared_where_one_was_seen() -> None:
    case = case_line("a", "modified merge", untouched=0.3)
    rows = [observed(case, "merge_then_modified", untouched=0.28), observed(case | {"name": "b"}, "related")]
    assert scores.untouched_errors(rows) == {"a": (0.3, 0.28)}


def test_a_miss_says_which_conditions_failed() -> None:
    reasons = [
        {"name": "elements identical to /models/f/a", "value": 0.2, "threshold": 1.0, "passed": False},  # a copy's
        {"name": "novel elements", "value": 12, "threshold": 1000, "passed": False},
        {"name": "replayed elements identical, worst matrix", "value": 1.0, "threshold": 0.999, "passed": True},
        {"name": "something new about /models/f/a", "value": 0.0, "threshold": 1.0, "passed": False},
    ]
    row = observed(case_line("a", "merge"), "related", reasons=reasons)
    failed = scores.misses([row])[0].telling
    assert failed == (("novel elements", 12.0, 1000.0), ("something new about a", 0.0, 1.0))


def test_a_false_accusation_says_which_conditions_held() -> None:
    reasons = [
        {"name": "coefficients over tensors, spread", "value": 0.003, "threshold": 0.01, "passed": True},
        {"name": "novel elements", "value": 5000, "threshold": 1000, "passed": True},
        {"name": "decisive strata with a firm spike", "value": 1, "threshold": 2, "passed": False},
    ]
    (miss,) = scores.misses([observed(case_line("n"), "merge_consistent", reasons=reasons)])
    assert miss.telling == (("coefficients over tensors, spread", 0.003, 0.01),)


def test_that_a_changed_merge_does_not_replay_is_no_cause_beside_others() -> None:
    replay = {"name": "novel elements", "value": 12, "threshold": 1000, "passed": False}
    spike = {"name": "decisive strata with a firm spike", "value": 1, "threshold": 2, "passed": False}
    case = case_line("a", "modified merge", expected=["reproduced", "merge_then_modified"])
    for reasons, shown in (([replay, spike], spike["name"]), ([replay], replay["name"])):
        (miss,) = scores.misses([observed(case, "related", reasons=reasons)])
        assert [name for name, *_ in miss.telling] == [shown]


def test_every_condition_belongs_to_a_rule() -> None:
    """Conditions as the decision table words them, of the rule whose verdict stands beside them."""
    worded = {
        "untouched share by sides of the rounding boundary, z over clusters": "merge_then_modified",
        "untouched share of f/a as the product, over the suspect's": "ancestor",
        "elements inside the rounding box": "related",
        "inside the rounding box (not full)": "merge_then_modified",
        "elements that differ from the nearest source": "reproduced",
        "elements identical to f/a": "copy",
        "coefficient of f/a, distance from 1": "derived",
        "coefficients over tensors, spread": "merge_consistent",
        "largest untouched share in another orientation, at most this one's": "merge_then_modified",
        "largest other parent": "derived",
    }
    for name, verdict in worded.items():
        reasons = [{"name": name, "value": 0.0, "threshold": 1.0, "passed": False}]
        for expected in ("reproduced", "merge_then_modified", "merge_consistent", "derived", "ancestor", "copy"):
            row = observed(case_line("a", expected=[expected]), "not_explained", reasons=reasons)
            assert bool(scores.misses([row])[0].telling) == (verdict == expected)
