"""Adapters as models: what peft merges, to the bit; and what cannot be recomputed is refused with the reason."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.family import BASE, CODE, load, save

pytest.importorskip("peft")
from support.adapters import merged_by_peft, save_adapter

from reconstruct.checkpoints.adapters import adapter_folder
from reconstruct.checkpoints.alignment import align
from reconstruct.checkpoints.catalog import Catalog, DerivedTensor, TensorInfo
from reconstruct.checkpoints.low_rank import LowRankUpdate
from reconstruct.checkpoints.model_set import open_models
from reconstruct.engine import measure
from reconstruct.errors import CheckpointError

QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter") / "code")


def values(catalog: Catalog, name: str) -> torch.Tensor:
    info = catalog.tensors[name]
    bits = catalog.source.read(info, 0, info.elements)
    assert info.dtype == "BF16"
    return torch.from_numpy(bits.astype(np.int16)).view(torch.bfloat16).reshape(info.shape)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"lora_alpha": 3, "r": 5},
        {"alpha_pattern": {"k_proj": 3}, "rank_pattern": {"v_proj": 2}},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["o_proj"], "layers_to_transform": [1]},
    ],
    ids=["plain", "rslora", "odd scale", "patterns", "embedding and head", "saved module", "one layer"],
)
def test_base_and_adapter_are_what_peft_merges_to_the_bit(options: dict[str, Any], tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", **options)
    merged = merged_by_peft(folder)
    (catalog,) = open_models([str(folder)])
    assert catalog.tensors.keys() == load("base").keys()
    changed = 0
    for name, stored in load("base").items():
        found = values(catalog, name)
        assert torch.equal(found, merged[name]), name
        changed += not torch.equal(found, stored)
    assert changed >= 1


def test_a_saved_module_of_another_dtype_is_rounded_to_the_bases(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", modules_to_save=["lm_head"])
    tensors = load_file(folder / "adapter_model.safetensors")
    head = tensors["base_model.model.lm_head.weight"].float()
    noise = torch.randn(head.shape, generator=torch.Generator().manual_seed(0))
    tensors["base_model.model.lm_head.weight"] = head + 1e-3 * noise
    save_file(tensors, folder / "adapter_model.safetensors")
    (catalog,) = open_models([str(folder)])
    assert torch.equal(values(catalog, "lm_head.weight"), merged_by_peft(folder)["lm_head.weight"])


def test_any_range_of_elements_is_computed_alike(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (catalog,) = open_models([str(adapter)])
    info = catalog.tensors["model.layers.1.mlp.down_proj.weight"]
    whole = catalog.source.read(info, 0, info.elements)
    monkeypatch.setattr("reconstruct.checkpoints.low_rank._TILE", 5 * info.shape[1])
    assert isinstance(info, DerivedTensor)
    for length in (100, 176 * 5, 4097):
        edges = [*range(0, info.elements, length), info.elements]
        pieces = [catalog.source.read(info, a, b) for a, b in itertools.pairwise(edges)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert info.cost(0, 176) == 176 * 2 + 5 * 8 * 4 + 8 * 176 * 4  # W in bf16, a tile of B and all of A in float32


def test_weights_stored_input_by_output_take_the_update_transposed(tmp_path: Path) -> None:
    state = load("base")
    state["h.0.attn.c_attn.weight"] = state["model.layers.0.mlp.up_proj.weight"].T.contiguous()
    base = save(tmp_path / "base", state)
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn(4, 64, generator=generator), torch.randn(176, 4, generator=generator)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({f"base_model.model.h.0.attn.c_attn.lora_{k}.weight": t for k, t in (("A", down), ("B", up))},
              folder / "adapter_model.safetensors")  # fmt: skip
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 2, "fan_in_fan_out": True, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    (catalog,) = open_models([str(folder)])
    expected = (state["h.0.attn.c_attn.weight"].float() + (up @ down).T * 0.5).to(torch.bfloat16)
    torch.testing.assert_close(values(catalog, "h.0.attn.c_attn.weight"), expected)


def test_the_base_is_the_model_at_hand_that_is_named_else_the_local_path_else_the_runs_base(
    adapter: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(adapter, tmp_path / "moved"))
    configure(moved, base_model_name_or_path="base")
    with pytest.raises(CheckpointError, match=r"an adapter to base, which is not among the models.*base="):
        open_models([str(CODE), str(moved)])
    configure(moved, base_model_name_or_path="org/base")
    by_name = open_models([str(BASE), str(CODE), str(moved)], ["org/base@main", "a", "b"])[2]
    by_default = open_models([str(CODE), str(BASE), str(moved)], base=1)[2]
    by_path = open_models([str(CODE), str(adapter)])[1]
    for catalog in (by_name, by_default, by_path):
        assert torch.equal(values(catalog, QUERY), merged_by_peft(adapter)[QUERY])
    info = by_default.tensors[QUERY]
    assert isinstance(info, LowRankUpdate)
    assert info.note == f"{BASE} (the adapter names org/base as its base) with an adapter of rank 8, scale 2"
    assert by_default.reference.given == str(moved)


def configure(folder: Path, **said: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | said))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"use_dora": True}, "use_dora makes it more than a low-rank sum"),
        ({"lora_bias": True}, "lora_bias"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4 changes the base as well"),
        ({"peft_type": "LOHA"}, "an adapter of type LOHA, not LORA"),
        ({"lora_alpha": "large"}, "lora_alpha is 'large', no number"),
    ],
)
def test_variants_that_are_not_recomputed_are_refused(
    said: dict[str, object], message: str, adapter: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    configure(folder, **said)
    with pytest.raises(CheckpointError, match=message):
        open_models([str(folder)])


def spoilt(adapter: Path, folder: Path, change: str) -> Path:
    """A copy with one tensor missing, misshapen, of another module, or of a variant."""
    shutil.copytree(adapter, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    taken = tensors.pop(key)
    other = key.replace("q_proj", "x_proj")
    added = {
        "missing": {},
        "misshapen": {key: taken[:, :32].contiguous()},
        "elsewhere": {key: taken, other: taken.clone(), other.replace("lora_A", "lora_B"): taken.clone()},
        "magnitude": {key: taken, key.replace("lora_A.weight", "lora_magnitude_vector"): taken.clone()},
        "other module": {key: taken, "base_model.model.lm_head.weight": taken.clone()},
    }[change]
    save_file(tensors | added, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"lora_A of model.layers.0.self_attn.q_proj is missing"),
        ("misshapen", r"factors \[64, 8\] x \[8, 32\] of .*q_proj do not fit \[64, 64\]"),
        ("elsewhere", r"changes model.layers.0.self_attn.x_proj.weight, which the base .* does not store"),
        ("magnitude", r"lora_magnitude_vector' is no factor of a plain low-rank sum"),
        ("other module", r"'base_model.model.lm_head.weight' is \[8, 64\], the base's \[256, 64\]"),
    ],
)
def test_adapters_that_do_not_fit_their_base_are_refused_with_file_and_tensor(
    change: str, message: str, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        open_models([str(spoilt(adapter, tmp_path / "adapter", change))])
    assert "adapter_model.safetensors" in str(caught.value)


def test_an_adapter_without_its_configuration_is_refused(adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"without adapter_config.json: rank and scale are not known"):
        open_models([str(folder)], base=0)


def test_a_folder_with_full_weights_is_no_adapter(adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "both"))
    save(folder, load("ft-code"))
    assert adapter_folder(folder) is None
    assert adapter_folder(adapter) == adapter
    (catalog,) = open_models([str(folder)])
    assert torch.equal(values(catalog, QUERY), load("ft-code")[QUERY])


def test_a_pickled_adapter_is_read_too(adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "pickled"))
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    (catalog,) = open_models([str(folder)])
    assert torch.equal(values(catalog, QUERY), merged_by_peft(adapter)[QUERY])


def test_a_pickled_adapter_with_a_saved_module_is_read_by_the_name_that_is_stored(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "saved", modules_to_save=["lm_head"])
    expected = merged_by_peft(folder)["lm_head.weight"]
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    (catalog,) = open_models([str(folder)])
    assert torch.equal(values(catalog, "lm_head.weight"), expected)
    assert not torch.equal(expected, load("base")["lm_head.weight"])


def test_the_fingerprint_changes_with_adapter_and_configuration(adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    prints = {open_models([str(adapter)])[0].fingerprint(), open_models([str(BASE)])[0].fingerprint()}
    configure(folder, lora_alpha=17)
    prints.add(open_models([str(folder)])[0].fingerprint())
    assert len(prints) == 3


def test_alignment_notes_what_was_computed_and_leaves_nothing_out(adapter: Path) -> None:
    models = open_models([str(CODE), str(BASE), str(adapter)], base=1)
    result = align(models[0], models[1:])
    assert result.left_out == ()
    notes = {t.name: t.notes for t in result.tensors}
    assert notes[QUERY] == (f"in {adapter}: {BASE} with an adapter of rank 8, scale 2",)
    assert notes["model.norm.weight"] == ()


def test_a_look_at_some_elements_of_a_large_derived_tensor_computes_a_little_at_a_time(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = open_models([str(CODE), str(adapter)], base=1)
    tensor = next(t for t in align(models[0], models[1:]).tensors if t.name == QUERY)
    starts = np.array([0, 50, 700, 900, 3000, 4000])
    expected = measure._gathered(tensor, models[1], 1, starts, 90)
    asked: list[int] = []
    read = models[1].source.read

    def counted(info: TensorInfo, start: int, stop: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        asked.append(stop - start)
        return read(info, start, stop)

    monkeypatch.setattr(models[1].source, "read", counted)
    monkeypatch.setattr(measure, "_DERIVED_SPAN", 800)
    np.testing.assert_array_equal(measure._gathered(tensor, models[1], 1, starts, 90), expected)
    assert asked[0] == 790  # the first three runs; after it come the adapter's factors
