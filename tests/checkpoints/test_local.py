"""Local checkpoints: the same bits however they are stored and cut."""

from __future__ import annotations

import itertools
import json
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile.safetensors_files import write
from hostile.weight_folders import write_index
from safetensors.torch import save_file
from support import family

from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import CheckpointError


def bits(catalog: Catalog, name: str) -> bytes:
    info = catalog.tensors[name]
    return catalog.source.read(info, 0, info.elements).tobytes()


def assert_same_weights(catalog: Catalog, tensors: dict[str, torch.Tensor]) -> None:
    assert set(catalog.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert catalog.tensors[name].shape == tuple(tensor.shape)
        assert bits(catalog, name) == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def save_sharded(folder: Path, tensors: dict[str, torch.Tensor], kind: str) -> Path:
    """Three shards and their index."""
    folder.mkdir()
    mapping = {}
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    for number in range(3):
        shard = f"{stem}-{number + 1:05d}-of-00003.{suffix}"
        part = dict(list(tensors.items())[number::3])
        (save_file if kind == "safetensors" else torch.save)(part, folder / shard)
        mapping |= dict.fromkeys(part, shard)
    return write_index(folder, mapping, f"{stem}.{suffix}")


def test_a_trained_checkpoint_gives_its_bits_and_configuration() -> None:
    catalog = open_checkpoint(str(family.BASE))
    assert_same_weights(catalog, family.load("base"))
    assert catalog.configuration["model_type"] == "qwen3"
    assert catalog.parameters == sum(t.numel() for t in family.load("base").values())


@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_shards_with_an_index_give_the_same_bits(kind: str, tmp_path: Path) -> None:
    index = save_sharded(tmp_path / "sharded", family.load("base"), kind)
    for given in (index.parent, index):
        catalog = open_checkpoint(str(given))
        assert len(catalog.files) == 3
        assert_same_weights(catalog, family.load("base"))


@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_shards_without_an_index_give_the_same_bits(kind: str, tmp_path: Path) -> None:
    index = save_sharded(tmp_path / "sharded", family.load("base"), kind)
    index.unlink()
    assert_same_weights(open_checkpoint(str(index.parent)), family.load("base"))


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    index = save_sharded(tmp_path / "sharded", family.load("base"), "safetensors")
    shard = index.parent / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003.safetensors, tensor .* truncated"):
        open_checkpoint(str(index.parent))


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_floating_point_dtype_is_read_in_storage_form(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {"w": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)}
    save_file(tensors, tmp_path / "model.safetensors")
    torch.save(tensors, tmp_path / "same.bin")
    for name in ("model.safetensors", "same.bin"):
        assert_same_weights(open_checkpoint(str(tmp_path / name)), tensors)


def test_blocks_of_a_tensor_join_to_the_whole(tmp_path: Path) -> None:
    catalog = open_checkpoint(str(family.BASE))
    info = catalog.tensors["lm_head.weight"]
    edges = [0, 1, 1, 5000, info.elements]
    blocks = [catalog.source.read(info, a, b) for a, b in itertools.pairwise(edges)]
    assert np.concatenate(blocks).tobytes() == bits(catalog, "lm_head.weight")


@pytest.mark.parametrize(("start", "stop"), [(-1, 4), (0, 16385), (5, 4)])
def test_elements_outside_a_tensor_are_refused(start: int, stop: int) -> None:
    catalog = open_checkpoint(str(family.BASE))
    with pytest.raises(ValueError, match=f"elements {start} to {stop} of a tensor of 16384"):
        catalog.source.read(catalog.tensors["lm_head.weight"], start, stop)


def test_weights_at_odd_byte_positions_are_read(tmp_path: Path) -> None:
    values = np.arange(7, dtype=np.float32)
    header = json.dumps({
        "flag": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]},
        "w": {"dtype": "F32", "shape": [7], "data_offsets": [1, 29]},
    })  # fmt: skip
    path = write(tmp_path, header + " " * (-len(header) % 8), b"\1" + values.tobytes())
    catalog = open_checkpoint(str(path))
    assert catalog.tensors["w"].begin % 4 == 1
    np.testing.assert_array_equal(catalog.source.read(catalog.tensors["w"], 2, 7), values[2:])


def test_tensors_without_axes_or_elements_are_read(tmp_path: Path) -> None:
    tensors = {"scalar": torch.tensor(1.5), "nothing": torch.zeros(0, 3), "w": torch.ones(2)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same_weights(open_checkpoint(str(tmp_path)), tensors)


def test_what_is_read_cannot_be_written_to() -> None:
    catalog = open_checkpoint(str(family.BASE))
    block = catalog.source.read(catalog.tensors["lm_head.weight"], 0, 10)
    with pytest.raises(ValueError, match="read-only"):
        block[0] = 0


def test_released_weights_can_be_read_again() -> None:
    catalog = open_checkpoint(str(family.BASE))
    before = bits(catalog, "lm_head.weight")
    for info in catalog.tensors.values():
        catalog.source.release(info, 0, info.elements)
        catalog.source.release(info, 0, 0)
    assert bits(catalog, "lm_head.weight") == before


def test_many_threads_may_read_at_once() -> None:
    catalog, expected = open_checkpoint(str(family.BASE)), open_checkpoint(str(family.BASE))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: bits(catalog, name), catalog.tensors))
    assert found == [bits(expected, name) for name in expected.tensors]


def test_a_link_into_a_download_cache_keeps_its_name_and_its_configuration(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name, digest in (("model.safetensors", "4d7a2146"), ("config.json", "9f86d081")):
        (blobs / digest).write_bytes((family.BASE / name).read_bytes())
        (snapshot / name).symlink_to(os.path.relpath(blobs / digest, snapshot))
    for given in (snapshot, snapshot / "model.safetensors"):
        catalog = open_checkpoint(str(given))
        assert_same_weights(catalog, family.load("base"))
        assert catalog.configuration["model_type"] == "qwen3"


def test_the_reference_keeps_the_users_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family.save(tmp_path / "suspect", {"w": torch.ones(2)}, config=False)
    monkeypatch.chdir(tmp_path)
    catalog = open_checkpoint("./suspect")
    assert catalog.reference.given == "./suspect"
    assert catalog.reference.location == tmp_path / "suspect"
    assert catalog.configuration == {}


def test_a_header_that_claims_no_more_than_the_file_is_all_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        header = b'{"w":{"dtype":"U8","shape":[8000000000],"data_offsets":[0,8000000000]}}'
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 8_000_000_000)  # sparse: takes no space
    assert open_checkpoint(str(path)).parameters == 8_000_000_000
