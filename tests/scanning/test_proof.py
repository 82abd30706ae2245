"""What counts as shown: verdicts, the search over subsets, versions of a source, other explanations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconstruct.criteria import THRESHOLDS
from reconstruct.scanning.proof import Trial, beyond_search
from reconstruct.verdict import VerdictKind

FIRM = {"spike z": 80.0, "phase z": 40.0, "boundary z": 20.0}
TRAINED = Trial((0, 1), VerdictKind.MERGE_THEN_MODIFIED, "", {0: 0.6, 1: 0.4}, (0, 1), 0.4, None, "1+2", FIRM, False)
EXACT = replace(TRAINED, verdict=VerdictKind.REPRODUCED, untouched=1.0)


def test_the_luckiest_of_all_subsets_has_to_pass():
    assert beyond_search(8.0) == pytest.approx(8.86, abs=0.01)
    assert beyond_search(5.0) == pytest.approx(6.29, abs=0.01)
    assert TRAINED.shows
    for key in FIRM:
        between = (THRESHOLDS[key] + beyond_search(THRESHOLDS[key])) / 2
        assert not replace(TRAINED, searched=FIRM | {key: between}).shows
        assert replace(EXACT, searched=FIRM | {key: between}).shows  # bits are no matter of chance


def test_a_version_of_a_source_shows_nothing_and_explains_away_only_what_leaves_no_more_untouched():
    version = replace(TRAINED, version=True)
    assert not version.shows
    assert version.equals(TRAINED)
    assert not version.equals(replace(TRAINED, untouched=0.41))
    assert replace(EXACT, version=True).shows


@pytest.mark.parametrize("kind", [k for k in VerdictKind if k not in {VerdictKind.REPRODUCED, TRAINED.verdict}])
def test_no_other_verdict_shows_a_merge(kind):
    assert not replace(TRAINED, verdict=kind).shows


def test_an_explanation_as_good_counts_whatever_its_verdict():
    other = replace(TRAINED, members=(0, 2), material=(0, 2), verdict=VerdictKind.MERGE_CONSISTENT)
    assert other.equals(TRAINED)
    assert not replace(other, untouched=0.3).equals(TRAINED)
    assert not other.equals(EXACT)
    assert replace(EXACT, members=(0, 2)).equals(EXACT)
    assert not replace(TRAINED, material=()).shows
