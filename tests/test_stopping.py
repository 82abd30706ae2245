"""When enough was read: each rule with its numbers, none without them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconstruct.evidence import Coverage
from reconstruct.stopping import StageOutcome, reason_to_stop

READ = Coverage(250, 93_000, 9_000_000, 400_000_000_000, 240, 92_000, 19, 19, 60, 62)


def outcome(verdict, **changes):
    plain = StageOutcome(1, 28_000_000, 700, READ, verdict, 238, 4_000_000, 3_000_000, None, 0.01, 0.5)
    return replace(plain, **changes)


def test_a_merge_with_ample_evidence_stops_at_once_and_says_why():
    found = reason_to_stop([outcome("reproduced", width=2e-6)], 3)
    assert found is not None
    assert "3,000,000 novel elements (at least 100,000)" in found
    assert "bounds 2e-06 wide (at most 0.001)" in found
    assert "60 of 62 layers" in found


@pytest.mark.parametrize(
    "changes",
    [
        {"width": None}, {"width": 0.01}, {"width": 1e-6, "novel": 5000}, {"width": 1e-6, "voting": 40},
        {"width": 1e-6, "coverage": replace(READ, kinds=18)}, {"width": 1e-6, "coverage": replace(READ, layers=20)},
    ],
)  # fmt: skip
def test_a_merge_that_could_yet_turn_out_otherwise_goes_on(changes):
    assert reason_to_stop([outcome("reproduced", **changes)] * 2, 3) is None


SETTLED = [
    ("copy", {"voting": 0}, "9,000,000 identical"),
    ("not_explained", {}, "4,000,000 elements in which"),
    ("derived", {}, "4,000,000 elements in which"),
    ("ancestor", {}, "4,000,000 elements in which"),
    ("related", {}, "share of 0.01 would have been seen"),
    ("merge_then_modified", {"z": 17.0}, "z 17 (at least 16)"),
]


@pytest.mark.parametrize(("kind", "changes", "words"), SETTLED)
def test_other_verdicts_need_two_stages_that_agree(kind, changes, words):
    stage = outcome(kind, **changes)
    assert reason_to_stop([stage], 3) is None
    assert reason_to_stop([outcome("undetermined"), stage], 3) is None
    found = reason_to_stop([stage, stage], 3)
    assert found is not None
    assert words in found
    assert f"{kind} in two stages" in found


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("copy", {"coverage": replace(READ, elements=90_000)}), ("not_explained", {"informative": 40_000}),
        ("derived", {"informative": 40_000}), ("related", {"detectable": 0.05}), ("related", {"detectable": None}),
        ("merge_then_modified", {"z": 9.0}), ("merge_consistent", {}), ("undetermined", {}),
    ],
)  # fmt: skip
def test_two_stages_that_agree_on_little_go_on(kind, changes):
    assert reason_to_stop([outcome(kind, **changes)] * 2, 3) is None


def test_one_candidate_without_a_base_is_not_helped_by_more():
    assert "one candidate" in str(reason_to_stop([outcome("undetermined")], 2))
    assert reason_to_stop([outcome("copy")], 2) is None
