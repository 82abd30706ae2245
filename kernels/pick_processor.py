"""The m informative elements with the smallest hash, in one pass (two where few elements are informative)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reconstruct.kernels.generate import compiled, decode_expression, finite_expression
from reconstruct.kernels.pick_reference import EVERY_HASH, smallest_hashes
from reconstruct.kernels.results import PickResult, View, check_views

__all__ = ["pick"]


def _source(dtypes: tuple[str, ...]) -> str:
    count = len(dtypes)
    moved = " or ".join(f"x{j} != x1" for j in range(2, count)) or "False"
    lines = [
        '@njit(nogil=True, cache=True, error_model="numpy")',
        f"def pick({', '.join(f'm{j}' for j in range(count))}, offset, seed, threshold, out):",
        "    informative = 0",
        "    taken = 0",
        "    for i in range(m0.shape[0]):",
        *[f"        x{j} = {decode_expression(dtypes[j], f'm{j}[i]')}" for j in range(count)],
        f"        if ({moved}) and x0 != 0 and abs(x0) >= float32(0.25) * abs(x1):",
        f"            if {finite_expression([f'x{j}' for j in range(count)])}:",
        "                informative += 1",
        "                z = np.uint64(i + offset) + seed",
        "                z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)",
        "                z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)",
        "                if ((z ^ (z >> np.uint64(31))) >> np.uint64(32)) <= threshold:",
        "                    if taken < out.shape[0]:",
        "                        out[taken] = i + offset",
        "                    taken += 1",
        "    return informative, taken",
    ]
    return "\n".join(lines) + "\n"


def pick(models: Sequence[View], *, size: int, seed: int, offset: int = 0, below: int = EVERY_HASH) -> PickResult:
    """Sample up to `size` informative elements; see `pick_reference`."""
    check_views(models)
    function = compiled("pick", _source(tuple(m.dtype for m in models)))
    elements = len(models[0])
    start = np.uint64((seed + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
    # The threshold lets through a little more than asked for, so that one pass nearly always suffices.
    wanted = 1.2 * size + 6 * np.sqrt(size) + 50
    expected = float(elements)
    while True:
        share = min(below / EVERY_HASH, wanted / max(1.0, expected))
        out = np.empty(min(elements, int(share * elements * 1.2) + 1000), np.int64)
        threshold = np.uint64(min(below, int(share * EVERY_HASH)))
        informative, taken = function(*(m.bits for m in models), np.int64(offset), start, threshold, out)
        if taken > len(out):  # pragma: no cover - the buffer has room for twenty standard deviations
            raise RuntimeError("the sample overflowed its buffer")
        if taken >= min(size, informative) or threshold >= below:
            return PickResult(out[smallest_hashes(out[:taken], size, seed)], informative)
        expected, wanted = float(informative), 2 * wanted
