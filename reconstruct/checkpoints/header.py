"""The safetensors header: parsed and checked against every rule of the format.

The rules (each has one error below, naming the offender):
 1. the file has at least 8 bytes, a little-endian uint64: the length of the header;
 2. the header fits in the file and is at most 100 MB;
 3. it is UTF-8 JSON, begins with "{", has no duplicate keys, names are valid Unicode, and it may be padded with spaces;
 4. `__metadata__`, if there, maps strings to strings;
 5. every tensor has exactly dtype, shape and data_offsets; the dtype is known, sizes are integers >= 0;
 6. `data_offsets` = [begin, end] with begin <= end, and end - begin is the size that dtype and shape say;
 7. the tensors cover the data without hole or overlap, to the last byte of the file.
Zero-size and zero-rank tensors are legal. The common Python readers do not check 3 (duplicates) and 7: a file that
shows one reader other weights than another is no basis for evidence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconstruct.errors import HeaderError

__all__ = ["MAXIMUM_HEADER_BYTES", "PREFIX_BYTES", "HeaderEntry", "header_length", "parse_header", "read_header"]

#: Bits per element of every dtype in the safetensors format.
SAFETENSORS_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

MAXIMUM_HEADER_BYTES = 100_000_000
#: A file begins with the length of its header.
PREFIX_BYTES = 8
#: Sizes and positions are 64-bit numbers in the format.
_LIMIT = 1 << 64
_REMEDY = "Download or save the file again"


@dataclass(frozen=True)
class HeaderEntry:
    """One tensor of one file; `begin` and `end` are byte positions in the file, not in the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> list[HeaderEntry]:
    """Read and validate the header of a safetensors file. Raises HeaderError, or OSError if it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = header_length(file.read(PREFIX_BYTES), file_size=size, subject=str(path))
        return parse_header(file.read(length), file_size=size, subject=str(path))


def header_length(prefix: bytes, *, file_size: int, subject: str) -> int:
    """The first bytes of a file -> bytes of the header that follows them. Raises HeaderError naming `subject`."""

    def fail(message: str) -> HeaderError:
        return HeaderError(message, subject=subject, remedy=_REMEDY)

    if file_size == 0:
        raise fail("the file is empty")
    if len(prefix) < PREFIX_BYTES:
        raise fail(f"{file_size} bytes are too few for a safetensors file")
    length = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if length > MAXIMUM_HEADER_BYTES:
        raise fail(f"header of {length} bytes exceeds 100 MB")
    if PREFIX_BYTES + length > file_size:
        raise fail(f"truncated: the header needs {PREFIX_BYTES + length} bytes, the file has {file_size}")
    return length


def parse_header(raw: bytes, *, file_size: int, subject: str) -> list[HeaderEntry]:
    """Header bytes -> entries in the order of their data. Raises HeaderError naming file (`subject`) and tensor."""
    data_begin = PREFIX_BYTES + len(raw)

    def fail(message: str, tensor: str | None = None) -> HeaderError:
        place = subject if tensor is None else f"{subject}, tensor {tensor!r}"
        return HeaderError(message, subject=place, remedy=_REMEDY)

    if not raw.startswith(b"{"):
        raise fail("the header does not begin with '{': this is no safetensors file")
    try:
        pairs: _Pairs = json.loads(raw.decode("utf-8"), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, numbers of thousands of digits
        raise fail(f"the header is not valid JSON ({error})") from None
    if (twice := pairs.repeated()) is not None:
        raise fail(f"the header names {twice!r} twice")
    header = dict(pairs)
    _check_metadata(header.pop("__metadata__", _Pairs()), fail)
    entries = sorted(
        (_entry(name, value, data_begin, fail) for name, value in header.items()), key=lambda e: (e.begin, e.end)
    )
    position = data_begin
    for entry in entries:
        if entry.end > file_size:
            raise fail(f"truncated: data ends at byte {entry.end}, the file has {file_size}", entry.name)
        if entry.begin != position:
            kind = "a hole" if entry.begin > position else "an overlap"
            raise fail(f"{kind} in the data: expected byte {position}, found {entry.begin}", entry.name)
        position = entry.end
    if position != file_size:
        raise fail(f"{file_size - position} bytes after the last tensor belong to none")
    return entries


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as written: duplicates are seen, and can be reported with the tensor's name."""

    def repeated(self) -> str | None:
        """The first key that stands here twice."""
        seen: set[str] = set()
        for key, _ in self:
            if key in seen:
                return key
            seen.add(key)
        return None


_Fail = Callable[..., HeaderError]


def _check_metadata(metadata: Any, fail: _Fail) -> None:
    if not isinstance(metadata, _Pairs) or not all(isinstance(value, str) for _, value in metadata):
        raise fail("__metadata__ must map strings to strings")
    if (twice := metadata.repeated()) is not None:
        raise fail(f"__metadata__ names {twice!r} twice")


def _entry(name: str, value: Any, data_begin: int, fail: _Fail) -> HeaderEntry:
    if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
        raise fail("the name is not valid Unicode", name)
    if not isinstance(value, _Pairs) or {key for key, _ in value} != {"dtype", "shape", "data_offsets"}:
        raise fail("needs exactly dtype, shape and data_offsets", name)
    if (twice := value.repeated()) is not None:
        raise fail(f"{twice} is given twice", name)
    fields = dict(value)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SAFETENSORS_BITS:
        raise fail(f"unknown dtype {dtype!r}", name)
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < _LIMIT for n in shape):
        raise fail(f"shape {shape!r} is not a list of sizes", name)
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(n) is int and 0 <= n < _LIMIT for n in offsets)
    ):
        raise fail(f"data_offsets {offsets!r} are not two byte positions", name)
    begin, end = offsets
    if begin > end:
        raise fail(f"data_offsets run backwards ({begin} > {end})", name)
    bits = math.prod(shape) * SAFETENSORS_BITS[dtype]
    if bits % 8 or end - begin != bits // 8:
        needed = f"{bits / 8:.17g}" if bits < _LIMIT else "more than 2^60"
        raise fail(f"{dtype} {shape} needs {needed} bytes, data_offsets give {end - begin}", name)
    return HeaderEntry(name, dtype, tuple(shape), data_begin + begin, data_begin + end)
