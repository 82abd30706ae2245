"""Fused tensors taken apart: compared values are those of the separate tensors, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import family, mixtures
from support.catalogs import Shape, assert_complete, catalog, reasons
from support.mixtures import save_as, separate, stacked, transposed

from reconstruct.checkpoints.alignment import align
from reconstruct.checkpoints.catalog import DerivedTensor
from reconstruct.checkpoints.open import open_checkpoint

State = dict[str, torch.Tensor]
LAYOUTS: dict[str, tuple[Callable[[State], State], str]] = {
    "stacked": (stacked, "qwen3_moe"),
    "columns": (lambda m: transposed(m, alternate=False), "llama4_text"),
    "alternating columns": (lambda m: transposed(m, alternate=True), "gpt_oss"),
    "mixtral": (mixtures.mixtral, "mixtral"),
}


@pytest.fixture(scope="module")
def plain() -> State:
    return separate(family.load("ft-code"))


def assert_identical(one: Path, other: Path, *, swapped: bool = True) -> None:
    """Every tensor is compared, and every bit is the same, whichever of the two is the suspect."""
    catalogs = [open_checkpoint(str(one)), open_checkpoint(str(other))]
    result = align(catalogs[0], catalogs[1:])
    assert result.left_out == ()
    assert_complete(result, catalogs)
    for tensor in result.tensors:
        bits = [c.source.read(i, 0, tensor.elements).tobytes() for c, i in zip(catalogs, tensor.sources, strict=True)]
        assert bits[0] == bits[1], tensor.name
    assert sum(tensor.elements for tensor in result.tensors) == catalogs[0].parameters
    if swapped:
        assert_identical(other, one, swapped=False)


@pytest.mark.parametrize("one", LAYOUTS)
def test_a_mixture_in_any_layout_has_the_values_of_the_separate_one(one: str, tmp_path: Path, plain: State) -> None:
    layout, kind = LAYOUTS[one]
    assert_identical(save_as(tmp_path / "one", layout(plain), kind), save_as(tmp_path / "plain", plain))


def test_two_stacked_layouts_of_different_order_meet(tmp_path: Path, plain: State) -> None:
    one = save_as(tmp_path / "rows", stacked(plain))
    assert_identical(one, save_as(tmp_path / "columns", transposed(plain, alternate=True), "gpt_oss"))


def test_biases_alternate_where_the_matrices_do(tmp_path: Path, plain: State) -> None:
    biased = mixtures.with_biases(plain)
    fused = mixtures.alternating_with_biases(biased)
    assert_identical(save_as(tmp_path / "fused", fused, "gpt_oss"), save_as(tmp_path / "plain", biased))
    strange = open_checkpoint(str(save_as(tmp_path / "strange", fused, "nobody_knows")))
    left = align(strange, [open_checkpoint(str(tmp_path / "plain"))]).left_out
    assert {item.name for item in left if "whether their columns alternate" in item.reason} == {
        f"model.layers.{n}.mlp.experts.gate_up_proj{end}" for n in range(3) for end in ("", "_bias")
    }


def test_rows_are_byte_ranges_and_columns_are_gathered(tmp_path: Path, plain: State) -> None:
    partner = open_checkpoint(str(save_as(tmp_path / "plain", plain)))
    for name, derived in (("stacked", False), ("columns", True)):
        layout, kind = LAYOUTS[name]
        result = align(open_checkpoint(str(save_as(tmp_path / name, layout(plain), kind))), [partner])
        experts = [t.sources[0] for t in result.tensors if t.module.expert is not None]
        assert {isinstance(info, DerivedTensor) for info in experts} == {derived}


def test_columns_of_an_unknown_family_are_left_out_with_that_reason(tmp_path: Path, plain: State) -> None:
    strange = save_as(tmp_path / "s", transposed(plain, alternate=True), "nobody_knows")
    models = [open_checkpoint(str(path)) for path in (strange, save_as(tmp_path / "p", plain))]
    result = align(models[0], models[1:])
    assert_complete(result, models)
    left = reasons(result, str(strange))
    assert set(left) == {f"model.layers.{n}.mlp.experts.gate_up_proj" for n in range(3)}
    assert all("whether their columns alternate" in reason for reason in left.values())
    assert sum(t.module.kind == "mlp.experts.down_proj" for t in result.tensors) == 3 * mixtures.EXPERTS


def phi(state: State) -> State:
    """q, k and v in one matrix, gate and up in one."""
    fused = {n: t for n, t in state.items() if not any(f"{p}_proj" in n for p in ("q", "k", "v", "gate", "up"))}
    for layer in range(3):
        block = f"model.layers.{layer}."
        attention = [state[f"{block}self_attn.{p}_proj.weight"] for p in "qkv"]
        fused[f"{block}self_attn.qkv_proj.weight"] = torch.cat(attention)
        inner = [state[f"{block}mlp.{p}_proj.weight"] for p in ("gate", "up")]
        fused[f"{block}mlp.gate_up_proj.weight"] = torch.cat(inner)
    return fused


def gpt2(state: State) -> State:
    """q, k and v in one matrix, stored [input, output]."""
    fused = {n: t for n, t in state.items() if not any(f"{p}_proj" in n for p in "qkv")}
    for layer in range(3):
        block = f"model.layers.{layer}.self_attn."
        attention = [state[f"{block}{p}_proj.weight"] for p in "qkv"]
        fused[f"{block}c_attn.weight"] = torch.cat(attention).T.contiguous()
    return fused


@pytest.mark.parametrize("layout", [phi, gpt2])
def test_fused_matrices_of_dense_models_meet_separate_ones(layout: Callable[[State], State], tmp_path: Path) -> None:
    state = family.load("ft-docs")
    assert_identical(save_as(tmp_path / "fused", layout(state), "phi3"), family.save(tmp_path / "plain", state))


def test_a_third_model_tells_how_long_the_parts_of_two_fused_ones_are(tmp_path: Path) -> None:
    state = family.load("base")
    fused = open_checkpoint(str(save_as(tmp_path / "fused", phi(state), "phi3")))
    result = align(fused, [fused, open_checkpoint(str(family.BASE))])
    assert result.left_out == ()
    query = next(t for t in result.tensors if t.name == "model.layers.0.self_attn.qkv_proj.weight[q]")
    assert query.shape == (64, 64)
    assert query.module.kind == "self_attn.q_proj"
    assert query.notes == (f"named model.layers.0.self_attn.q_proj.weight in {family.BASE}",)


def test_parts_that_do_not_add_up_are_left_out_with_all_shapes() -> None:
    block = "model.layers.0.self_attn."
    fused: dict[str, Shape] = {f"{block}qkv_proj.weight": (20, 16), "w": (4, 4)}
    models = [catalog("s", fused), catalog("p", {f"{block}{p}_proj.weight": (8, 16) for p in "qkv"} | {"w": (4, 4)})]
    result = align(models[0], models[1:])
    assert_complete(result, models)
    (reason,) = reasons(result, "s").values()
    assert reason == "shape [20, 16] is not that of q, k, v together in another model ([8, 16], [8, 16], [8, 16])"


def test_stacked_integers_are_left_whole(tmp_path: Path) -> None:
    block = "model.layers.0.mlp.experts."
    stored = {f"{block}gate_up_proj": ((2, 8, 4), "U8"), f"{block}down_proj": ((2, 4, 4), "U8"), "w": ((4, 4), "F32")}
    result = align(catalog("s", stored), [catalog("p", stored)])
    assert set(reasons(result, "s")) == {f"{block}gate_up_proj", f"{block}down_proj"}


def test_the_configuration_is_read_for_the_family(tmp_path: Path, plain: State) -> None:
    folder = save_as(tmp_path, transposed(plain, alternate=True), "gpt_oss")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt_oss"
    (folder / "config.json").unlink()
    partner = open_checkpoint(str(save_as(tmp_path / "p", plain)))
    left = align(open_checkpoint(str(folder)), [partner]).left_out
    assert any("config.json names no family" in item.reason for item in left)
