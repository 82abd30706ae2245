"""Recipes found from certified bounds: constant, by layer, by filter, by tensor, in the arithmetic that made them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from mergekit.merge_methods.api import merge_tensors
from support.cases import CODE, DOCS, dataset, merged
from support.family import BASE, CODE_HALF, CODE_SEED2, blend, load, save

from reconstruct.checkpoints.module_names import describe
from reconstruct.replay.arithmetic import ARITHMETICS
from reconstruct.replay.search import find_exact
from reconstruct.replay.variants import Variant, in_program_form, variants_of

GRADIENT = (0.2, 0.35, 0.5)
FUSED = "float32 fused multiply-add, rounded once"


def by_mergekit(folder, method, parameter, names=("ft-code", "ft-docs"), dtype=torch.bfloat16):
    """Merge tensor by tensor with mergekit; `parameter`: tensor name -> its parameters."""
    states = [load(name) for name in names]
    based = method != "linear"
    tensors = {
        name: merge_tensors([s[name] for s in states], method, parameters=parameter(name),
                            base_index=0 if based else None, dtype=dtype)
        for name in states[0]
    }  # fmt: skip
    return save(folder, tensors)


def weight_of(exact, data, source):
    """Tensor -> certified weight of one source."""
    return {
        m.name: exact.recipe.coefficients(m.name, m.moments)[source]
        for i, m in enumerate(data.measurements) if i in exact.certified
    }  # fmt: skip


def assert_named(exact, name):
    """The named arithmetic reproduces every sampled element, and no other one more."""
    best = exact.variants[0][1]
    assert best == 1.0
    assert name in {v.arithmetic.name for v, share in exact.variants if share == best}


def test_one_pair_of_weights_for_the_whole_model(blend_folder):
    exact = find_exact(dataset(blend_folder, [CODE, DOCS]))
    assert exact.recipe.partition == "constant"
    assert exact.recipe.cells[0].parameters == (0.565, 0.435)
    assert exact.recipe.material == (1, 2)
    assert exact.tolerance == 0
    assert_named(exact, "float32 products and sums, rounded once")


@pytest.mark.parametrize("order", [("ft-code", "ft-docs"), ("ft-docs", "ft-code")])
def test_mergekit_linear_and_the_order_of_its_models(tmp_path, order):
    suspect = by_mergekit(tmp_path / "s", "linear", lambda _: {"weight": [0.6, 0.4]}, order)
    exact = find_exact(dataset(suspect, [CODE, DOCS], base=None))
    assert exact.recipe.cells[0].parameters == ((0.6, 0.4)[order.index("ft-docs")],)
    assert_named(exact, FUSED)
    fused = {v.order for v, share in exact.variants if share == 1.0 and v.arithmetic.name == FUSED}
    assert tuple(("ft-code", "ft-docs").index(name) for name in order) in fused


def added_in_order(folder, shares):
    """Products and sums in float32, in this order, rounded once."""
    return save(folder, blend(tuple(shares.values()), [load(name) for name in shares]))


@pytest.mark.parametrize("count", [3, 4])
def test_more_than_two_in_another_order_than_they_are_given(tmp_path, count):
    """Float32 addition is not associative: one of a hundred elements is rounded elsewhere in another order."""
    shares = dict(zip(("ft-docs", "ft-code-seed2", "ft-code", "ft-code-half"), (0.4, 0.3, 0.2, 0.1), strict=True))
    shares = dict(list(shares.items())[:count])
    shares[next(iter(shares))] += 1 - sum(shares.values())
    given = [p for p in (CODE, CODE_HALF, CODE_SEED2, DOCS) if p.name in shares]
    exact = find_exact(dataset(added_in_order(tmp_path / "s", shares), given))
    assert dict(zip((p.name for p in given), exact.recipe.cells[0].parameters, strict=True)) == pytest.approx(shares)
    assert_named(exact, "float32 products and sums, rounded once")
    orders = {tuple(given[j - 1].name for j in v.order[:count]) for v, share in exact.variants if share == 1.0}
    assert tuple(shares) in orders or (*list(shares)[1::-1], *list(shares)[2:]) in orders


def test_every_order_that_leaves_other_bits_is_tried_once(tmp_path):
    shares = {"ft-docs": 0.4, "ft-code-seed2": 0.3, "ft-code": 0.2, "ft-code-half": 0.1}
    data = dataset(added_in_order(tmp_path / "s", shares), [CODE, CODE_HALF, CODE_SEED2, DOCS])
    variants = variants_of(data, find_exact(data).recipe)
    assert len(variants) == len(set(variants))
    count = Counter((v.arithmetic.formula.order, v.arithmetic.formula.working) for v in variants)
    assert count["fused", "float32"] == 24
    assert count["sum", "float32"] == count["task", "float32"] == 12
    assert count["sum", "float64"] == count["stack", "bfloat16"] == count["task", "bfloat16"] == 1


@pytest.mark.slow
def test_mergekit_linear_of_four_in_another_order(tmp_path):
    order = ("ft-docs", "ft-code-seed2", "ft-code", "ft-code-half")
    suspect = by_mergekit(tmp_path / "s", "linear", lambda _: {"weight": [0.4, 0.3, 0.2, 0.1]}, order)
    exact = find_exact(dataset(suspect, [CODE, CODE_HALF, CODE_SEED2, DOCS], base=None))
    assert_named(exact, FUSED)
    names = ("ft-code", "ft-code-half", "ft-code-seed2", "ft-docs")
    assert order in {tuple(names[j] for j in v.order) for v, share in exact.variants if share == 1.0}


def test_weights_that_mergekit_normalised_come_out_as_shares(tmp_path):
    suspect = by_mergekit(tmp_path / "s", "linear", lambda _: {"weight": [0.7, 0.25]})
    exact = find_exact(dataset(suspect, [CODE, DOCS], base=None))
    assert exact.recipe.cells[0].parameters[0] == pytest.approx(0.25 / 0.95, abs=1e-5)
    assert exact.variants[0][1] > 0.9999


def test_gradient_over_layers(tmp_path):
    def weights(name):
        first = GRADIENT[describe(name).layer or 0]
        return {"weight": [first, 1 - first]}

    data = dataset(by_mergekit(tmp_path / "s", "linear", weights), [CODE, DOCS])
    exact = find_exact(data)
    assert exact.recipe.partition == "layer"
    for name, found in weight_of(exact, data, 1).items():
        assert found == pytest.approx(weights(name)["weight"][0], abs=1e-12), name
    assert exact.certified == {*data.voting}
    assert_named(exact, FUSED)


def test_filters_by_module(tmp_path):
    def weights(name):
        first = 0.3 if "self_attn" in name else 0.8 if "mlp" in name else 0.5
        return {"weight": [first, 1 - first]}

    data = dataset(by_mergekit(tmp_path / "s", "linear", weights), [CODE, DOCS])
    exact = find_exact(data)
    assert exact.recipe.partition == "filter"
    for name, found in weight_of(exact, data, 1).items():
        assert found == pytest.approx(weights(name)["weight"][0], abs=1e-12), name
    assert_named(exact, FUSED)


def test_slerp_by_layer_and_filter(tmp_path):
    def t(name):
        place = describe(name)
        return {"t": {"self_attn": (0, 0.25, 0.5), "mlp": (1, 0.8, 0.6)}.get(place.group, (0.5,) * 3)[place.layer or 0]}

    data = dataset(by_mergekit(tmp_path / "s", "slerp", t), [CODE, DOCS], base=None)
    exact = find_exact(data)
    assert exact.recipe.hypothesis == "slerp"
    assert exact.recipe.pair == (0, 1)
    assert exact.recipe.partition == "layer and filter"
    for i in sorted(exact.certified & {*data.voting}):
        name = data.measurements[i].name
        assert exact.recipe.cell(name).parameters[0] == pytest.approx(t(name)["t"], abs=1e-9), name
    assert exact.variants[0][1] >= 0.9999
    for name in ("model.norm.weight", "model.layers.1.input_layernorm.weight"):  # too small to testify
        assert exact.recipe.cell(name).parameters == (0.5,)
    near = {v.arithmetic.name for v, share in exact.variants if share >= exact.variants[0][1] - 1e-4}
    assert "float32 products and sums, rounded once" in near


def test_other_weights_for_every_tensor(tmp_path):
    generator = np.random.default_rng(5)
    chosen = {name: round(float(generator.uniform(0.2, 0.8)), 2) for name in load("base")}
    suspect = by_mergekit(tmp_path / "s", "linear", lambda name: {"weight": [chosen[name], 1 - chosen[name]]})
    data = dataset(suspect, [CODE, DOCS])
    exact = find_exact(data)
    assert exact.recipe.partition == "tensor"
    found = weight_of(exact, data, 1)
    assert all(found[data.measurements[i].name] == pytest.approx(chosen[data.measurements[i].name], abs=1e-9)
               for i in data.voting)  # fmt: skip


def test_thirds_are_weights_one_and_two_normalised(tmp_path):
    suspect = by_mergekit(tmp_path / "s", "linear", lambda _: {"weight": [1.0, 2.0]})
    exact = find_exact(dataset(suspect, [CODE, DOCS]))
    assert exact.recipe.cells[0].parameters == pytest.approx((1 / 3, 2 / 3), abs=1e-12)
    assert_named(exact, FUSED)


def test_task_arithmetic_in_bfloat16_names_itself_and_the_number_before_rounding(tmp_path):
    suspect = by_mergekit(tmp_path / "s", "task_arithmetic", lambda _: {"weight": [0.5, 0.3]},
                          ("base", "ft-code", "ft-docs"))  # fmt: skip
    exact = find_exact(dataset(suspect, [CODE, DOCS]))
    assert exact.recipe.cells[0].parameters == (0.5, 0.3)
    assert exact.tolerance == 1
    assert_named(exact, "bfloat16 base plus sum of weighted deltas")


def test_float32_storage_is_certified_to_float32_precision(tmp_path):
    suspect = merged(tmp_path / "s", (0.2, 0.5, 0.3), ("base", "ft-code", "ft-docs"), torch.float32)
    exact = find_exact(dataset(suspect, [CODE, DOCS]))
    assert exact.recipe.cells[0].parameters == (0.5, 0.3)
    cell = exact.recipe.cells[0]
    assert max(np.subtract(cell.high, cell.low)) < 1e-6


@pytest.mark.parametrize(("dtype", "name"), [
    (torch.float16, "float16 base plus sum of weighted deltas"),
    (torch.float32, "float32 base plus sum of weighted deltas, rounded once"),
], ids=["float16", "float32"])  # fmt: skip
def test_task_arithmetic_in_other_dtypes_is_reproduced_to_the_bit(tmp_path, dtype, name):
    suspect = by_mergekit(tmp_path / "s", "task_arithmetic", lambda _: {"weight": [0.6, 0.7]},
                          ("base", "ft-code", "ft-docs"), dtype)  # fmt: skip
    exact = find_exact(dataset(suspect, [CODE, DOCS]))
    assert exact.recipe.cells[0].parameters == (0.6, 0.7)
    assert_named(exact, name)


@pytest.mark.parametrize("suspect", [CODE_HALF, CODE_SEED2], ids=["earlier checkpoint", "sibling"])
@pytest.mark.parametrize("base", [BASE, None], ids=["with base", "without base"])
def test_near_misses_have_no_recipe(suspect, base):
    assert find_exact(dataset(suspect, [CODE, DOCS], base)) is None


def variant(order, sources=(0, 1, 2)):
    return Variant(next(a for a in ARITHMETICS if a.formula.order == order), sources)


def test_program_form_follows_the_order_of_models():
    vector, divisor = in_program_form(np.array([0.0, 0.565, 0.435]), variant("fused", (2, 1, 0)))
    assert vector.tolist() == [0.435, 0.565, 0.0]
    assert divisor == 1.0


@pytest.mark.parametrize(("coefficients", "whole", "divisor"), [
    ((0.0, 1 / 3, 2 / 3), [0, 1, 2], 3), ((1 / 7, 2 / 7, 4 / 7), [1, 2, 4], 7), ((0.2, 0.3, 0.5), [0.2, 0.3, 0.5], 1),
])  # fmt: skip
def test_fractions_are_whole_weights_with_a_divisor(coefficients, whole, divisor):
    found = in_program_form(np.array(coefficients), variant("fused"))
    assert found[0].tolist() == pytest.approx(whole)
    assert found[1] == divisor
    assert in_program_form(np.array(coefficients), variant("delta"))[1] == 1


def test_lerp_takes_two_sources_only():
    vector, _ = in_program_form(np.array([0.4, 0.6, 1e-12]), variant("lerp"))
    assert vector.tolist() == [0.4, 0.6, 0.0]
