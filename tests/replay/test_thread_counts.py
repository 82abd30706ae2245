"""mergekit's last bits depend on how many threads add up a large tensor: the number is found."""

from __future__ import annotations

import pytest
import torch
from support.family import save

from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.replay.comparison import CheckState, compare
from reconstruct.replay.mergekit import RecipeOutput
from reconstruct.replay.thread_counts import thread_count_behind, threads_of_torch


def scaled(size, seed=0):
    """A tensor times its inner product with another, of which model_stock makes its numbers: float32 [size]."""
    generator = torch.Generator().manual_seed(seed)
    values, others = torch.randn(size, generator=generator), torch.randn(size, generator=generator)
    return values * torch.dot(values, others)


@pytest.fixture
def examined(tmp_path):
    def examine(size, made_with, change=0.0):
        with threads_of_torch(made_with):
            made = scaled(size)
        suspect = open_checkpoint(str(save(tmp_path / "suspect", {"w": made + change}, config=False)))

        def recompute(names):
            return [RecipeOutput(name, scaled(size)) for name in names]

        checks = [compare(suspect, suspect.tensors["w"], o.tensor) for o in recompute(["w"])]
        return checks, thread_count_behind(checks, suspect, recompute)

    return examine


@pytest.mark.parametrize("made_with", [2, 4, 16])
def test_the_number_of_threads_is_found(examined, made_with):
    with threads_of_torch(made_with):
        there = scaled(300_000)
    with threads_of_torch(1):
        if torch.equal(scaled(300_000), there):
            pytest.skip("torch adds up in one way here, whatever the number of threads")
        checks, count = examined(300_000, made_with)
    assert checks[0].state is CheckState.MISMATCH
    with threads_of_torch(count):
        assert torch.equal(scaled(300_000), there)


def test_other_differences_are_not_a_matter_of_threads(examined):
    assert examined(300_000, 1, change=1.0)[1] is None
    assert examined(30_000, 2, change=1e-3)[1] is None


def test_nothing_is_tried_where_nothing_differs(examined):
    checks, count = examined(1000, 2)
    assert checks[0].state is CheckState.MATCH
    assert count is None
