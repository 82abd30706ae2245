"""The untouched share by phase: there for a merge, neither uniform nor at the boundary for what only looks like one."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct.statistics.phase import PHASES, phase_test


def observed(noise, untouched, *, n=200_000, seed=0, clusters=None):
    """Phases uniform; a share is left on the predicted number, the others are moved by a normal of `noise` spacings."""
    random = np.random.default_rng(seed)
    phase = random.uniform(-0.5, 0.5, n)
    landed = np.where(random.random(n) < untouched, 0, np.rint(phase + noise * random.normal(size=n)))
    moved = landed * np.where(phase < 0, -1, 1)
    side = np.where(moved == 0, 1, np.where(moved == 1, -1, 0)).astype(np.int8)
    cluster = np.arange(n) if clusters is None else random.integers(0, clusters, n)
    return 0.5 - np.abs(phase), side, cluster


@pytest.mark.parametrize("noise", [0.7, 2.0, 5.0])
@pytest.mark.parametrize("untouched", [0.1, 0.4])
def test_a_trained_merge_keeps_its_share_at_every_phase_and_at_the_boundary(noise, untouched):
    result = phase_test(*observed(noise, untouched))
    assert result.overall_z > 8
    assert result.boundary_z > 5
    assert result.difference[0] == pytest.approx(untouched, abs=0.05)
    if noise >= 2:
        assert result.uniformity > 0.9


@pytest.mark.parametrize("noise", [0.1, 0.2, 0.4])
def test_a_narrow_smooth_relation_hits_the_middle_and_tosses_a_coin_at_the_boundary(noise):
    result = phase_test(*observed(noise, 0.0))
    assert result.difference[-1] > 0.5  # where no rounding was needed it agrees
    assert result.uniformity < 0.6


@pytest.mark.parametrize("noise", [2.0, 5.0])
def test_a_wide_smooth_relation_shows_nothing(noise):
    scores = [phase_test(*observed(noise, 0.0, n=50_000, seed=seed)) for seed in range(20)]
    assert abs(np.mean([s.boundary_z for s in scores])) < 1.5
    assert max(s.boundary_z for s in scores) < 5


def test_elements_that_move_alike_are_one_witness():
    distance, side, _ = observed(1.0, 0.0, n=20_000)
    kinds = np.random.default_rng(1).integers(0, 40, len(side))
    fate = np.random.default_rng(2).choice([1, -1], 40, p=[0.8, 0.2]).astype(np.int8)
    alone = phase_test(distance, fate[kinds], np.arange(len(side)))
    together = phase_test(distance, fate[kinds], kinds)
    assert alone.overall_z > 50
    assert together.overall_z < 10
    assert together.clusters == 40


def test_too_few_elements_judge_nothing():
    result = phase_test(*observed(1.0, 0.5, n=200))
    assert result.uniformity == 0.0
    assert result.boundary_z == 0.0
    empty = phase_test(np.empty(0), np.empty(0, np.int8), np.empty(0, np.int64))
    assert (empty.overall_z, empty.clusters, len(empty.difference)) == (0.0, 0, PHASES)
