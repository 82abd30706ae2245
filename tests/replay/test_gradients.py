"""Gradients through the bounds of all layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.cases import dataset
from support.family import load, save

from reconstruct.recipe import Cell
from reconstruct.replay.gradients import on_gradients, simplest_gradient
from reconstruct.replay.search import find_exact

LAYERS = 12
GRADIENT = [0.0, 0.5, 0.3, 0.7, 1.0]


def drawn(anchors, layers):
    return np.interp(np.linspace(0, len(anchors) - 1, layers), range(len(anchors)), anchors)


def around(values, width, seed=0):
    """Bounds that hold the values somewhere inside."""
    share = np.random.default_rng(seed).uniform(0.1, 0.9, len(values))
    return values - share * width, values + (1 - share) * width


def cell(label, group, value, width=1e-5):
    layer = int(label.rpartition(".")[2]) if label[-1].isdecimal() else None
    return Cell((label, group), layer, group, (value,), (value - width,), (value + width,), certified=True)


@pytest.mark.parametrize("anchors", [[0.2, 0.8], GRADIENT, [1.0, 0.5, 0.7, 0.3, 0.0], [0.3, 0.3], [0.125, 0.9, 0.1]])
@pytest.mark.parametrize("layers", [12, 28, 32])
@pytest.mark.parametrize("width", [1e-6, 1e-4])
def test_numbers_that_were_written_are_found(anchors, layers, width):
    values = drawn(anchors, layers)
    found = simplest_gradient(np.linspace(0, 1, layers), *around(values, width))
    np.testing.assert_allclose(found, values, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_layers_chosen_one_by_one_lie_on_no_gradient(seed):
    values = np.random.default_rng(seed).uniform(0.2, 0.8, 24)
    assert simplest_gradient(np.linspace(0, 1, 24), *around(values, 1e-4, seed)) is None


def test_two_layers_are_no_gradient_of_fewer_numbers():
    assert simplest_gradient(np.array([0.0, 1.0]), np.array([0.2, 0.5]), np.array([0.2, 0.5])) is None


def test_gaps_between_layers_are_bridged():
    positions = np.linspace(0, 1, 24)[[0, 1, 4, 9, 15, 16, 22, 23]]
    values = 0.2 + 0.6 * positions
    np.testing.assert_allclose(simplest_gradient(positions, values - 1e-6, values + 1e-6), values, atol=1e-12)


def test_stacks_and_groups_have_gradients_of_their_own():
    cells = [cell("embedding", "embed", 0.4)]
    for i, (first, second) in enumerate(zip(drawn([0.1, 0.9], 8), drawn([0.7, 0.2, 0.4], 8), strict=True)):
        cells += [cell(str(i), "mlp", first), cell(f"visual.{i}", "mlp", second), cell(str(i), "attn", 0.3 + (i == 3))]
    found = on_gradients(cells, by_group=True)
    assert {key[0] for key in found} == {*map(str, range(8)), *(f"visual.{i}" for i in range(8))}
    assert {key[1] for key in found} == {"mlp"}
    assert all(found[c.key][0] == pytest.approx(c.parameters[0], abs=1e-12) for c in cells if c.key in found)


def test_gradient_over_many_layers_is_written_as_it_was_meant(tmp_path):
    def deep(name):
        """Twelve layers of trained weights: the family's own, with rows moved."""
        state = load(name)
        return {
            f"model.layers.{i}.{part}.weight": state[f"model.layers.{i % 3}.{part}.weight"].roll(i // 3, 0).contiguous()
            for i in range(LAYERS) for part in ("mlp.up_proj", "self_attn.q_proj")
        }  # fmt: skip

    code, docs = deep("ft-code"), deep("ft-docs")
    t = drawn(GRADIENT, LAYERS)
    tensors = {
        name: merge_tensors([code[name], docs[name]], "slerp", parameters={"t": float(t[int(name.split(".")[2])])},
                            base_index=0, dtype=torch.bfloat16)
        for name in code
    }  # fmt: skip
    parents = [save(tmp_path / "code", code), save(tmp_path / "docs", docs)]
    exact = find_exact(dataset(save(tmp_path / "s", tensors), parents, base=None))
    assert exact.recipe.partition == "layer"
    assert exact.recipe.to_mergekit()["parameters"] == {"t": GRADIENT}
    assert exact.variants[0][1] > 0.9999
