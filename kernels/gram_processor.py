"""G = sum d d^T in one pass over memory: deltas and products in registers, float32 within a chunk, float64 across.

Squares of numbers below 2^-75 are 0 in float32, which no weight that matters is. Squares of numbers above 2^64
overflow; then (a damaged weight is enough) the sums are taken again in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reconstruct.kernels import gram_reference
from reconstruct.kernels.generate import CHUNK, compiled, decode_expression, finite_expression
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import GramResult, View, check_views

__all__ = ["gram"]

_BLOCK = 1 << 20


def _source(dtypes: tuple[str, ...]) -> str:
    count = len(dtypes)
    names = [f"m{j}" for j in range(count)]
    d = ["y", *[f"d{j}" for j in range(2, count)], "p"]
    size = len(d)
    pairs = [(i, j) for i in range(size) for j in range(i, size)]
    lines = [
        '@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})',
        f"def gram({', '.join(names)}, mantissa, smallest, sums, counts):",
        "    n = m0.shape[0]",
        f"    for start in range(0, n, {CHUNK}):",
        f"        stop = min(start + {CHUNK}, n)",
        *[f"        v{j} = m{j}[start:stop]" for j in range(count)],
        *[f"        g{i}_{j} = float32(0)" for i, j in pairs],
        "        energy = float32(0)",
        "        used = int32(0)",
        *[f"        same{j} = int32(0)" for j in range(1, count)],
        *[f"        bad{j} = int32(0)" for j in range(count)],
        "        for i in range(stop - start):",
        *[f"            x{j} = {decode_expression(dtypes[j], f'v{j}[i]')}" for j in range(count)],
        *[f"            f{j} = int32({finite_expression([f'x{j}'])})" for j in range(count)],
        *[f"            bad{j} += int32(1) - f{j}" for j in range(count)],
        f"            f = {' & '.join(f'f{j}' for j in range(count))}",
        "            used += f",
        *[f"            x{j} = x{j} if f else float32(0)" for j in range(count)],
        *[f"            same{j} += f & int32(x0 == x{j})" for j in range(1, count)],
        "            p = x1",
        "            y = x0 - x1",
        *[f"            d{j} = x{j} - x1" for j in range(2, count)],
        *[f"            g{i}_{j} += {d[i]} * {d[j]}" for i, j in pairs],
        "            e = int32((float_to_bits(x0) & uint32(0x7F800000)) >> uint32(23)) - mantissa",
        "            e = max(e, int32(1))",
        "            u = max(bits_to_float(uint32(e) << uint32(23)), smallest)",
        "            energy += u * u if f else float32(0)",
        *[f"        sums[{k}] += float64(g{i}_{j})" for k, (i, j) in enumerate(pairs)],
        f"        sums[{len(pairs)}] += float64(energy)",
        "        counts[0] += used",
        *[f"        counts[{j}] += same{j}" for j in range(1, count)],
        *[f"        counts[{count + j}] += bad{j}" for j in range(count)],
    ]
    return "\n".join(lines) + "\n"


def gram(models: Sequence[View], lattice: Lattice) -> GramResult:
    """Moments of suspect, pivot and further sources, in this order; see `gram_reference`."""
    check_views(models)
    count = len(models)
    function = compiled("gram", _source(tuple(m.dtype for m in models)))
    size = count
    pairs = [(i, j) for i in range(size) for j in range(i, size)]
    sums, counts = np.zeros(len(pairs) + 1), np.zeros(2 * count, np.int64)
    # A step below 2^-126 would not be a normal number; its square is 0 in float32 either way.
    smallest = np.float32(2.0 ** max(lattice.quantum, -126))
    function(*(m.bits for m in models), np.int32(lattice.mantissa), smallest, sums, counts)
    if not np.isfinite(sums).all():
        return _in_float64(models, lattice)
    matrix = np.zeros((size, size))
    for k, (i, j) in enumerate(pairs):
        matrix[i, j] = matrix[j, i] = sums[k]
    return GramResult(int(counts[0]), matrix, float(sums[-1]) / 12, counts[1:count].copy(), counts[count:].copy())


def _in_float64(models: Sequence[View], lattice: Lattice) -> GramResult:
    """The reference, block by block so that its float64 copies stay small."""
    total = gram_reference.gram([View(m.bits[:_BLOCK], m.dtype) for m in models], lattice)
    for start in range(_BLOCK, len(models[0]), _BLOCK):
        total += gram_reference.gram([View(m.bits[start : start + _BLOCK], m.dtype) for m in models], lattice)
    return total
