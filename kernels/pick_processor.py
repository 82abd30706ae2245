"""The m informative elements with the smallest hash, in one pass (two where few elements are informative)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from reconstruct.kernels.generate import CHUNK, compiled, decode_expression
from reconstruct.kernels.pick_reference import EVERY_HASH, hash_key, smallest_hashes
from reconstruct.kernels.results import PickResult, View, check_views

__all__ = ["pick"]


def _source(dtypes: tuple[str, ...]) -> str:
    """One loop marks the wanted elements of a chunk without branches; few are, so that a scan by words finds them."""
    count = len(dtypes)
    views = ", ".join(f"v{j}" for j in range(count))
    moved = " | ".join(f"(x{j} != x1)" for j in range(2, count)) or "(x0 != x0)"
    lines = [
        '@njit(nogil=True, error_model="numpy")',
        f"def mark({views}, low, key, threshold, marks):",
        "    informative = int32(0)",
        "    for i in range(v0.shape[0]):",
        *[f"        x{j} = {decode_expression(dtypes[j], f'v{j}[i]')}" for j in range(count)],
        f"        says = ({moved}) & (x0 != float32(0)) & (abs(x0) >= float32(0.25) * abs(x1))",
        *[f"        says = says & (abs(x{j}) < float32(np.inf))" for j in range(count)],
        "        informative = int32(informative + int32(says))",
        "        h = uint32(uint32(low + uint32(i)) ^ key)",
        "        h = uint32(uint32(h ^ uint32(h >> uint32(16))) * uint32(0x85EBCA6B))",
        "        h = uint32(uint32(h ^ uint32(h >> uint32(13))) * uint32(0xC2B2AE35))",
        "        h = uint32(h ^ uint32(h >> uint32(16)))",
        "        marks[i] = np.uint8(says & (h <= threshold))",
        "    return informative",
        "",
        '@njit(nogil=True, cache=True, error_model="numpy")',
        f"def pick({', '.join(f'm{j}' for j in range(count))}, low, key, threshold, out):",
        f"    marks = np.zeros({CHUNK}, np.uint8)",
        "    words = marks.view(np.uint64)",
        "    informative = 0",
        "    taken = 0",
        f"    for start in range(0, m0.shape[0], {CHUNK}):",
        f"        n = min({CHUNK}, m0.shape[0] - start)",
        *[f"        v{j} = m{j}[start:start + n]" for j in range(count)],
        "        for i in range(n, (n + 7) // 8 * 8):",
        "            marks[i] = 0",
        f"        informative += mark({views}, uint32(low + uint32(start)), key, threshold, marks)",
        "        for word in range((n + 7) // 8):",
        "            if words[word] != 0:",
        "                for i in range(8 * word, 8 * word + 8):",
        "                    if marks[i] != 0:",
        "                        if taken < out.shape[0]:",
        "                            out[taken] = start + i",
        "                        taken += 1",
        "    return informative, taken",
    ]
    return "\n".join(lines) + "\n"


@functools.cache
def _function(dtypes: tuple[str, ...]) -> Callable[..., Any]:
    return compiled("pick", _source(dtypes))


def pick(models: Sequence[View], *, size: int, seed: int, offset: int = 0, below: int = EVERY_HASH) -> PickResult:
    """Sample up to `size` informative elements; see `pick_reference`."""
    check_views(models)
    function = _function(tuple(m.dtype for m in models))
    elements = len(models[0])
    # The threshold lets through a little more than asked for, so that one pass nearly always suffices.
    wanted = 1.2 * size + 6 * np.sqrt(size) + 50
    expected = float(elements)
    while True:
        share = min(below / EVERY_HASH, wanted / max(1.0, expected))
        out = np.empty(min(elements, int(share * elements * 1.2) + 1000), np.int64)
        threshold = min(below, int(share * EVERY_HASH))
        informative = taken = 0
        for start, stop in _spans(offset, elements):
            position = offset + start
            more, found = function(
                *(m.bits[start:stop] for m in models), np.uint32(position & EVERY_HASH),
                np.uint32(hash_key(position >> 32, seed)), np.uint32(threshold), out[taken:],
            )  # fmt: skip
            out[taken : taken + found] += position
            informative, taken = informative + more, taken + found
        if taken > len(out):  # pragma: no cover - the buffer has room for twenty standard deviations
            raise RuntimeError("the sample overflowed its buffer")
        if taken >= min(size, informative) or threshold >= below:
            return PickResult(out[smallest_hashes(out[:taken], size, seed)], informative)
        expected, wanted = float(informative), 2 * wanted


def _spans(offset: int, elements: int) -> Iterator[tuple[int, int]]:
    """[start, stop) parts whose positions share their high 32 bits."""
    start = 0
    while start < elements:
        stop = min(elements, ((offset + start) // (1 << 32) + 1) * (1 << 32) - offset)
        yield start, stop
        start = stop
