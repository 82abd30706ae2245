"""Settings in mergekit's language: short where they can be, and always what was meant."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support.family import load

from reconstruct.checkpoints.module_names import describe
from reconstruct.mergekit_parameters import evaluate, layer_positions, setting_for

NAMES = tuple(load("base"))
TOWER = tuple(f"model.visual.blocks.{i}.{part}.weight" for i in range(12) for part in ("attn.qkv", "mlp.fc1", "norm1"))
LANGUAGE = tuple(
    f"model.language_model.layers.{i}.{part}.weight"
    for i in range(24) for part in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
)  # fmt: skip
OUTSIDE = ("model.visual.patch_embed.proj.weight", "model.language_model.embed_tokens.weight", "lm_head.weight")
BOTH = (*TOWER, *LANGUAGE, *OUTSIDE)


def assert_right(setting, values):
    positions = layer_positions(values)
    for name, value in values.items():
        assert evaluate(setting, name, positions[name]) == pytest.approx(value, abs=1e-9), name


def by_layer(names, inside, outside):
    """Values as functions of the layer, and one outside the blocks."""
    return {n: outside if describe(n).layer is None else inside(n, describe(n).layer) for n in names}


def test_one_value_for_all_is_a_number():
    assert setting_for(dict.fromkeys(NAMES, 0.435 + 1e-17)) == 0.435
    assert str(setting_for(dict.fromkeys(NAMES, 1 - 0.565))) == "0.435"


def test_gradient_whose_first_value_is_that_outside_the_blocks_needs_no_filter():
    assert setting_for(by_layer(NAMES, lambda _, i: 0.2 + 0.15 * i, 0.2)) == [0.2, 0.5]


def test_values_outside_the_blocks_that_are_not_the_gradients_first():
    values = by_layer(NAMES, lambda _, i: 0.2 + 0.15 * i, 0.9)
    setting = setting_for(values)
    assert setting == [{"filter": "model.layers.", "value": [0.2, 0.5]}, {"value": 0.9}]
    assert_right(setting, values)


def test_filters_by_module_with_a_default():
    gradients = {"self_attn": [0.0, 0.3, 1.0], "mlp": [1.0, 0.5, 0.0]}
    values = {n: gradients.get(describe(n).group, [0.5] * 3)[describe(n).layer or 0] for n in NAMES}
    setting = setting_for(values)
    assert setting == [
        {"filter": "self_attn", "value": [0.0, 0.3, 1.0]}, {"filter": "mlp", "value": [1.0, 0.0]}, {"value": 0.5},
    ]  # fmt: skip
    assert_right(setting, values)


@pytest.mark.parametrize("anchors", [[0.0, 0.5, 0.3, 0.7, 1.0], [1.0, 0.2], [0.1, 0.9, 0.1]])
@pytest.mark.parametrize("layers", [24, 32])
def test_shortest_gradient_is_found_though_its_points_lie_between_layers(anchors, layers):
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(layers)]
    drawn = np.interp(np.linspace(0, len(anchors) - 1, layers), range(len(anchors)), anchors)
    assert setting_for(dict(zip(names, drawn.tolist(), strict=True))) == anchors


def test_layers_of_a_vision_tower_are_not_those_of_the_language_model():
    values = by_layer(BOTH, lambda n, i: 0.1 + 0.01 * i if "visual" in n else 0.9 - 0.02 * i, 0.4)
    setting = setting_for(values)
    assert setting == [
        {"filter": "model.language_model.layers.", "value": [0.9, 0.44]},
        {"filter": "model.visual.blocks.", "value": [0.1, 0.21]},
        {"value": 0.4},
    ]
    assert_right(setting, values)


def test_same_block_numbers_and_group_names_in_two_stacks():
    def inside(name, layer):
        return {"attn": 0.1, "mlp": 0.2 + 0.01 * layer, "norm1": 0.3, "self_attn": 0.7, "input_layernorm": 0.5}[
            describe(name).group
        ] + 0.1 * ("language" in name)

    values = by_layer(BOTH, inside, 0.55)
    assert_right(setting_for(values), values)


def test_stacks_with_one_layer_and_layers_without_tensors():
    names = ("mtp.layers.0.mlp.w", *(f"model.layers.{i}.mlp.w" for i in (0, 1, 4, 9)), "model.layers.10.mlp.w")
    values = {name: 0.1 * position for position, name in enumerate(names)}
    assert layer_positions(names)["mtp.layers.0.mlp.w"] == 1.0
    assert layer_positions(names)["model.layers.4.mlp.w"] == 0.4
    assert_right(setting_for(values), values)


@pytest.mark.parametrize("names", [NAMES, BOTH], ids=["one stack", "two stacks"])
def test_every_tensor_may_have_its_own(names):
    random = np.random.default_rng(0)
    values = {name: float(v) for name, v in zip(names, random.uniform(size=len(names)), strict=True)}
    assert_right(setting_for(values), values)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_written_means_what_was_meant(seed):
    random = np.random.default_rng(seed)
    layers = {key: round(float(random.uniform()), 2) for key in itertools.product(
        ("visual", "language"), range(24), ("attn", "mlp", "norm1", "self_attn", "input_layernorm"))}  # fmt: skip
    depth = random.integers(0, 2, 3)  # which of stack, layer and group matter

    def inside(name, layer):
        key = ("visual" if "visual" in name else "language", layer, describe(name).group)
        plain = ("language", 0, "mlp")
        return layers[tuple(k if d else p for k, d, p in zip(key, depth, plain, strict=True))]

    values = by_layer(BOTH, inside, float(random.choice([0.5, layers["language", 0, "mlp"]])))
    assert_right(setting_for(values), values)


def test_name_that_is_part_of_another():
    values = {"norm.weight": 0.1, "model.norm.weight": 0.2, "x.model.norm.weight": 0.3}
    assert_right(setting_for(values), values)
