"""The informative elements whose hash is small. Hashes are formed of positions alone, and the models are looked at only
where one is small, so that little memory is read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.generate import CHUNK, compiled, decode_expression
from reconstruct.kernels.pick_reference import EVERY_HASH, hash_key
from reconstruct.kernels.results import View, check_views

__all__ = ["pick"]


def _source(dtypes: tuple[str, ...]) -> str:
    """One loop marks the small hashes of a chunk without branches; few are, so that a scan by words finds them."""
    count = len(dtypes)
    moved = " or ".join(f"x{j} != x1" for j in range(2, count)) or "False"
    finite = " and ".join(f"abs(x{j}) < np.inf" for j in range(count))
    lines = [
        '@njit(nogil=True, error_model="numpy")',
        "def mark(low, key, threshold, marks):",
        "    for i in range(marks.shape[0]):",
        "        h = uint32(uint32(low + uint32(i)) ^ key)",
        "        h = uint32(uint32(h ^ uint32(h >> uint32(16))) * uint32(0x85EBCA6B))",
        "        h = uint32(uint32(h ^ uint32(h >> uint32(13))) * uint32(0xC2B2AE35))",
        "        h = uint32(h ^ uint32(h >> uint32(16)))",
        "        marks[i] = np.uint8(h <= threshold)",
        "",
        '@njit(nogil=True, cache=True, error_model="numpy")',
        f"def pick({', '.join(f'm{j}' for j in range(count))}, low, key, threshold, out):",
        f"    marks = np.zeros({CHUNK}, np.uint8)",
        "    words = marks.view(np.uint64)",
        "    taken = 0",
        f"    for start in range(0, m0.shape[0], {CHUNK}):",
        f"        n = min({CHUNK}, m0.shape[0] - start)",
        "        mark(uint32(low + uint32(start)), key, threshold, marks[:n])",
        "        for i in range(n, (n + 7) // 8 * 8):",
        "            marks[i] = 0",
        "        for word in range((n + 7) // 8):",
        "            left = words[word]",
        "            while left != np.uint64(0):",
        "                i = start + 8 * word + int64(trailing_zeros(left) >> np.uint64(3))",
        "                left = np.uint64(left & np.uint64(left - np.uint64(1)))",
        *[f"                x{j} = {decode_expression(dtypes[j], f'm{j}[i]')}" for j in range(count)],
        f"                if ({moved}) and x0 != 0 and abs(x0) >= float32(0.25) * abs(x1) and {finite}:",
        "                    if taken < out.shape[0]:",
        "                        out[taken] = i",
        "                    taken += 1",
        "    return taken",
    ]
    return "\n".join(lines) + "\n"


@functools.cache
def _function(dtypes: tuple[str, ...]) -> Callable[..., Any]:
    return compiled("pick", _source(dtypes))


def pick(models: Sequence[View], *, seed: int, offset: int = 0, below: int = EVERY_HASH) -> NDArray[np.int64]:
    """Positions of informative elements with a hash up to `below`, int64 [n], ascending; see `pick_reference`."""
    check_views(models)
    function = _function(tuple(m.dtype for m in models))
    found = [np.empty(0, np.int64)]
    for start, stop in _spans(offset, len(models[0])):
        # Room for many standard deviations more than the hashes that are expected to be so small.
        expected = (stop - start) * (below + 1) / (EVERY_HASH + 1)
        out = np.empty(min(stop - start, int(expected + 20 * np.sqrt(expected) + 1000)), np.int64)
        position = offset + start
        taken = function(
            *(m.bits[start:stop] for m in models), np.uint32(position & EVERY_HASH),
            np.uint32(hash_key(position >> 32, seed)), np.uint32(below), out,
        )  # fmt: skip
        if taken > len(out):  # pragma: no cover - see above
            raise RuntimeError("the picked elements overflowed their buffer")
        found.append(out[:taken] + position)
    return np.concatenate(found)


def _spans(offset: int, elements: int) -> Iterator[tuple[int, int]]:
    """[start, stop) parts whose positions share their high 32 bits."""
    start = 0
    while start < elements:
        stop = min(elements, ((offset + start) // (1 << 32) + 1) * (1 << 32) - offset)
        yield start, stop
        start = stop
