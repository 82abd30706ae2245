"""Recipes as mergekit configurations: what mergekit makes of them is what was meant."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mergekit.merge_methods.api import merge_tensors
from safetensors.torch import load_file
from support.cases import dataset
from support.family import BASE, CODE, DOCS, load, save
from support.tensors import UP, moments, sources

from reconstruct.analysis import analyse
from reconstruct.checkpoints.module_names import describe
from reconstruct.mergekit_parameters import layer_positions
from reconstruct.recipe import PARTITIONS, Cell, Recipe, partition_key

NAMES = tuple(load("base"))
SOURCES = (str(BASE), str(CODE), str(DOCS))


def recipe(partition, parameters, *, hypothesis="linear", pair=None, names=NAMES, **more):
    """A recipe whose cells take their parameters from `parameters`: tensor name -> tuple."""
    keys = {name: partition_key(partition, name, describe(name)) for name in names}
    cells = {}
    for name, key in keys.items():
        place, values = describe(name), parameters(name)
        cell = Cell(key, place.layer, place.group, values, values, values, certified=True)
        assert cells.setdefault(key, cell).parameters == values
    return Recipe(hypothesis, SOURCES, True, pair, partition, tuple(cells.values()), keys, **more)


def by_partition(partition, count):
    """Parameters that differ just as the partition allows; their sum is less than one."""

    def parameters(name):
        random = np.random.default_rng(list(repr(partition_key(partition, name, describe(name))).encode()))
        return tuple(np.round(random.uniform(0.05, 0.45, count), 2).tolist())

    return parameters


def configured(text):
    """The emitted text through mergekit's own configuration classes."""
    from mergekit.config import MergeConfiguration

    return MergeConfiguration.model_validate(yaml.safe_load(text))


def resolved(setting, name, position):
    from mergekit.config import evaluate_setting

    return evaluate_setting(name, setting, position, validate=float)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_weights_of_every_tensor_come_back_from_the_configuration(partition):
    parameters = by_partition(partition, 2)
    config = configured(recipe(partition, parameters, dtype="bfloat16").to_yaml())
    assert config.merge_method == "linear"
    assert [m.model.model.path for m in config.models] == list(SOURCES)
    assert config.base_model is None
    for name, position in layer_positions(NAMES).items():
        code, docs = parameters(name)
        found = [resolved(m.parameters["weight"], name, position) for m in config.models]
        assert found == pytest.approx([1 - code - docs, code, docs], abs=1e-9), name


@pytest.mark.parametrize("partition", PARTITIONS)
def test_t_of_every_tensor_comes_back_from_the_configuration(partition):
    parameters = by_partition(partition, 1)
    config = configured(recipe(partition, parameters, hypothesis="slerp", pair=(1, 2), dtype="bfloat16").to_yaml())
    assert config.merge_method == "slerp"
    assert config.base_model.model.path == str(CODE)
    assert [m.model.model.path for m in config.models] == [str(CODE), str(DOCS)]
    for name, position in layer_positions(NAMES).items():
        assert resolved(config.parameters["t"], name, position) == pytest.approx(parameters(name)[0], abs=1e-9), name


def test_two_stacks_with_the_same_block_numbers_do_not_mix():
    names = tuple(f"model.{stack}.{i}.{part}.weight" for stack in ("visual.blocks", "language_model.layers")
                  for i in range(6) for part in ("attn.qkv", "mlp.fc1"))  # fmt: skip
    for partition in PARTITIONS:
        parameters = by_partition(partition, 1)
        setting = configured(
            recipe(partition, parameters, hypothesis="slerp", pair=(1, 2), names=names).to_yaml()
        ).parameters["t"]
        for name, position in layer_positions(names).items():
            assert resolved(setting, name, position) == pytest.approx(parameters(name)[0], abs=1e-9), (partition, name)


def test_task_arithmetic_names_the_base_and_gives_it_no_weight():
    found = recipe("constant", lambda _: (0.5, 0.3), hypothesis="task_arithmetic", dtype="bfloat16").to_mergekit()
    assert found == {
        "merge_method": "task_arithmetic",
        "models": [
            {"model": str(CODE), "parameters": {"weight": 0.5}}, {"model": str(DOCS), "parameters": {"weight": 0.3}},
        ],
        "base_model": str(BASE),
        "dtype": "bfloat16",
    }  # fmt: skip


def test_sources_without_weight_are_dropped_and_the_order_is_kept():
    found = recipe("constant", lambda _: (0.565, 0.435), order=(2, 1, 0)).to_mergekit()
    assert [m["model"] for m in found["models"]] == [str(DOCS), str(CODE)]
    assert [m["parameters"]["weight"] for m in found["models"]] == [0.435, 0.565]


@pytest.mark.parametrize(("dtype", "out_dtype", "expected"), [
    ("bfloat16", "bfloat16", {"dtype": "bfloat16"}), (None, None, {"dtype": "float32"}),
    ("float32", "bfloat16", {"dtype": "float32", "out_dtype": "bfloat16"}),
])  # fmt: skip
def test_output_dtype_is_written_only_where_it_differs(dtype, out_dtype, expected):
    found = recipe("constant", lambda _: (0.5, 0.5), dtype=dtype, out_dtype=out_dtype).to_mergekit()
    assert {k: v for k, v in found.items() if k.endswith("dtype")} == expected


def test_pivot_has_what_the_others_leave_and_no_dust():
    found = recipe("constant", lambda _: (0.7, 0.3))
    assert found.coefficients(UP, None).tolist() == [0.0, 0.7, 0.3]
    assert found.material == (1, 2)
    assert recipe("constant", lambda _: (0.7, 0.2)).material == (0, 1, 2)


def test_slerp_is_evaluated_with_the_cosine_of_the_tensor():
    found = recipe("constant", lambda _: (0.3,), hypothesis="slerp", pair=(1, 2))
    m = moments(sources(UP, "ft-code-half", "base", "ft-code", "ft-docs"))
    coefficients = found.coefficients(UP, m)
    assert m.cosine(1, 2) < 0.9995
    assert coefficients[0] == 0
    theta = np.arccos(m.cosine(1, 2))
    np.testing.assert_allclose(coefficients[1:], np.sin([0.7 * theta, 0.3 * theta]) / np.sin(theta))


def test_tensor_outside_every_cell_takes_the_nearest():
    full = recipe("layer and filter", by_partition("layer and filter", 2))
    without_norms = full.with_cells(tuple(c for c in full.cells if "norm" not in c.group))
    assert without_norms.cell("model.layers.1.input_layernorm.weight").key[0] == "1"
    assert without_norms.cell("model.layers.1.mlp.up_proj.weight").key == ("1", "mlp")
    assert without_norms.cell("model.norm.weight") in without_norms.cells
    first_only = full.with_cells(tuple(c for c in full.cells if c.layer == 0))
    assert first_only.cell("model.layers.2.mlp.up_proj.weight").key == ("0", "mlp")


def test_cells_say_whether_their_numbers_are_simple():
    assert Cell((), None, "", (0.565, 0.435), (), (), True).simple
    assert not Cell((), None, "", (0.565, 0.4350017), (), (), True).simple


def test_recipe_of_a_slerp_makes_the_very_bytes_again_in_mergekit(tmp_path):
    gradients = {"self_attn": (0.0, 0.25, 0.5), "mlp": (1.0, 0.8, 0.6)}
    code, docs = load("ft-code"), load("ft-docs")
    tensors = {}
    for name in NAMES:
        t = gradients.get(describe(name).group, (0.5, 0.5, 0.5))[describe(name).layer or 0]
        tensors[name] = merge_tensors(
            [code[name], docs[name]], "slerp", parameters={"t": t}, base_index=0, dtype=torch.bfloat16
        )
    evidence = analyse(dataset(save(tmp_path / "suspect", tensors), [CODE, DOCS], base=None))
    configuration = tmp_path / "recipe.yml"
    configuration.write_text(evidence.recipe.to_yaml(), "utf-8")
    beside = Path(sys.executable).with_name("mergekit-yaml")
    program = str(beside) if beside.exists() else shutil.which("mergekit-yaml")
    assert program, "mergekit-yaml is not installed"
    subprocess.run(
        [program, str(configuration), str(tmp_path / "again"), "--allow-crimes", "--quiet"], check=True,
        capture_output=True, timeout=300, env={**os.environ, "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    again = {}
    for file in sorted((tmp_path / "again").glob("*.safetensors")):
        again |= load_file(file)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name].view(torch.int16), tensor.view(torch.int16)), name
