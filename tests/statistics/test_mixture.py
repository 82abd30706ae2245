"""Spikes above smooth histograms: none where there is none, and the right share where there is one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA
from reconstruct.statistics.mixture import DECISIVE, decisive_spike, spike, strata_spikes

EDGES = np.arange(-MAXIMUM_STEPS, MAXIMUM_STEPS) + 0.5
ZERO = MAXIMUM_STEPS
SHAPES = {
    "normal 2": stats.norm(scale=2),
    "normal 4, off centre": stats.norm(loc=0.7, scale=4),
    "normal 15": stats.norm(scale=15),
    "logistic 2": stats.logistic(scale=2),
    "Student 3": stats.t(df=3, scale=6),
    "flat": stats.uniform(-30, 60),
}


def probabilities(shape):
    return np.diff(np.r_[0, shape.cdf(EDGES), 1])


@pytest.fixture(params=SHAPES, ids=list(SHAPES))
def shape(request):
    return SHAPES[request.param]


def test_smooth_histogram_has_no_spike(shape):
    random = np.random.default_rng(3)
    found = [spike(random.multinomial(50_000, probabilities(shape))) for _ in range(300)]
    z = np.array([s.z for s in found])
    assert abs(z.mean()) < 0.4
    assert 0.7 < z.std() < 1.3
    assert np.abs(z).max() < 5
    assert np.mean([s.ratio for s in found]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("elements", [40, 400, 4000])
def test_few_elements_do_not_make_a_spike(elements):
    random = np.random.default_rng(4)
    found = [spike(random.multinomial(elements, probabilities(SHAPES["normal 4, off centre"]))) for _ in range(500)]
    assert max(s.z for s in found) < 5


@pytest.mark.parametrize("name", ["normal 4, off centre", "normal 15", "logistic 2", "Student 3"])
def test_planted_spike_is_found_with_its_share(name):
    random = np.random.default_rng(5)
    steps = random.multinomial(490_000, probabilities(SHAPES[name]))
    steps[ZERO] += 10_000
    found = spike(steps)
    assert found.z > 8
    assert found.untouched == pytest.approx(0.02, abs=0.003)
    assert found.reproduced == steps[ZERO]
    assert found.hit_rate == steps[ZERO] / 500_000


def test_histogram_with_gaps_does_not_testify():
    steps = np.random.default_rng(6).multinomial(200_000, probabilities(SHAPES["normal 15"]))
    gaps = steps.copy()
    gaps[1::2] //= 4  # odd differences are rare on a lattice that is mostly twice as coarse
    found = spike(gaps)
    assert found.ratio > 2
    assert found.ripple > 0.5
    assert found.z < 8
    assert spike(steps).ripple == 0


def test_curvature_alone_is_no_ripple(shape):
    random = np.random.default_rng(8)
    assert all(spike(random.multinomial(200_000, probabilities(shape))).ripple == 0 for _ in range(20))


@pytest.mark.parametrize("steps", [np.zeros(41, np.int64), np.eye(41, dtype=np.int64)[ZERO],
                                   np.eye(41, dtype=np.int64)[0]])  # fmt: skip
def test_empty_and_nearly_empty_histograms_give_numbers(steps):
    found = spike(steps)
    assert found.count == steps.sum()
    assert np.isfinite(found.z)
    assert abs(found.z) < 2
    assert 0 <= found.untouched <= 1


def test_no_strata_filled_gives_numbers():
    found = decisive_spike(np.zeros((len(STRATA), 41), np.int64))
    assert (found.count, found.reproduced, found.z, found.untouched) == (0, 0, 0.0, 0.0)


def test_strata_carry_their_bounds():
    steps = np.arange(len(STRATA) * 41).reshape(len(STRATA), 41)
    found = strata_spikes(steps)
    assert [s.low for s in found] == list(STRATA)
    assert [s.high for s in found] == [*STRATA[1:], float("inf")]
    assert [s.count for s in found] == steps.sum(axis=1).tolist()


def test_decisive_spike_adds_the_strata_beyond_four_spacings():
    random = np.random.default_rng(9)
    widths = (1.5, 2, 3, 3, 5, 8, 15)
    steps = np.stack([random.multinomial(50_000, probabilities(stats.norm(scale=w))) for w in widths])
    steps[:DECISIVE, ZERO] += 40_000  # near a source agreement is free
    steps[DECISIVE:, ZERO] += 1_000
    found, parts = decisive_spike(steps), strata_spikes(steps)[DECISIVE:]
    assert (found.low, found.high) == (4.0, float("inf"))
    assert found.count == sum(p.count for p in parts)
    assert found.reproduced == sum(p.reproduced for p in parts)
    assert found.smooth == pytest.approx(sum(p.smooth for p in parts))
    assert found.untouched == pytest.approx(1000 / 51_000, rel=0.15)
    assert max(p.z for p in parts) < found.z < np.sqrt(sum(p.z**2 for p in parts)) + 1


def test_smooth_strata_of_different_widths_have_no_spike_together():
    random = np.random.default_rng(10)
    scales = (1, 1, 1, 2, 4, 10, 40)
    z = []
    for _ in range(100):
        steps = np.stack([random.multinomial(50_000, probabilities(stats.norm(scale=w))) for w in scales])
        z.append(decisive_spike(steps).z)
    assert abs(np.mean(z)) < 0.5
    assert np.max(z) < 4
