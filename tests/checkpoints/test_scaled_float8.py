"""float8 with scales: the weights that the model computes with, as transformers dequantises them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.catalogs import assert_complete, catalog, reasons
from support.family import BASE, CODE, load
from support.float8 import dequantised, quantised, save_quantised

from reconstruct.checkpoints.alignment import align
from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.inventory import Inventory
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.checkpoints.scaled_float8 import Dequantised

WEIGHT = "model.layers.0.mlp.down_proj.weight"


def served(source: Catalog, info: TensorInfo) -> torch.Tensor:
    """The tensor in bfloat16, after ranges of a few lengths were found to be parts of it."""
    whole = source.source.read(info, 0, info.elements)
    for length in (100, 64 * 3 + 1, 4096):
        edges = [*range(0, info.elements, length), info.elements]
        pieces = [source.source.read(info, a, b) for a, b in itertools.pairwise(edges)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    return torch.from_numpy(whole.astype(np.int16)).view(torch.bfloat16).reshape(info.shape)


@pytest.mark.parametrize(
    ("block", "suffix"),
    [
        ((16, 16), "_scale_inv"),
        ((24, 40), "_scale_inv"),
        (None, "_scale"),
        ((1, 176), "_scale"),
        ((128, 128), "_scale"),
    ],
    ids=["blocks", "ragged blocks", "tensor", "rows", "block of 128"],
)
def test_every_weight_is_the_rounded_product(block: tuple[int, int] | None, suffix: str, tmp_path: Path) -> None:
    state = {WEIGHT: load("ft-code")[WEIGHT], "model.norm.weight": load("ft-code")["model.norm.weight"]}
    state = quantised(state, block, suffix)
    found = Inventory(open_checkpoint(str(save_quantised(tmp_path, state, block))))
    expected = dequantised(state, block, suffix)
    for name, info in found.tensors.items():
        assert torch.equal(served(found.catalog, info), expected[name])
    assert found.tensors.keys() == expected.keys()


def test_blocks_are_those_of_transformers(tmp_path: Path) -> None:
    module = pytest.importorskip("transformers.integrations.finegrained_fp8")
    state = quantised({WEIGHT: load("ft-code")[WEIGHT]}, (16, 16))
    theirs = module.Fp8Dequantize(None)._dequantize_one(state[WEIGHT], state[f"{WEIGHT}_scale_inv"], torch.bfloat16)
    found = Inventory(open_checkpoint(str(save_quantised(tmp_path, state, (16, 16)))))
    assert torch.equal(served(found.catalog, found.tensors[WEIGHT]), theirs)


def test_stacked_experts_have_a_grid_each(tmp_path: Path) -> None:
    parts = [quantised({WEIGHT: load(name)[WEIGHT]}, (16, 16)) for name in ("ft-code", "ft-docs")]
    state = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    found = Inventory(open_checkpoint(str(save_quantised(tmp_path, state, (16, 16)))))
    expected = torch.stack([dequantised(part, (16, 16))[WEIGHT] for part in parts])
    assert torch.equal(served(found.catalog, found.tensors[WEIGHT]), expected)


def test_scales_that_are_powers_of_two_alone(tmp_path: Path) -> None:
    state = quantised({WEIGHT: load("ft-code")[WEIGHT]}, (16, 16))
    exponents = torch.floor(torch.log2(state[f"{WEIGHT}_scale_inv"]))
    state[f"{WEIGHT}_scale_inv"] = torch.exp2(exponents)
    expected = dequantised(state, (16, 16))[WEIGHT]
    state[f"{WEIGHT}_scale_inv"] = (exponents + 127).to(torch.uint8).view(torch.float8_e8m0fnu)
    found = Inventory(open_checkpoint(str(save_quantised(tmp_path, state, (16, 16)))))
    assert torch.equal(served(found.catalog, found.tensors[WEIGHT]), expected)


def test_nothing_that_is_no_number_becomes_one(tmp_path: Path) -> None:
    state = quantised({WEIGHT: load("ft-code")[WEIGHT]}, (16, 16))
    state[WEIGHT].view(torch.uint8)[0, 0] = 0x7F
    found = Inventory(open_checkpoint(str(save_quantised(tmp_path, state, (16, 16)))))
    assert served(found.catalog, found.tensors[WEIGHT]).isnan().sum() == 1


@pytest.mark.parametrize(
    ("shape", "scale", "configuration", "block"),
    [
        ((300, 500), (3, 4), {}, (128, 128)),
        ((300, 500), (10, 10), {}, (30, 50)),
        ((300, 500), (5, 8), {"quantization_config": {"weight_block_size": [64, 64]}}, (64, 64)),
        ((300, 500), (), {}, (300, 500)),
        ((300, 500), (1,), {}, (300, 500)),
        ((300, 500), (300, 1), {}, (1, 500)),
        ((300, 500), (300,), {}, (1, 500)),
        ((4, 300, 500), (4, 3, 4), {}, (128, 128)),
        ((4, 300, 500), (4, 1, 1), {}, (300, 500)),
        ((4, 300, 500), (4,), {}, (300, 500)),
        ((4, 300, 500), (4, 300, 1), {}, (1, 500)),
        ((300, 500), (7, 9), {}, None),
        ((300, 500), (0, 4), {}, None),
        ((4, 300, 500), (3, 4), {}, None),
    ],
)
def test_what_the_shapes_say_of_the_blocks(
    shape: tuple[int, ...], scale: tuple[int, ...], configuration: dict[str, Any], block: tuple[int, int] | None
) -> None:
    stored = {"w": (shape, "F8_E4M3"), "w_scale_inv": scale}
    found = Inventory(catalog("m", stored, configuration))
    info = found.tensors.get("w")
    if block is None:
        assert info is None
        assert found.left_out["w"].startswith(f"quantised: its scales w_scale_inv {list(scale)} fit no rows or blocks")
    else:
        assert isinstance(info, Dequantised)
        assert info.block == block


def test_the_price_of_a_row_is_its_codes_and_the_scales_over_it() -> None:
    stored = {"w": ((300, 500), "F8_E4M3"), "w_scale_inv": (3, 4)}
    info = Inventory(catalog("m", stored)).tensors["w"]
    assert info.cost(0, 500) == 500 + 4 * 4
    assert info.cost(127 * 500, 129 * 500) == 1000 + 2 * 4 * 4


def test_scaled_weights_are_compared_with_plain_ones_and_the_scales_listed(tmp_path: Path) -> None:
    folder = save_quantised(tmp_path, quantised(load("ft-code")))
    models = [open_checkpoint(str(folder)), open_checkpoint(str(CODE)), open_checkpoint(str(BASE))]
    result = align(models[0], models[1:])
    assert_complete(result, models)
    scaled = [name for name in load("base") if "_proj" in name]
    left = {f"{name}_scale_inv": f"the scales of {name}, which are applied to it" for name in scaled}
    assert reasons(result, str(folder)) == left
    (tensor,) = (t for t in result.tensors if t.name == WEIGHT)
    assert tensor.sources[0].dtype == "BF16"
    assert tensor.notes == (
        f"in the suspect: dequantised from F8_E4M3 (its numbers are those of float8 times {WEIGHT}_scale_inv)",
    )


def test_float8_without_scales_is_compared_as_it_is() -> None:
    models = [catalog(name, {"w": ((8, 4), "F8_E4M3")}) for name in "sp"]
    (tensor,) = align(models[0], models[1:]).tensors
    assert not isinstance(tensor.sources[0], Dequantised)


def test_scales_in_integers_are_a_reason_to_leave_the_weight_out() -> None:
    stored = {"w": ((8, 4), "F8_E4M3"), "w_scale": ((8, 1), "I32"), "v": (4, 4)}
    result = align(catalog("s", stored), [catalog("p", stored)])
    assert reasons(result, "s")["w"] == "quantised as F8_E4M3 with scales in I32, which are not read"
