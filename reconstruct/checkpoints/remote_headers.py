"""The safetensors headers of all shards, by a few small reads each: most often one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from reconstruct.checkpoints.header import PREFIX_BYTES, HeaderEntry, header_length, parse_header
from reconstruct.checkpoints.remote_source import RangeReader
from reconstruct.checkpoints.weight_choice import refuse_foreign_content

__all__ = ["read_headers"]

#: What an entry needs beside its name: {"dtype":"BF16","shape":[151936,4096],"data_offsets":[1234567890,1234567890]}.
_ENTRY = 96
_FRAME = 128  # length, braces, metadata, padding
#: Bytes that are read first where no index says how many tensors there are: a thousandth of the file, within these.
_LEAST, _MOST = 4096, 16384


def read_headers(
    reader: RangeReader,
    sizes: Mapping[str, int],
    subjects: Mapping[str, str],
    weight_map: Mapping[str, str] | None,
    workers: int = 8,
) -> dict[str, list[HeaderEntry]]:
    """File -> validated entries. `sizes` in bytes; `subjects`: how errors name a file; `weight_map`: tensor -> file.

    Raises HeaderError, CheckpointError (no weights by its first bytes), or what the reader raises.
    """
    guesses = _guesses(weight_map) if weight_map is not None else {}

    def one(file: str) -> list[HeaderEntry]:
        guess = guesses.get(file, min(max(sizes[file] >> 10, _LEAST), _MOST))
        return _read_header(reader, file, sizes[file], subjects[file], guess)

    files = list(sizes)
    with ThreadPoolExecutor(max(min(workers, len(files)), 1)) as pool:
        futures = [pool.submit(one, file) for file in files]
        try:
            return {file: future.result() for file, future in zip(files, futures, strict=True)}
        finally:
            for future in futures:
                future.cancel()


def _guesses(weight_map: Mapping[str, str]) -> dict[str, int]:
    """Bytes that a file's header has at most, as a rule: by the names and the number of its tensors."""
    totals: Counter[str] = Counter()
    for name, file in weight_map.items():
        totals[file] += len(name.encode("utf-8", "replace")) + _ENTRY
    return {file: total + _FRAME for file, total in totals.items()}


def _read_header(reader: RangeReader, file: str, size: int, subject: str, guess: int) -> list[HeaderEntry]:
    first = min(guess, size)
    raw = reader.read(file, 0, first) if first else b""
    refuse_foreign_content(raw, subject, remote=True)
    end = PREFIX_BYTES + header_length(raw, file_size=size, subject=subject)
    if end > first:
        raw += reader.read(file, first, end)
    return parse_header(raw[PREFIX_BYTES:end], file_size=size, subject=subject)
