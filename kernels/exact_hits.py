"""How many elements of a sample each of many coefficient vectors reproduces, in any formula: what a search asks.

A search tries every named arithmetic on a few thousand elements. A kernel generated for each formula would have to be
compiled for each; this one is compiled once, chooses the formula at run time, and only counts what is identical. Its
predictions are those of `replay_reference.predict`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from reconstruct.kernels.formulas import FORMULAS, WORKING_FORMATS, Formula
from reconstruct.kernels.intrinsics import bits_to_float, float_to_bits, fma32
from reconstruct.kernels.lattice import Lattice, working_coefficients

__all__ = ["exact_hits"]

_DELTA, _SUM, _FUSED, _STACK, _TASK, _LERP = range(len(FORMULAS))  # in the order of FORMULAS
_LARGEST_HALF = np.float32(65504)


_BLOCK = 2048  # elements whose predictions are formed at once, step by step, in the first-level cache


@njit(cache=True, nogil=True)
def _to_working(x: Any, mantissa: Any) -> None:
    """Round float32 numbers in place to bfloat16 (7 mantissa bits) or float16 (10), or leave them (23)."""
    one = types.uint32(1)
    if mantissa == 7:
        for i in range(len(x)):
            bits = float_to_bits(x[i])
            odd = types.uint32(types.uint32(bits >> types.uint32(16)) & one)
            x[i] = bits_to_float(types.uint32((bits + types.uint32(0x7FFF) + odd) & types.uint32(0xFFFF0000)))
    elif mantissa == 10:
        for i in range(len(x)):
            value = x[i]
            bits = float_to_bits(value)
            odd = types.uint32(types.uint32(bits >> types.uint32(13)) & one)
            y = bits_to_float(types.uint32((bits + types.uint32(0xFFF) + odd) & types.uint32(0xFFFFE000)))
            # Subnormal halves are multiples of 2^-24.
            small = np.float32(np.rint(value * np.float32(2.0**24)) * np.float32(2.0**-24))
            y = small if abs(value) < np.float32(2.0**-14) else y
            x[i] = y if abs(y) <= _LARGEST_HALF else value * np.float32(np.inf)


@njit(cache=True, nogil=True)
def _wide(sources: Any, c: Any, divisor: Any, order: Any, total: Any) -> None:
    """Predictions in float64: delta or sum."""
    for i in range(len(total)):
        total[i] = 0.0
    if order == _DELTA:
        for i in range(len(total)):
            total[i] = sources[0, i]
    for j in range(1 if order == _DELTA else 0, len(c)):
        factor = c[j]
        if factor == 0:
            continue
        if order == _DELTA:
            for i in range(len(total)):
                total[i] += factor * (np.float64(sources[j, i]) - np.float64(sources[0, i]))
        else:
            for i in range(len(total)):
                total[i] += factor * np.float64(sources[j, i])
    if order == _SUM and divisor != 1:
        for i in range(len(total)):
            total[i] = total[i] / divisor


@njit(cache=True, nogil=True)
def _moved(sources: Any, c: Any, order: Any, mantissa: Any, total: Any, base: Any, term: Any) -> None:
    """Predictions in float32 of the formulas that add to the pivot: delta, task."""
    for i in range(len(base)):
        base[i] = sources[0, i]
    _to_working(base, mantissa)
    for i in range(len(total)):
        total[i] = base[i] if order == _DELTA else np.float32(0)
    for j in range(1, len(c)):
        factor = c[j]
        if factor == 0:
            continue
        for i in range(len(term)):
            term[i] = sources[j, i]
        _to_working(term, mantissa)
        for i in range(len(total)):
            term[i] = term[i] - base[i]
        _to_working(term, mantissa)
        for i in range(len(total)):
            term[i] = factor * term[i]
        _to_working(term, mantissa)
        for i in range(len(total)):
            total[i] += term[i]
    if order == _TASK:
        _to_working(total, mantissa)
        for i in range(len(total)):
            total[i] += base[i]
        _to_working(total, mantissa)


@njit(cache=True, nogil=True)
def _lerp(sources: Any, weight: Any, total: Any) -> None:
    """Predictions in float32 between the first two sources."""
    for i in range(len(total)):
        gap = sources[1, i] - sources[0, i]
        if abs(weight) < np.float32(0.5):
            total[i] = fma32(weight, gap, sources[0, i])
        else:
            total[i] = fma32(weight - np.float32(1), gap, sources[1, i])


@njit(cache=True, nogil=True)
def _weighted(sources: Any, c: Any, divisor: Any, order: Any, mantissa: Any, total: Any, term: Any) -> None:
    """Predictions in float32 of the formulas that weigh all models: sum, fused, stack (sum in a working format)."""
    for i in range(len(total)):
        total[i] = np.float32(0)
    for j in range(len(c)):
        factor = c[j]
        if order == _FUSED:
            for i in range(len(total)):
                total[i] = fma32(factor, sources[j, i], total[i])
        elif factor != 0:
            for i in range(len(term)):
                term[i] = sources[j, i]
            _to_working(term, mantissa)
            for i in range(len(total)):
                term[i] = factor * term[i]
            _to_working(term, mantissa)
            for i in range(len(total)):
                total[i] += term[i]
    _to_working(total, mantissa)
    if divisor != 1:
        for i in range(len(total)):
            total[i] = total[i] / divisor
        _to_working(total, mantissa)


@njit(cache=True, nogil=True)
def _on_lattice(x: Any, mantissa: Any, quantum: Any) -> Any:
    """Nearest lattice number of a float64, ties to even: float32."""
    magnitude = abs(x)
    if not magnitude < np.inf:
        return np.float32(x)
    _, exponent = math.frexp(magnitude)
    step = math.ldexp(1.0, max(exponent - 1 - mantissa, quantum) if magnitude > 0 else quantum)
    return np.float32(np.rint(x / step) * step)


@njit(cache=True, nogil=True)
def _equal(raw: Any, target: Any, mantissa: Any, quantum: Any) -> Any:
    """How many float32 predictions are the target's numbers once rounded to the lattice."""
    # Rounding a number of ordinary size is a matter of its bits; zero and what is near it take the long way.
    drop = types.uint32(23 - mantissa)
    last = types.uint32(types.uint32(1) << drop) if mantissa < 23 else types.uint32(0)
    half = types.uint32((types.uint32(1) << drop) >> types.uint32(1)) if mantissa < 23 else types.uint32(1)
    below = types.uint32(half - types.uint32(1))
    mask = types.uint32(~types.uint32(types.uint32(types.uint32(1) << drop) - types.uint32(1)))
    least = max(mantissa + 1, quantum + 127 + mantissa) if mantissa > 0 else 256
    lowest = types.uint32(min(least, 255) << 23)
    highest = types.uint32(254 << 23)
    count = np.int32(0)
    odd_ones = np.int32(0)
    for i in range(len(raw)):
        bits = float_to_bits(raw[i])
        size = types.uint32(bits & types.uint32(0x7FFFFFFF))
        usual = (size >= lowest) & (size < highest)
        odd = types.uint32(1) if types.uint32(bits & last) != types.uint32(0) else types.uint32(0)
        predicted = bits_to_float(types.uint32(types.uint32(bits + types.uint32(below + odd)) & mask))
        count = np.int32(count + np.int32(usual & (predicted == target[i])))
        odd_ones = np.int32(odd_ones + np.int32(not usual))
    if odd_ones > 0:
        for i in range(len(raw)):
            size = types.uint32(float_to_bits(raw[i]) & types.uint32(0x7FFFFFFF))
            if not ((size >= lowest) & (size < highest)):
                count += _on_lattice(np.float64(raw[i]), mantissa, quantum) == target[i]
    return count


@njit(cache=True, nogil=True)
def _count(target: Any, models: Any, wide: Any, narrow: Any, divisors: Any, facts: Any, found: Any) -> None:
    order, working, mantissa, quantum = facts[0], facts[1], facts[2], facts[3]
    total, base, term = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    exact = np.empty(_BLOCK, np.float64)
    for start in range(0, len(target), _BLOCK):
        n = min(_BLOCK, len(target) - start)
        sources, goal = models[:, start : start + n], target[start : start + n]
        for v in range(len(found)):
            if working > 23:
                _wide(sources, wide[v], divisors[v], order, exact[:n])
                for i in range(n):
                    found[v] += _on_lattice(exact[i], mantissa, quantum) == goal[i]
                continue
            if order == _LERP:
                _lerp(sources, narrow[v, 1], total[:n])
            elif order in (_DELTA, _TASK):
                _moved(sources, narrow[v], order, working, total[:n], base[:n], term[:n])
            else:
                _weighted(sources, narrow[v], np.float32(divisors[v]), order, working, total[:n], term[:n])
            found[v] += _equal(total[:n], goal, mantissa, quantum)


def exact_hits(
    values: NDArray[np.float32],
    lattice: Lattice,
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
    order: Sequence[int],
) -> NDArray[np.int64]:
    """Elements of a sample that each of V coefficient vectors reproduces, int64 [V].

    `values` float32 [S+1, n]: target and sources; `order`: positions of the sources as the formula takes them, of which
    `coefficients` [V, S] are; `divisors` [V].
    """
    narrow, scale = working_coefficients(coefficients, divisors, formula)
    facts = np.array([
        FORMULAS.index(formula.order), WORKING_FORMATS[formula.working], lattice.mantissa, lattice.quantum,
    ])  # fmt: skip
    found = np.zeros(len(coefficients), np.int64)
    _count(
        np.ascontiguousarray(values[0]), values[[1 + j for j in order]], np.ascontiguousarray(coefficients),
        np.ascontiguousarray(narrow, dtype=np.float32), np.ascontiguousarray(scale, dtype=np.float64), facts, found,
    )  # fmt: skip
    return found
