"""Safetensors files that look as if they broke a rule of the format, and do not. `LEGAL`: name -> writer."""

from __future__ import annotations

import json
from pathlib import Path

from hostile.safetensors_files import A, B, Writer, write

LEGAL: dict[str, Writer] = {}


def legal(writer: Writer) -> Writer:
    LEGAL[writer.__name__] = writer
    return writer


@legal
def no_tensors(folder: Path) -> Path:
    return write(folder, {})


@legal
def header_padded_with_spaces(folder: Path) -> Path:
    return write(folder, json.dumps({"a": A}) + " " * 13, bytes(8))


@legal
def tensor_without_axes(folder: Path) -> Path:
    return write(folder, {"scalar": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, bytes(4))


@legal
def tensors_without_elements(folder: Path) -> Path:
    nothing = {"dtype": "F32", "shape": [0, 7]}
    header = {"first": nothing | {"data_offsets": [0, 0]}, "a": A, "last": nothing | {"data_offsets": [8, 8]}}
    return write(folder, header, bytes(8))


@legal
def tensors_out_of_order(folder: Path) -> Path:
    return write(folder, {"b": B, "a": A, "__metadata__": {"format": "pt"}}, bytes(16))


@legal
def every_dtype_with_whole_bytes(folder: Path) -> Path:
    sizes = {"BOOL": 1, "U8": 1, "F8_E8M0": 1, "F8_E4M3": 1, "I16": 2, "F16": 2, "BF16": 2, "I64": 8, "C64": 8}
    header, begin = {}, 0
    for dtype, size in sizes.items():
        header[dtype] = {"dtype": dtype, "shape": [1], "data_offsets": [begin, begin + size]}
        begin += size
    header["F4"] = {"dtype": "F4", "shape": [2], "data_offsets": [begin, begin + 1]}
    return write(folder, header, bytes(begin + 1))


@legal
def nameless_tensor(folder: Path) -> Path:
    return write(folder, {"": A}, bytes(8))


@legal
def name_in_any_script(folder: Path) -> Path:
    return write(folder, {"слой.0.вес 🙂": A}, bytes(8))
