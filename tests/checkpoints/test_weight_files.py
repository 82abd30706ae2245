"""What is no readable checkpoint gives one error that says what lies there and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hostile.weight_folders import ONES, REFUSED
from safetensors.torch import save_file

from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import CheckpointError


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_or_file_that_is_no_checkpoint_says_why_and_what_to_do(case: str, tmp_path: Path) -> None:
    writer, message, remedy = REFUSED[case]
    folder = tmp_path / "model"
    folder.mkdir()
    given = writer(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(str(given))
    assert str(tmp_path) in str(caught.value.subject)
    assert caught.value.remedy is not None
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_path_where_nothing_lies_is_quoted_as_given() -> None:
    with pytest.raises(CheckpointError, match=r"^nowhere/models/x: no such file or folder") as caught:
        open_checkpoint("nowhere/models/x")
    assert "a repository as org/name@revision" in str(caught.value)


def test_a_broken_link_says_where_it_points(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"a link to .*gone, where nothing lies"):
        open_checkpoint(str(tmp_path / "model.safetensors"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_says_so_as_the_system_does(tmp_path: Path) -> None:
    save_file(ONES, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").chmod(0)
    with pytest.raises(CheckpointError, match="Permission denied"):
        open_checkpoint(str(tmp_path))


def test_a_refusal_of_the_system_becomes_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(ONES, tmp_path / "model.safetensors")

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be read \(Permission denied\)"):
        open_checkpoint(str(tmp_path))


def test_an_adapter_beside_full_weights_is_not_read_as_a_shard(tmp_path: Path) -> None:
    save_file({"lora_A": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    save_file(ONES, tmp_path / "weights.safetensors")
    assert set(open_checkpoint(str(tmp_path)).tensors) == {"w"}


def test_safetensors_go_before_pickles(tmp_path: Path) -> None:
    torch.save({"old": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"old": "pytorch_model-1.bin"}}')
    save_file(ONES, tmp_path / "model.safetensors")
    assert set(open_checkpoint(str(tmp_path)).tensors) == {"w"}
