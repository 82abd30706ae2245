"""A verdict on 397 billion parameters from some megabytes: over the wire, headers included, every byte counted."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from huggingface_hub import constants
from support.fake_hub import FakeHub
from support.giant_layout import WEIGHT, Layout, Repository, Shard, elements

import reconstruct
from reconstruct.checkpoints.expert_order import find_expert_orders
from reconstruct.checkpoints.model_set import open_models
from reconstruct.checkpoints.open import open_model
from reconstruct.kernels.formats import decode
from reconstruct.verdict import VerdictKind

#: Small enough for every day, with all kinds of modules.
SMALL = {"layers": 16, "experts": 48, "hidden": 512, "intermediate": 128, "vocabulary": 4096, "shards": 5}


@pytest.fixture
def over_the_wire(tmp_path, monkeypatch):
    """Fit a suspect against the fine-tune and its base on a Hub; gives the run and the Hub's own count."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def fit(suspect, layout, budget):
        names = {"base": "org/base", "fine-tune 1": "org/tuned", suspect: "org/suspect"}
        repositories = {name: Repository(model, layout).contents() for model, name in names.items()}
        with FakeHub(repositories) as hub:
            monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
            run = reconstruct.fit("org/suspect", ["org/tuned"], "org/base", folder=tmp_path / "run", budget=budget)
            return run, hub.bytes_sent, len(hub.requests)

    return fit


def is_the_blend(run):
    assert run.verdict.kind is VerdictKind.REPRODUCED
    at = list(run.coefficients).index("org/tuned")
    low, high = run.evidence.estimate.low[at], run.evidence.estimate.high[at]
    assert WEIGHT - 0.001 < low <= WEIGHT <= high < WEIGHT + 0.001
    assert run.coefficients["org/tuned"] == pytest.approx(WEIGHT, abs=1e-9)
    return True


def test_any_range_of_a_shard_is_that_of_the_whole():
    tensors = [("a.weight", (6, 5)), ("b.weight", (7,)), ("c.weight", (3, 4))]
    shard = Shard("base", tensors)
    whole = shard.read(0, shard.size)
    assert len(whole) == shard.size
    generator = np.random.default_rng(0)
    for start, stop in np.sort(generator.integers(0, shard.size + 1, (200, 2)), axis=1):
        assert shard.read(int(start), int(stop)) == whole[start:stop]


def test_models_of_the_layout_are_what_they_are_said_to_be():
    name = "model.language_model.layers.7.mlp.shared_expert.up_proj.weight"
    base, tuned, other, blend = (
        decode(elements(name, model, 1000, 51_000), "BF16") for model in ("base", "fine-tune 1", "fine-tune 2", "blend")
    )
    assert base.std() == pytest.approx(0.02, rel=0.02)
    moved = tuned - base
    assert 0.5 < (moved != 0).mean() < 1
    assert abs(np.corrcoef(moved, other - base)[0, 1]) < 0.05
    np.testing.assert_allclose(blend, WEIGHT * tuned + (1 - WEIGHT) * base, rtol=2**-8)
    np.testing.assert_array_equal(elements(name, "blend", 1500, 1600), elements(name, "blend", 1000, 51_000)[500:600])


def look_at_the_order(layout):
    """Requests for the order of the experts of three models, how many were under way at once, and what was found."""
    models = {"org/suspect": "blend", "org/base": "base", "org/tuned": "fine-tune 1"}
    contents = {name: Repository(model, layout).contents() for name, model in models.items()}
    with FakeHub(contents) as hub:
        suspect, *others = open_models(list(models), open_one=partial(open_model, endpoint=hub.endpoint))
        for name in models:  # as over a network
            hub.fault(name, "slow", times=None, value=0.02)
        hub.clear()
        hub.most_at_once = 0
        found = find_expert_orders(suspect, others)
        return len(hub.requests), hub.most_at_once, hub.bytes_sent, found


@pytest.mark.parametrize("fused", [False, True], ids=["experts", "fused"])
def test_the_look_at_the_order_of_the_experts_takes_two_requests_a_layer_and_many_at_once(fused):
    """Four experts of every layer are looked at: one by one they took four requests each, one after the other."""
    requests, at_once, sent, found = look_at_the_order(Layout(**SMALL, fused=fused))
    assert requests == 3 * 2 * SMALL["layers"]
    assert sent == requests * 2 * 2 * 2048
    assert at_once >= 8
    assert found.orders == [{}, {}]
    assert not found.unclear


@pytest.mark.slow
def test_at_full_scale_that_is_120_requests_a_model():
    requests, at_once, sent, _ = look_at_the_order(Layout())
    assert requests == 3 * 120  # 720 one by one
    assert sent < 3_000_000
    assert at_once >= 8


@pytest.mark.parametrize("fused", [False, True], ids=["experts", "fused"])
def test_a_small_one_blended_is_found_over_the_wire(over_the_wire, fused):
    run, sent, requests = over_the_wire("blend", Layout(**SMALL, fused=fused), 16_000_000)
    assert is_the_blend(run)
    assert sent <= 16_000_000
    assert requests <= 3000
    assert run.reading.coverage.share < 0.05


def test_a_small_one_tuned_on_its_own_is_not_accused(over_the_wire):
    run, sent, _ = over_the_wire("fine-tune 2", Layout(**SMALL), 16_000_000)
    assert run.verdict.kind is VerdictKind.NOT_EXPLAINED
    assert sent <= 16_000_000


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True], ids=["experts", "fused"])
def test_the_blend_is_found_at_full_scale(over_the_wire, fused):
    run, sent, requests = over_the_wire("blend", Layout(fused=fused), "300MB")
    assert is_the_blend(run)
    assert sent <= 300_000_000
    assert requests <= 3000


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True], ids=["experts", "fused"])
def test_an_independent_fine_tune_is_not_accused_at_full_scale(over_the_wire, fused):
    run, sent, requests = over_the_wire("fine-tune 2", Layout(fused=fused), "300MB")
    assert run.verdict.kind is VerdictKind.NOT_EXPLAINED
    assert sent <= 300_000_000
    assert requests <= 3000
