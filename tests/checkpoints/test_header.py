"""Every violated rule of the safetensors format gives one error that names the file and the tensor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hostile.odd_but_legal import LEGAL
from hostile.safetensors_files import VIOLATIONS, A, write
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from support import family

from reconstruct.checkpoints.header import read_header
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import HeaderError


@pytest.mark.parametrize("rule", VIOLATIONS)
def test_a_violated_rule_names_file_and_tensor(rule: str, tmp_path: Path) -> None:
    writer, message, tensor = VIOLATIONS[rule]
    path = writer(tmp_path)
    with pytest.raises(HeaderError, match=message) as caught:
        read_header(path)
    assert caught.value.subject == (str(path) if tensor is None else f"{path}, tensor {tensor!r}")
    assert caught.value.remedy
    str(caught.value).encode()  # can be printed


@pytest.mark.parametrize("rule", VIOLATIONS)
def test_opening_a_folder_with_such_a_file_gives_the_same_error(rule: str, tmp_path: Path) -> None:
    writer, message, _ = VIOLATIONS[rule]
    writer(tmp_path)
    with pytest.raises(HeaderError, match=message):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("rule", LEGAL)
def test_what_only_looks_odd_is_accepted(rule: str, tmp_path: Path) -> None:
    path = LEGAL[rule](tmp_path)
    entries = read_header(path)
    assert all(8 <= entry.begin <= entry.end <= path.stat().st_size for entry in entries)
    assert [entry.begin for entry in entries] == sorted(entry.begin for entry in entries)


@pytest.mark.parametrize("rule", sorted(set(LEGAL) - {"every_dtype_with_whole_bytes", "nameless_tensor"}))
def test_the_reference_reader_accepts_what_is_called_legal(rule: str, tmp_path: Path) -> None:
    path = LEGAL[rule](tmp_path)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {entry.name for entry in read_header(path)}


#: Broken here, accepted there: the reference reader keeps the last of two equal keys, or takes no notice.
MORE_LENIENT = {
    "tensor_named_twice", "metadata_key_given_twice", "field_given_twice", "tensor_with_a_further_field",
    "header_that_begins_with_a_space",
}  # fmt: skip


@pytest.mark.parametrize("rule", sorted(set(VIOLATIONS) - MORE_LENIENT))
def test_the_reference_reader_refuses_what_is_called_a_violation(rule: str, tmp_path: Path) -> None:
    path = VIOLATIONS[rule][0](tmp_path)
    with pytest.raises((SafetensorError, OSError)), safe_open(path, "pt"):
        pass


def test_entries_say_where_the_bytes_are(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(5, dtype=torch.float16)}
    save_file(tensors, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    entries = {entry.name: entry for entry in read_header(tmp_path / "model.safetensors")}
    assert (entries["a"].dtype, entries["a"].shape) == ("F32", (2, 3))
    assert (entries["b"].dtype, entries["b"].shape) == ("F16", (5,))
    for name, tensor in tensors.items():
        assert data[entries[name].begin : entries[name].end] == tensor.numpy().tobytes()


def test_a_trained_checkpoint_is_read() -> None:
    entries = read_header(family.BASE / "model.safetensors")
    assert {entry.name: entry.shape for entry in entries} == {n: tuple(t.shape) for n, t in family.load("base").items()}


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 500, 3000, 100_000])
def test_a_trained_checkpoint_cut_anywhere_is_truncated(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((family.BASE / "model.safetensors").read_bytes()[:cut])
    with pytest.raises(HeaderError, match=r"truncated|too few"):
        read_header(path)


def test_the_message_reads_as_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": A}, bytes(9))
    with pytest.raises(HeaderError, match=re.escape(f"{path}: 1 bytes after the last tensor belong to none")) as caught:
        read_header(path)
    assert str(caught.value).count("\n") == 0
