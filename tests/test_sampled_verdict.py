"""What may be said when a part of the weights was read: as the table says, or less, never more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.cases import dataset
from support.family import CODE, CODE_HALF, CODE_SEED2, DOCS

from reconstruct.analysis import analyse
from reconstruct.criteria import detectable_share
from reconstruct.evidence import Coverage
from reconstruct.kernels.results import MAXIMUM_STEPS
from reconstruct.verdict import VerdictKind, decide

PART = Coverage(30, 93_000, 170_000, 400_000_000, 25, 92_000, 9, 9, 5, 5)


@pytest.fixture(scope="module")
def blend(blend_folder):
    return analyse(dataset(blend_folder, [CODE, DOCS]))


@pytest.fixture(scope="module")
def sibling():
    return analyse(dataset(CODE_SEED2, [CODE, DOCS]))


@pytest.fixture(scope="module")
def twin():
    return analyse(dataset(CODE, [CODE, DOCS]))


def on(evidence, **changes):
    return decide(replace(evidence, coverage=replace(PART, **changes)))


def test_a_merge_is_one_of_what_was_read_and_the_limits_say_how_little_that_is(blend):
    verdict = on(blend)
    assert verdict.kind is VerdictKind.REPRODUCED
    assert verdict.summary.endswith("as far as they were read.")
    assert any("0.042 % of the weights" in limit and "in 30 of 93,000 tensors" in limit for limit in verdict.limits)
    assert any("more than 12 % of the layers' modules" in limit for limit in verdict.limits)
    assert any("angles of whole tensors" in limit for limit in verdict.limits)


def test_without_a_budget_nothing_is_qualified(blend):
    verdict = decide(blend)
    assert verdict.kind is VerdictKind.REPRODUCED
    assert not any("read" in limit for limit in verdict.limits)


def few(evidence, count):
    return replace(evidence, voting=evidence.voting[:count])


@pytest.mark.parametrize("name", ["blend", "sibling"])
def test_a_handful_of_matrices_does_not_speak_for_many(name, request):
    evidence = few(request.getfixturevalue(name), 5)
    verdict = on(evidence)
    assert verdict.kind is VerdictKind.UNDETERMINED
    assert verdict.recipe is None
    assert "A larger sampling.bytes" in verdict.summary
    reason = verdict.reasons[0]
    assert (reason.value, reason.threshold, reason.passed) == (5, 12, False)


def test_a_model_of_few_matrices_is_judged_by_all_it_has(blend):
    assert on(few(blend, 5), all_matrices=5).kind is VerdictKind.REPRODUCED


def test_a_copy_is_identical_on_what_was_read(twin):
    verdict = on(twin)
    assert verdict.kind is VerdictKind.COPY
    assert verdict.summary.startswith("Every weight that was read is identical to")


@pytest.mark.parametrize("changes", [{"kinds": 8}, {"layers": 2}, {"matrices": 6}])
def test_a_copy_in_some_places_only_is_no_copy(twin, changes):
    assert on(twin, **changes).kind is VerdictKind.UNDETERMINED


def test_no_trace_means_something_only_where_it_would_have_been_seen(sibling):
    seen = detectable_share(sibling)
    assert 0 < seen < 0.1
    verdict = on(sibling)
    assert verdict.kind is VerdictKind.RELATED
    assert any(f"share below {seen:.2g} would not have been seen" in limit for limit in verdict.limits)
    blurred = replace(sibling.phases, errors=sibling.phases.errors * 10)
    assert on(replace(sibling, phases=blurred)).kind is VerdictKind.UNDETERMINED
    nowhere = replace(sibling.phases, errors=np.full_like(sibling.phases.errors, np.nan))
    assert detectable_share(replace(sibling, phases=nowhere)) == np.inf


def test_more_evidence_sees_smaller_shares(sibling):
    half = analyse(dataset(CODE_HALF, [CODE, DOCS]))
    assert np.isfinite(detectable_share(half))
    sharper = replace(sibling.phases, errors=sibling.phases.errors / 10)
    count = replace(sibling.spike, count=sibling.spike.count * 100, smooth=sibling.spike.smooth * 100,
                    reproduced=sibling.spike.reproduced * 100)  # fmt: skip
    assert detectable_share(replace(sibling, phases=sharper, spike=count)) == pytest.approx(
        detectable_share(sibling) / 10, rel=0.01
    )


def test_a_plane_in_which_nearly_every_bit_replays_is_left_open(blend):
    short = replace(blend.replay, exact=blend.replay.exact * 0)
    tensors = tuple(replace(t, replay=replace(t.replay, exact=t.replay.exact * 0)) for t in blend.tensors)
    evidence = replace(blend, tensors=tensors, replay=short)
    assert decide(evidence).kind is VerdictKind.RELATED  # every weight read: in the plane, made in an unknown way
    assert on(evidence).kind is VerdictKind.UNDETERMINED
    unknown = replace(evidence, arithmetic=None, recipe=None)
    assert on(unknown).kind is VerdictKind.RELATED
    assert on(replace(unknown, open_angles=len(blend.voting))).kind is VerdictKind.UNDETERMINED


def test_too_few_novel_elements_are_no_denial(blend):
    def thin(replay):
        steps = np.zeros_like(replay.steps)
        steps[0, 3, MAXIMUM_STEPS] = 30
        return replace(replay, novel=replay.novel * 0 + 30, steps=steps)

    tensors = tuple(replace(t, replay=thin(t.replay)) for t in blend.tensors)
    total = replace(blend.replay, novel=blend.replay.novel * 0 + 30 * len(blend.voting))
    verdict = on(replace(blend, tensors=tensors, replay=total))
    assert verdict.kind is VerdictKind.UNDETERMINED
    assert any(r.name == "novel elements" and not r.passed for r in verdict.reasons)
