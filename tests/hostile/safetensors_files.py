"""Safetensors files that each break one rule of the format.

Every function writes one file below a folder and returns its path. `VIOLATIONS` maps each to the error it must give:
a regular expression for the message, and the name of the tensor at fault (None if the file as a whole is).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Writer = Callable[[Path], Path]
VIOLATIONS: dict[str, tuple[Writer, str, str | None]] = {}

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]}


def write(folder: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    """A file with this header (JSON text, bytes or an object), this data and, if given, a false header length."""
    raw = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def violation(message: str, tensor: str | None = None) -> Callable[[Writer], Writer]:
    def register(writer: Writer) -> Writer:
        VIOLATIONS[writer.__name__] = (writer, message, tensor)
        return writer

    return register


def _one(**changes: Any) -> dict[str, Any]:
    return {"a": A, "bad": B | changes}


def _raw(folder: Path, data: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return path


# 1 and 2: the length of the header


@violation("the file is empty")
def empty_file(folder: Path) -> Path:
    return _raw(folder, b"")


@violation("5 bytes are too few")
def five_bytes(folder: Path) -> Path:
    return _raw(folder, b"\x01\x02\x03\x04\x05")


@violation("header of 100000001 bytes exceeds 100 MB")
def header_over_the_limit(folder: Path) -> Path:
    return write(folder, {"a": A}, bytes(8), length=100_000_001)


@violation("exceeds 100 MB")
def header_of_all_memory(folder: Path) -> Path:
    return write(folder, {"a": A}, bytes(8), length=2**64 - 1)


@violation("truncated: the header needs 10008 bytes, the file has")
def header_cut_off(folder: Path) -> Path:
    return write(folder, {"a": A}, length=10_000)


# 3: JSON


@violation("does not begin with '{'")
def header_of_length_zero(folder: Path) -> Path:
    return write(folder, b"")


@violation("does not begin with '{'")
def header_that_begins_with_a_space(folder: Path) -> Path:
    return write(folder, " " + json.dumps({"a": A}), bytes(8))


@violation("does not begin with '{'")
def header_that_is_a_list(folder: Path) -> Path:
    return write(folder, [])


@violation("not valid JSON")
def header_cut_inside(folder: Path) -> Path:
    return write(folder, json.dumps({"a": A})[:-3], bytes(8))


@violation("not valid JSON")
def header_not_utf8(folder: Path) -> Path:
    return write(folder, b'{"\xff\xfe": {}}')


@violation("not valid JSON")
def header_nested_beyond_reason(folder: Path) -> Path:
    return write(folder, '{"a":' * 200_000)


@violation("not valid JSON")
def number_of_ten_thousand_digits(folder: Path) -> Path:
    return write(folder, '{"bad": {"dtype": "F32", "shape": [' + "9" * 10_000 + '], "data_offsets": [0, 8]}}', bytes(8))


@violation("the header names 'a' twice")
def tensor_named_twice(folder: Path) -> Path:
    return write(folder, f'{{"a": {json.dumps(A)}, "a": {json.dumps(A)}}}', bytes(8))


@violation("data_offsets is given twice", "bad")
def field_given_twice(folder: Path) -> Path:
    text = '{"bad": {"dtype": "F32", "shape": [2], "data_offsets": [0, 0], "data_offsets": [0, 8]}}'
    return write(folder, text, bytes(8))


@violation("the name is not valid Unicode", "\ud800")
def name_of_half_a_character(folder: Path) -> Path:
    return write(folder, {"\ud800": A}, bytes(8))


# 4: metadata


@violation("__metadata__ must map strings to strings")
def metadata_with_a_number(folder: Path) -> Path:
    return write(folder, {"__metadata__": {"step": 3}, "a": A}, bytes(8))


@violation("__metadata__ must map strings to strings")
def metadata_that_is_a_list(folder: Path) -> Path:
    return write(folder, {"__metadata__": ["pt"], "a": A}, bytes(8))


@violation("__metadata__ names 'format' twice")
def metadata_key_given_twice(folder: Path) -> Path:
    return write(folder, f'{{"__metadata__": {{"format": "pt", "format": "np"}}, "a": {json.dumps(A)}}}', bytes(8))


# 5: dtype, shape, data_offsets


@violation("needs exactly dtype, shape and data_offsets", "bad")
def tensor_without_shape(folder: Path) -> Path:
    return write(folder, {"a": A, "bad": {"dtype": "F32", "data_offsets": [8, 16]}}, bytes(16))


@violation("needs exactly dtype, shape and data_offsets", "bad")
def tensor_with_a_further_field(folder: Path) -> Path:
    return write(folder, _one(stride=[2, 1]), bytes(16))


@violation("needs exactly dtype, shape and data_offsets", "bad")
def tensor_that_is_a_number(folder: Path) -> Path:
    return write(folder, {"a": A, "bad": 3}, bytes(8))


@violation("needs exactly dtype, shape and data_offsets", "")
def nameless_tensor_without_fields(folder: Path) -> Path:
    return write(folder, {"": {}})


@violation("unknown dtype 'F33'", "bad")
def dtype_unknown(folder: Path) -> Path:
    return write(folder, _one(dtype="F33"), bytes(16))


@violation(r"unknown dtype \['F32'\]", "bad")
def dtype_that_is_a_list(folder: Path) -> Path:
    return write(folder, _one(dtype=["F32"]), bytes(16))


@violation(r"shape \[-2, -2\] is not a list of sizes", "bad")
def shape_negative(folder: Path) -> Path:
    return write(folder, _one(shape=[-2, -2]), bytes(16))


@violation(r"shape \[2.0, 2\] is not a list of sizes", "bad")
def shape_with_a_fraction(folder: Path) -> Path:
    return write(folder, _one(shape=[2.0, 2]), bytes(16))


@violation(r"shape \[True, 4\] is not a list of sizes", "bad")
def shape_with_a_truth_value(folder: Path) -> Path:
    return write(folder, _one(shape=[True, 4]), bytes(16))


@violation("is not a list of sizes", "bad")
def shape_beyond_64_bits(folder: Path) -> Path:
    return write(folder, _one(shape=[2**64, 0]), bytes(16))


@violation(r"shape 4 is not a list of sizes", "bad")
def shape_that_is_a_number(folder: Path) -> Path:
    return write(folder, _one(shape=4), bytes(16))


@violation("are not two byte positions", "bad")
def three_offsets(folder: Path) -> Path:
    return write(folder, _one(data_offsets=[8, 12, 16]), bytes(16))


@violation("are not two byte positions", "bad")
def offset_negative(folder: Path) -> Path:
    return write(folder, _one(data_offsets=[-8, 0]), bytes(16))


# 6: size and offsets


@violation(r"data_offsets run backwards \(16 > 8\)", "bad")
def offsets_run_backwards(folder: Path) -> Path:
    return write(folder, _one(data_offsets=[16, 8]), bytes(16))


@violation(r"BF16 \[2, 3\] needs 12 bytes, data_offsets give 8", "bad")
def shape_larger_than_its_data(folder: Path) -> Path:
    return write(folder, _one(shape=[2, 3]), bytes(16))


@violation("needs more than 2\\^60 bytes", "bad")
def shape_that_overflows(folder: Path) -> Path:
    return write(folder, _one(shape=[2**63] * 1000), bytes(16))


@violation(r"F4 \[3\] needs 1.5 bytes", "bad")
def sub_byte_tensor_of_half_a_byte(folder: Path) -> Path:
    return write(folder, {"bad": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, bytes(1))


# 7: the data


@violation("truncated: data ends at byte", "bad")
def data_cut_off(folder: Path) -> Path:
    return write(folder, _one(), bytes(15))


@violation("a hole in the data", "bad")
def hole_between_tensors(folder: Path) -> Path:
    return write(folder, _one(data_offsets=[12, 20]), bytes(20))


@violation("a hole in the data", "a")
def hole_at_the_begin(folder: Path) -> Path:
    return write(folder, {"a": A | {"data_offsets": [4, 12]}}, bytes(12))


@violation("an overlap in the data", "bad")
def overlap_of_tensors(folder: Path) -> Path:
    return write(folder, _one(data_offsets=[4, 12]), bytes(12))


@violation("an overlap in the data", "bad")
def two_tensors_in_one_place(folder: Path) -> Path:
    return write(folder, {"a": A, "bad": A}, bytes(8))


@violation("3 bytes after the last tensor belong to none")
def bytes_at_the_end(folder: Path) -> Path:
    return write(folder, {"a": A}, bytes(11))


@violation("8 bytes after the last tensor belong to none")
def data_without_tensors(folder: Path) -> Path:
    return write(folder, {}, bytes(8))
