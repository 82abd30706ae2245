"""Catalogs: sizes, and fingerprints that change with the content and not with the place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from support import family
from support.catalogs import catalog

from reconstruct.checkpoints.open import open_checkpoint


def fingerprint(folder: Path) -> str:
    return open_checkpoint(str(folder)).fingerprint()


def test_parameters_are_counted_over_all_tensors() -> None:
    assert catalog("m", {"a": (3, 4), "scalar": (), "nothing": (0, 9)}).parameters == 13
    assert catalog("m", {}).parameters == 0


def test_the_same_files_have_the_same_fingerprint() -> None:
    assert fingerprint(family.BASE) == fingerprint(family.BASE)


def test_two_models_of_one_shape_differ_by_their_files() -> None:
    assert fingerprint(family.BASE) != fingerprint(family.CODE)


def test_a_moved_folder_keeps_its_fingerprint(tmp_path: Path) -> None:
    family.save(tmp_path / "here", {"w": torch.ones(3)})
    before = fingerprint(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert fingerprint(tmp_path / "there") == before


def test_a_file_written_again_changes_the_fingerprint(tmp_path: Path) -> None:
    family.save(tmp_path, {"w": torch.ones(3)})
    before = fingerprint(tmp_path)
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))
    assert fingerprint(tmp_path) != before


def test_another_name_shape_or_dtype_changes_the_fingerprint(tmp_path: Path) -> None:
    seen = set()
    for tensors in ({"w": torch.ones(4)}, {"v": torch.ones(4)}, {"w": torch.ones(2, 2)}, {"w": torch.ones(2).double()}):
        folder = family.save(tmp_path / "model", tensors)
        os.utime(folder / "model.safetensors", ns=(1, 1))
        seen.add(fingerprint(folder))
        shutil.rmtree(folder)
    assert len(seen) == 4
