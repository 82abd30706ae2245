"""G = sum d d^T in one pass over memory: deltas and products in registers, float32 within a chunk, float64 across.

Squares of numbers below 2^-75 are 0 in float32, which no weight that matters is. Squares of numbers above 2^64
overflow; then (a damaged weight is enough) the sums are taken again in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from reconstruct.kernels.generate import CHUNK, compiled, decode_expression, finite_expression
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import GramResult, View, check_views

__all__ = ["gram"]

_BLOCK = 1 << 20


def _source(dtypes: tuple[str, ...]) -> str:
    """A chunk is summed as if all its numbers were finite: the squares on the diagonal tell if one was not, and then it
    is summed again with care. So the loop that runs tests nothing.
    """
    count = len(dtypes)
    names = [f"m{j}" for j in range(count)]
    views = ", ".join(f"v{j}" for j in range(count))
    d = ["y", *[f"d{j}" for j in range(2, count)], "p"]
    size = len(d)
    pairs = [(i, j) for i in range(size) for j in range(i, size)]
    # reassoc lets sums run in several lanes; NaN and infinities keep their meaning.
    decorator = '@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})'

    def loop(careful: bool) -> list[str]:
        care = [
            *[f"        f{j} = int32({finite_expression([f'x{j}'])})" for j in range(count)],
            *[f"        bad{j} += int32(1) - f{j}" for j in range(count)],
            f"        f = {' & '.join(f'f{j}' for j in range(count))}",
            "        used += f",
            *[f"        x{j} = x{j} if f else float32(0)" for j in range(count)],
            *[f"        same{j} += f & int32(x0 == x{j})" for j in range(1, count)],
        ]
        return [
            decorator,
            f"def {'careful' if careful else 'plain'}({views}, floor, sums, counts):",
            *[f"    g{i}_{j} = float32(0)" for i, j in pairs],
            "    energy = float32(0)",
            "    used = int32(0)",
            *[f"    same{j} = int32(0)" for j in range(1, count)],
            *[f"    bad{j} = int32(0)" for j in range(count)],
            "    for i in range(v0.shape[0]):",
            *[f"        x{j} = {decode_expression(dtypes[j], f'v{j}[i]')}" for j in range(count)],
            *(care if careful else [f"        same{j} = int32(same{j} + int32(x0 == x{j}))" for j in range(1, count)]),
            "        p = x1",
            "        y = x0 - x1",
            *[f"        d{j} = x{j} - x1" for j in range(2, count)],
            *[f"        g{i}_{j} += {d[i]} * {d[j]}" for i, j in pairs],
            # The power of two at or below |x|, not below the lattice's floor: 2^mantissa spacings.
            "        u = max(bits_to_float(uint32(float_to_bits(x0) & uint32(0x7F800000))), floor)",
            f"        energy += {'u * u if f else float32(0)' if careful else 'u * u'}",
            *([] if careful else [
                f"    if not np.isfinite({' + '.join(f'g{i}_{i}' for i in range(size))}):",
                "        return False",
                "    used = int32(v0.shape[0])",
            ]),
            *[f"    sums[{k}] += float64(g{i}_{j})" for k, (i, j) in enumerate(pairs)],
            f"    sums[{len(pairs)}] += float64(energy)",
            "    counts[0] += used",
            *[f"    counts[{j}] += same{j}" for j in range(1, count)],
            *[f"    counts[{count + j}] += bad{j}" for j in range(count)],
            "    return True",
            "",
        ]  # fmt: skip

    lines = [
        *loop(careful=False),
        *loop(careful=True),
        '@njit(nogil=True, cache=True, error_model="numpy")',
        f"def gram({', '.join(names)}, floor, sums, counts):",
        f"    for start in range(0, m0.shape[0], {CHUNK}):",
        f"        stop = min(start + {CHUNK}, m0.shape[0])",
        *[f"        v{j} = m{j}[start:stop]" for j in range(count)],
        f"        if not plain({views}, floor, sums, counts):",
        f"            careful({views}, floor, sums, counts)",
    ]
    return "\n".join(lines) + "\n"


@functools.cache
def _function(dtypes: tuple[str, ...]) -> Callable[..., Any]:
    return compiled("gram", _source(dtypes))


def gram(models: Sequence[View], lattice: Lattice) -> GramResult:
    """Moments of suspect, pivot and further sources, in this order; see `gram_reference`."""
    check_views(models)
    count = len(models)
    function = _function(tuple(m.dtype for m in models))
    size = count
    pairs = [(i, j) for i in range(size) for j in range(i, size)]
    sums, counts = np.zeros(len(pairs) + 1), np.zeros(2 * count, np.int64)
    # A floor below 2^-126 would not be a normal number; its square is 0 in float32 either way.
    floor = np.float32(2.0 ** max(lattice.quantum + lattice.mantissa, -126))
    function(*(m.bits for m in models), floor, sums, counts)
    if not np.isfinite(sums).all():
        return _in_float64(models, lattice)
    matrix = np.zeros((size, size))
    for k, (i, j) in enumerate(pairs):
        matrix[i, j] = matrix[j, i] = sums[k]
    energy = float(sums[-1]) * 4.0**-lattice.mantissa / 12
    return GramResult(int(counts[0]), matrix, energy, counts[1:count].copy(), counts[count:].copy())


def _in_float64(models: Sequence[View], lattice: Lattice) -> GramResult:
    """The reference, block by block so that its float64 copies stay small."""
    from reconstruct.kernels import gram_reference  # imports torch, which takes a second

    total = gram_reference.gram([View(m.bits[:_BLOCK], m.dtype) for m in models], lattice)
    for start in range(_BLOCK, len(models[0]), _BLOCK):
        total += gram_reference.gram([View(m.bits[start : start + _BLOCK], m.dtype) for m in models], lattice)
    return total
