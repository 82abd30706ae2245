"""Weights that a program normalises come back as they were given, and with them every last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from support.family import CODE, DOCS, load, save

import reconstruct
from reconstruct.recipe import Recipe
from reconstruct.replay.mergekit import MergekitReplay

A, B = str(CODE), str(DOCS)


def merged(folder: Path, first: object, second: object, dtype: str = "bfloat16") -> Path:
    """mergekit's linear merge with these weights."""
    models = [{"model": m, "parameters": {"weight": w}} for m, w in ((A, first), (B, second))]
    document = {"merge_method": "linear", "dtype": dtype, "models": models}
    outputs = MergekitReplay(document, {A: CODE, B: DOCS}).tensors()
    return save(folder / "suspect", {o.name: o.tensor for o in outputs})


def same_bytes(recipe: Recipe, suspect: Path) -> bool:
    document = yaml.safe_load(recipe.to_yaml())
    outputs = {o.name: o.tensor for o in MergekitReplay(document, {A: CODE, B: DOCS}).tensors()}
    truth = load(suspect)
    return all((outputs[name] == truth[name]).all() for name in truth)


@pytest.mark.parametrize(
    ("first", "second"),
    [([0.6, 0.8, 0.2], 0.4), (0.7, 0.25), ([0.3, 0.9, 0.5], [0.5, 0.5, 0.2]), (0.8, 0.4), (1.0, 0.5)],
    ids=str,
)
def test_normalised_weights_replay_to_the_last_bit_and_through_mergekit(tmp_path, first, second):
    suspect = merged(tmp_path, first, second)
    run = reconstruct.fit(suspect, [CODE, DOCS], folder=tmp_path / "run")
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    replay = run.evidence.replay
    assert replay.exact[0] == replay.total[0]
    assert same_bytes(run.recipe, suspect)


def test_a_gradient_beside_a_constant_weight_is_written_as_it_was(tmp_path):
    run = reconstruct.fit(merged(tmp_path, [0.6, 0.8, 0.2], 0.4), [CODE, DOCS], folder=tmp_path / "run")
    text = run.recipe.to_yaml()
    assert "[0.6, 0.8, 0.2]" in text
    assert "0.4" in text


def test_weights_that_sum_to_one_need_no_scale(tmp_path):
    run = reconstruct.fit(merged(tmp_path, 0.565, 0.435), [CODE, DOCS], folder=tmp_path / "run")
    assert run.evidence.recipe.scales is None
    np.testing.assert_allclose(sorted(run.coefficients.values()), [0.435, 0.565])
