"""Folders that hold no checkpoint, half of one, or more than one. `REFUSED`: name -> (writer, message, remedy).

Every writer gets an empty folder and returns what a user would name: the folder or a file in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

Writer = Callable[[Path], Path]
REFUSED: dict[str, tuple[Writer, str, str]] = {}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 988097824\n"
ONES = {"w": torch.ones(4)}


def refused(message: str, remedy: str) -> Callable[[Writer], Writer]:
    def register(writer: Writer) -> Writer:
        REFUSED[writer.__name__] = (writer, message, remedy)
        return writer

    return register


def write_index(folder: Path, mapping: object, stem: str = "model.safetensors") -> Path:
    path = folder / f"{stem}.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": mapping}))
    return path


@refused("no weights in this folder", "Expected")
def empty_folder(folder: Path) -> Path:
    return folder


@refused("no weights in this folder", "Expected")
def folder_with_configuration_only(folder: Path) -> Path:
    (folder / "config.json").write_text("{}")
    return folder


@refused("the file is empty", "Download")
def folder_whose_only_file_is_empty(folder: Path) -> Path:
    (folder / "model.safetensors").touch()
    return folder


@refused("Git LFS pointer", "git lfs pull")
def pointer_instead_of_safetensors(folder: Path) -> Path:
    (folder / "model.safetensors").write_text(POINTER)
    return folder


@refused("Git LFS pointer", "git lfs pull")
def pointer_instead_of_a_pickle(folder: Path) -> Path:
    (folder / "pytorch_model.bin").write_text(POINTER)
    return folder / "pytorch_model.bin"


@refused("Git LFS pointer", "git lfs pull")
def pointer_among_shards(folder: Path) -> Path:
    save_file(ONES, folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_text(POINTER)
    write_index(folder, {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"})
    return folder


@refused("no weights that can be read, only model.gguf", "GGUF files are not supported")
def folder_with_gguf(folder: Path) -> Path:
    (folder / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    return folder


@refused("not a format that can be read", "GGUF files are not supported")
def gguf_under_another_name(folder: Path) -> Path:
    (folder / "model.bin").write_bytes(b"GGUF\x03\x00\x00\x00")
    return folder / "model.bin"


@refused("no weights that can be read, only tf_model.h5", "TensorFlow weights are not supported")
def folder_with_tensorflow_weights(folder: Path) -> Path:
    (folder / "tf_model.h5").write_bytes(b"\x89HDF")
    return folder


@refused("not a weights file by its name", "Give a folder")
def text_file(folder: Path) -> Path:
    (folder / "README.md").write_text("# Model")
    return folder / "README.md"


@refused("only an adapter, no full weights", "Merge the adapter into its base model first")
def adapter_only(folder: Path) -> Path:
    save_file({"base_model.model.q_proj.lora_A.weight": torch.ones(4, 2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    return folder


@refused("an adapter, no full weights", "Merge the adapter into its base model first")
def adapter_file(folder: Path) -> Path:
    return adapter_only(folder) / "adapter_model.safetensors"


@refused("no weights under a usual name; there is step-900.pt", "If that is the model, give")
def folder_with_a_training_checkpoint(folder: Path) -> Path:
    torch.save(ONES, folder / "step-900.pt")
    return folder


@refused("the index names shard model-00002-of-00002.safetensors, which is missing", "Download model-00002")
def shard_of_the_index_missing(folder: Path) -> Path:
    save_file(ONES, folder / "model-00001-of-00002.safetensors")
    write_index(folder, {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"})
    return folder


@refused("2 of 3 shards are missing, first model-00001-of-00003.safetensors", "Download model-00001")
def shards_missing_without_an_index(folder: Path) -> Path:
    save_file(ONES, folder / "model-00002-of-00003.safetensors")
    return folder


@refused("the index puts tensor 'v' in b.safetensors, where it is not", "one and the same revision")
def tensor_in_another_shard(folder: Path) -> Path:
    save_file(ONES | {"v": torch.zeros(2)}, folder / "a.safetensors")
    save_file({"x": torch.zeros(2)}, folder / "b.safetensors")
    write_index(folder, {"w": "a.safetensors", "v": "b.safetensors", "x": "b.safetensors"})
    return folder


@refused("the index puts tensor 'v' in model.safetensors, where it is not", "one and the same revision")
def tensor_of_the_index_nowhere(folder: Path) -> Path:
    save_file(ONES, folder / "model.safetensors")
    return write_index(folder, {"w": "model.safetensors", "v": "model.safetensors"})


@refused("the index puts tensor 'v' in a.bin, where it is not", "one and the same revision")
def tensor_missing_in_a_pickled_shard(folder: Path) -> Path:
    torch.save(ONES, folder / "a.bin")
    return write_index(folder, {"w": "a.bin", "v": "a.bin"}, "pytorch_model.bin")


@refused(r"the index names shard '../w.safetensors', which is not a file beside it", "Shards must lie in the folder")
def shard_outside_the_folder(folder: Path) -> Path:
    save_file(ONES, folder.parent / "w.safetensors")
    write_index(folder, {"w": "../w.safetensors"})
    return folder


@refused("tensor 'w' is also in .*a.safetensors", "Remove the shard")
def tensor_in_two_shards(folder: Path) -> Path:
    for name in ("a.safetensors", "b.safetensors"):
        save_file(ONES, folder / name)
    return folder


@refused("two checkpoints in one folder: model.safetensors, and the shards of", "Name the one that is meant")
def whole_and_sharded_in_one_folder(folder: Path) -> Path:
    save_file(ONES, folder / "model.safetensors")
    save_file(ONES, folder / "model-00001-of-00001.safetensors")
    write_index(folder, {"w": "model-00001-of-00001.safetensors"})
    return folder


@refused("safetensors and pickles are mixed", "Name one file")
def index_of_two_kinds(folder: Path) -> Path:
    save_file(ONES, folder / "a.safetensors")
    torch.save({"v": torch.ones(2)}, folder / "b.bin")
    write_index(folder, {"w": "a.safetensors", "v": "b.bin"})
    return folder


@refused("not valid JSON", "Download it again")
def index_cut_off(folder: Path) -> Path:
    path = write_index(folder, {"w": "a.safetensors"})
    path.write_text(path.read_text()[:-4])
    return folder


@refused("the index has no weight_map", "Download it again")
def index_with_an_empty_map(folder: Path) -> Path:
    write_index(folder, {})
    return folder


@refused("the index has no weight_map", "Download it again")
def index_with_numbers_for_shards(folder: Path) -> Path:
    write_index(folder, {"w": 1})
    return folder


@refused("a JSON object was expected", "Download it again")
def configuration_that_is_a_list(folder: Path) -> Path:
    save_file(ONES, folder / "model.safetensors")
    (folder / "config.json").write_text("[]")
    return folder


@refused("not valid JSON", "Download it again")
def configuration_cut_off(folder: Path) -> Path:
    save_file(ONES, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "qw')
    return folder


@refused(r"cannot be read \(Is a directory\)", "Check the file and its permissions")
def folder_in_place_of_a_file(folder: Path) -> Path:
    (folder / "model.safetensors").mkdir()
    return folder
