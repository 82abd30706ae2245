"""Safe ranges of thresholds, from sweeps written by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from case import Case
from observations import Finding, Observation
from support.evidence_lines import case_line, result_line
from threshold_scales import Scale, scale_of
from thresholds import describe, examine, examine_all

from reconstruct.criteria import THRESHOLDS

GRID = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]  # of "spike z", which is 8


def case(name: str, sort: str, verdict: str, sweep: dict[str, Any], half: str = "tuning") -> Observation:
    truth = Case.of(case_line(name, sort, half=half))
    return Observation(truth, Finding.of(result_line(name, verdict, sweep=sweep)))


def guilty(name: str, lost_from: float, half: str = "tuning") -> Observation:
    sweep = {"spike z": [[v, "related"] for v in GRID if v >= lost_from]}
    return case(name, "modified merge", "merge_then_modified", sweep, half)


def innocent(name: str, accused_to: float, half: str = "tuning") -> Observation:
    sweep = {"spike z": [[v, "merge_then_modified"] for v in GRID if v <= accused_to]}
    return case(name, "no merge", "related", sweep, half)


def test_the_range_lies_between_the_last_innocent_and_the_first_loss() -> None:
    rows = [guilty("g", 64), innocent("i", 2), innocent("j", 2, "reporting"), guilty("k", 32, "reporting")]
    report = examine("spike z", rows, GRID)
    assert report.low is not None
    assert report.high is not None
    assert (report.low.safe, report.low.unsafe, report.high.safe, report.high.unsafe) == (4, 2, 32, 64)
    assert report.low.harm is not None
    assert report.low.harm.accused == ("i",)
    assert report.high.harm is not None
    assert report.high.harm.lost == ("g",)
    assert report.chosen == 8.0  # the geometric middle of 4 and 32 is 11.3: 8 and 16 are as near, 8 is taken
    assert report.binds
    assert report.bounded
    assert report.reporting_chosen.safe
    assert describe(report) == (
        "safe down to 4 (factor 2; at 2: 1 accused), up to 32 (factor 4; at 64: 1 lost); tuning half alone: 8"
    )


def test_what_the_other_half_loses_at_the_chosen_value_is_shown() -> None:
    rows = [guilty("g", 64), innocent("i", 4), guilty("k", 16, "reporting")]
    report = examine("spike z", rows, GRID)
    assert report.chosen == 16.0  # between 8 and 32
    assert report.reporting_chosen.lost == ("k",)
    assert report.reporting_today.detected == 1
    assert report.reporting_chosen.detected == 0


def test_a_range_that_is_open_on_a_side_has_no_middle() -> None:
    report = examine("spike z", [guilty("g", 1000), innocent("i", 4)], GRID)
    assert report.high is not None
    assert (report.high.safe, report.high.unsafe) == (64, None)
    assert report.bounded
    assert not report.closed
    assert report.chosen == 8.0


def test_a_threshold_that_changes_nothing_is_said_never_to_bind() -> None:
    report = examine("spike z", [guilty("g", 1000), innocent("i", 0)], GRID)
    assert not report.binds
    assert not report.bounded
    assert report.chosen == report.today == 8.0
    assert describe(report) == "never binds from 2 to 64"


def test_where_nothing_goes_wrong_the_half_has_nothing_to_say() -> None:
    gained = case("g", "modified merge", "related", {"spike z": [[2.0, "merge_then_modified"]]})
    report = examine("spike z", [gained, innocent("i", 0)], GRID)
    assert report.binds
    assert not report.bounded
    assert report.chosen == 8.0


def test_a_value_that_accuses_today_is_not_safe() -> None:
    accused = case("i", "no merge", "merge_consistent", {})
    report = examine("spike z", [guilty("g", 64), accused], GRID)
    assert report.low is None
    assert report.tuning_today.accused == ("i",)
    assert describe(report).endswith("tuning half: i")


@pytest.mark.parametrize(
    ("key", "value", "other", "distance"),
    [
        ("replayed", 0.999, 0.99, 10),
        ("spike ratio", 1.1, 1.3, 3),
        ("voting majority", 0.5, 0.7, 0.2),
        ("spike z", 8, 2, 4),
    ],
)
def test_distances_are_taken_on_the_scale_of_the_threshold(
    key: str, value: float, other: float, distance: float
) -> None:
    assert scale_of(key).distance(value, other) == pytest.approx(distance)
    higher = max(value, other)
    assert scale_of(key).position(higher) > scale_of(key).position(min(value, other))


def test_the_end_of_a_scale_is_infinitely_far() -> None:
    assert Scale.FACTOR_BELOW_ONE.position(1.0) == math.inf
    assert Scale.FACTOR.position(0.0) == -math.inf


def test_runs_with_a_budget_are_left_out() -> None:
    row = guilty("g", 64)
    partial = Observation(row.truth, Finding.of(result_line("g", "related", budget=1000)))
    (report,) = examine_all([row, partial], {"spike z": GRID})
    assert report.tuning_today.detected == 1
    assert report.key in THRESHOLDS


def test_runs_of_another_table_are_refused() -> None:
    stale = case("g", "modified merge", "merge_then_modified", {"spike z": [[8.0, "related"]]})
    with pytest.raises(ValueError, match="g: was run with another value of 'spike z' than today's 8"):
        examine("spike z", [stale], GRID)
