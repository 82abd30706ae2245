"""Pickled checkpoints: the same bits as safetensors, and no code is run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from support import family

from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import CheckpointError


class Malicious:
    """Unpickling it in the plain way makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def contents(catalog: Catalog) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        name: (info.dtype, info.shape, catalog.source.read(info, 0, info.elements).tobytes())
        for name, info in catalog.tensors.items()
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_pickle_gives_the_same_bits_as_safetensors(zipped: bool, tmp_path: Path) -> None:
    torch.save(family.load("base"), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert contents(open_checkpoint(str(tmp_path))) == contents(open_checkpoint(str(family.BASE)))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", "model_state_dict"])
def test_weights_inside_a_training_checkpoint_are_found(wrapper: str, tmp_path: Path) -> None:
    torch.save({"step": 900, wrapper: family.load("base"), "optimizer": {}}, tmp_path / "last.ckpt")
    assert contents(open_checkpoint(str(tmp_path / "last.ckpt"))) == contents(open_checkpoint(str(family.BASE)))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(zipped: bool, tmp_path: Path) -> None:
    target = tmp_path / "proof"
    state = {"w": torch.ones(2), "x": Malicious(target)}
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="torch cannot load it safely") as caught:
        open_checkpoint(str(tmp_path))
    assert not target.exists()
    assert "Convert the checkpoint to safetensors" in str(caught.value)


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut off", b"\x80\x02 no pickle", b"", b"plain text"])
def test_a_damaged_pickle_is_one_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: torch cannot load it safely \(.+\)") as caught:
        open_checkpoint(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", [{}, {"step": 3}, [1, 2]], ids=str)
def test_a_pickle_without_tensors_says_so(state: object, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        open_checkpoint(str(tmp_path))


def test_parameters_views_and_transposes_are_read_as_their_values(tmp_path: Path) -> None:
    big = torch.arange(12.0).reshape(3, 4)
    state = {"parameter": torch.nn.Parameter(big.clone()), "transposed": big.T, "view": big[1:, :2], "again": big}
    torch.save(state, tmp_path / "pytorch_model.bin")
    found = contents(open_checkpoint(str(tmp_path)))
    for name, tensor in state.items():
        assert found[name][1:] == (tuple(tensor.shape), tensor.detach().contiguous().numpy().tobytes())


def test_dtypes_that_are_never_compared_are_listed_all_the_same(tmp_path: Path) -> None:
    state = {"w": torch.ones(2), "n": torch.tensor([3]), "mask": torch.tensor([True]), "z": torch.ones(2) * 1j}
    torch.save(state, tmp_path / "pytorch_model.bin")
    found = {name: info.dtype for name, info in open_checkpoint(str(tmp_path)).tensors.items()}
    assert found == {"w": "F32", "n": "I64", "mask": "BOOL", "z": "COMPLEX64"}


def test_a_sparse_tensor_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="tensor 'w' is sparse"):
        open_checkpoint(str(tmp_path))


def test_a_tensor_in_two_pickles_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        torch.save({"w": torch.ones(2)}, tmp_path / f"pytorch_model-{number}.bin")
    with pytest.raises(CheckpointError, match=r"tensor 'w' is also in .*pytorch_model-1.bin"):
        open_checkpoint(str(tmp_path))
