"""G = sum d d^T on a GPU: one launch, one pass over memory; deltas and products in registers, float32, no copies.

Each program sums a run of fixed size, so that a result depends neither on the number of multiprocessors nor on the
order in which they finish: lanes (one a thread) sum in float32, a tree joins the lanes, the host joins the runs in
float64. A lane holds one accumulator per product, 55 for 10 models; wide loads are taken apart into the elements of
each lane for that.

The first loop tests nothing: a NaN or an infinity makes the square of its own delta, and so the run's sum, not finite
for good. Only then does the second loop, which tests every element, take the run again. Otherwise it sees the last
elements alone, those that fill no tile. Squares beyond float32 are summed in float64, as on the processor.
"""

# Triton compiles a subset of Python: no starred tuples.
# ruff: noqa: RUF005
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disable-error-code="assignment"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from reconstruct.kernels import gram_reference
from reconstruct.kernels.device import DeviceView, on_device, storage_type
from reconstruct.kernels.device_numbers import (
    CODES,
    POINTERS,
    bits_of,
    decode,
    float_of,
    is_finite,
    load,
    specialisation_label,
)
from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import GramResult, View, check_views

__all__ = ["aot_cases", "gram"]

_BLOCK = 1 << 20


def _shape(dtypes: Sequence[str]) -> dict[str, int]:
    """Lanes of a program (one a thread), elements of a lane in one wide load (16 bytes), loads of a run.

    A run of 2^15 elements gives the 132 multiprocessors of an H100 four programs each for a matrix of 4096 x 4096,
    and its counts and 256 additions per lane are well within float32.
    """
    width = min(8, 16 // min(storage_type(dtype).itemsize for dtype in dtypes))
    return {"LANES": 128, "WIDTH": width, "TILES": 256 // width}


@triton.jit
def _octave(x):
    """The power of two at or below |x|; 0 for zero and subnormal numbers."""
    return float_of(bits_of(x) & 0x7F800000)


@triton.jit
def _columns(x, LANES: tl.constexpr, WIDTH: tl.constexpr):
    """[LANES, WIDTH] -> WIDTH tensors [LANES], in an order that is the same for every model."""
    columns = (x.reshape(LANES, WIDTH, 1),)
    for _ in tl.static_range(WIDTH.bit_length() - 1):
        halves = ()
        for i in tl.static_range(len(columns)):
            halves = halves + tl.split(columns[i].reshape(LANES, columns[i].numel // (2 * LANES), 2))
        columns = halves
    flat = ()
    for i in tl.static_range(WIDTH):
        flat = flat + (columns[i].reshape(LANES),)
    return flat


@triton.jit
def _add(sums, same, values, smallest, weight):
    """One element per lane more: products of deltas, squared octaves, equal elements. `weight` is 0 for none."""
    ds = (values[0] - values[1],)
    for j in tl.static_range(2, len(values)):
        ds = ds + (values[j] - values[1],)
    ds = ds + (values[1],)
    added = ()
    for i in tl.static_range(len(ds)):
        for j in tl.static_range(i, len(ds)):
            added = added + (sums[len(added)] + ds[i] * ds[j],)
    octave = tl.maximum(_octave(values[0]), smallest) * weight
    added = added + (sums[len(added)] + octave * octave,)
    counted = ()
    for j in tl.static_range(1, len(values)):
        counted = counted + (same[j - 1] + tl.where(values[0] == values[j], weight, 0.0),)
    return added, counted


@triton.jit
def _zeros(COUNT: tl.constexpr, LANES: tl.constexpr):
    zeros = ()
    for _ in tl.static_range(COUNT):
        zeros = zeros + (tl.zeros([LANES], tl.float32),)
    return zeros


@triton.jit
def _kept_if(condition, tensors):
    kept = ()
    for k in tl.static_range(len(tensors)):
        kept = kept + (tl.where(condition, tensors[k], 0.0),)
    return kept


@triton.jit
def _joined_sums(x, LANES: tl.constexpr):
    """Eight tensors [LANES] -> their sums [8]: joined, they share the steps and barriers of one reduction."""
    low = tl.join(tl.join(x[0], x[4]), tl.join(x[2], x[6]))
    high = tl.join(tl.join(x[1], x[5]), tl.join(x[3], x[7]))
    return tl.sum(tl.join(low, high).reshape(LANES, 8), axis=0)


@triton.jit(do_not_specialize=["elements"])  # one compilation for tensors of any size
def gram_kernel(
    models,
    elements: tl.int64,
    smallest: tl.float32,
    out,
    FORMATS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    TILES: tl.constexpr,
):
    MODELS: tl.constexpr = len(FORMATS)
    TILE: tl.constexpr = LANES * WIDTH
    row = tl.program_id(0).to(tl.int64)
    start = row * (TILES * TILE)
    left = tl.minimum(elements - start, TILES * TILE).to(tl.int32)
    lane = tl.arange(0, LANES)
    tile = lane[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]

    sums = _zeros(MODELS * (MODELS + 1) // 2 + 1, LANES)
    same = _zeros(MODELS - 1, LANES)
    full = left // TILE
    for t in range(full):
        split = ()
        for j in tl.static_range(MODELS):
            raw = tl.load(models[j] + start + t * TILE + tile)
            split = split + (_columns(decode(raw, FORMATS[j]), LANES, WIDTH),)
        for c in tl.static_range(WIDTH):
            values = ()
            for j in tl.static_range(MODELS):
                values = values + (split[j][c],)
            sums, same = _add(sums, same, values, smallest, 1.0)

    squares = sums[0]
    for i in tl.static_range(1, MODELS):
        squares += sums[i * MODELS - i * (i - 1) // 2]
    sound = is_finite(tl.sum(squares))
    sums = _kept_if(sound, sums)
    same = _kept_if(sound, same)

    tested = tl.where(sound, full * TILE, 0)
    used = tl.where(lane == 0, tested, 0).to(tl.float32)
    bad = _zeros(MODELS, LANES)
    for first in range(tested, left, LANES):
        inside = first + lane < left
        every = inside
        values = ()
        faulty = ()
        for j in tl.static_range(MODELS):
            x = load(models[j] + start + first, lane, inside, FORMATS[j])
            values = values + (x,)
            every = every & is_finite(x)
            faulty = faulty + (bad[j] + tl.where(is_finite(x), 0.0, 1.0),)
        bad = faulty
        clean = ()
        for j in tl.static_range(MODELS):
            clean = clean + (tl.where(every, values[j], 0.0),)
        weight = tl.where(every, 1.0, 0.0)
        used += weight
        sums, same = _add(sums, same, clean, smallest, weight)

    results = sums + same + bad + (used,)
    results = results + _zeros(-len(results) % 8, LANES)
    out += row * len(results)
    for first in tl.static_range(0, len(results), 8):
        tl.store(out + first + tl.arange(0, 8), _joined_sums(results[first : first + 8], LANES))


def _launch(models: Sequence[DeviceView], lattice: Lattice) -> NDArray[np.float32]:
    """What the kernel stores: float32 [runs, quantities]."""
    shape = _shape([m.dtype for m in models])
    elements, run = len(models[0]), shape["LANES"] * shape["WIDTH"] * shape["TILES"]
    runs, quantities = -(-elements // run), len(models) * (len(models) + 5) // 2 + 1
    out = torch.empty((runs, -(-quantities // 8) * 8), dtype=torch.float32, device=models[0].bits.device)
    if runs:
        # The processor that interprets the kernel warns of what the first loop lets happen: infinity minus infinity.
        with torch.cuda.device_of(out), np.errstate(over="ignore", invalid="ignore"):
            gram_kernel[(runs,)](
                tuple(m.bits for m in models), elements, _smallest_octave(lattice), out,
                FORMATS=tuple(CODES[m.dtype] for m in models), **shape, **_options(len(models)),
            )  # fmt: skip
    return np.asarray(out.cpu().numpy()[:, :quantities])


def gram(models: Sequence[View | DeviceView], lattice: Lattice) -> GramResult:
    """Moments of suspect, pivot and further sources, in this order; see `gram_reference`."""
    check_views(models)
    count = len(models)
    totals = _launch(on_device(models), lattice).sum(axis=0, dtype=np.float64)
    upper = np.triu_indices(count)
    products, energy, counts = np.split(totals, [len(upper[0]), len(upper[0]) + 1])
    if not np.isfinite([*products, *energy]).all():
        return _in_float64(models, lattice)
    matrix = np.zeros((count, count))
    matrix[upper] = products
    matrix.T[upper] = products
    identical, nonfinite, (used,) = np.split(counts.astype(np.int64), [count - 1, 2 * count - 1])
    return GramResult(int(used), matrix, float(energy[0]) * 4.0**-lattice.mantissa / 12, identical, nonfinite)


def _in_float64(models: Sequence[View | DeviceView], lattice: Lattice) -> GramResult:
    """The reference on the host, block by block so that its float64 copies stay small."""
    starts = range(0, len(models[0]), _BLOCK)
    blocks = [gram_reference.gram([_on_host(m, start, start + _BLOCK) for m in models], lattice) for start in starts]
    return sum(blocks[1:], blocks[0])


def _on_host(model: View | DeviceView, start: int, stop: int) -> View:
    bits = model.bits[start:stop]
    array = bits.cpu().numpy() if isinstance(bits, torch.Tensor) else bits
    return View(array.view(FLOAT_FORMATS[model.dtype].storage), model.dtype)


def _smallest_octave(lattice: Lattice) -> float:
    """Where numbers are smaller, the spacing is as at this one. Not subnormal: their squares are 0 in any case."""
    return float(2.0 ** min(max(lattice.quantum + lattice.mantissa, -126), 127))


def aot_cases() -> list[tuple[str, Any, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Label, kernel, signature, constants and options of specialisations to compile ahead of time."""
    mixtures = [[dtype] * 3 for dtype in CODES] + [["BF16"] * count for count in (2, 4, 6, 8, 10)]
    mixtures += [["F32"] * 10, ["F16"] * 10, ["F64"] * 10, ["BF16", "F32", "F16", "BF16"], ["F64", "F8_E4M3", "F16"]]
    return [(specialisation_label(dtypes), gram_kernel, *_specialisation(dtypes)) for dtypes in mixtures]


def _options(models: int) -> dict[str, Any]:
    """Multiplication and addition may fuse here: a product enters its sum unrounded, which only takes error away.

    Left to itself, the assembler gives 10 models of bf16 199 registers on sm_80; within 168, three programs share a
    multiprocessor, and nothing spills.
    """
    return {"num_warps": 4, "enable_fp_fusion": True} | ({"maxnreg": 168} if models == 10 else {})


def _specialisation(dtypes: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    shape = _shape(dtypes)
    pointers = tuple(POINTERS[dtype] for dtype in dtypes)
    signature = {"models": pointers, "elements": "i64", "smallest": "fp32", "out": "*fp32"}
    constants = {"FORMATS": tuple(CODES[dtype] for dtype in dtypes), **shape}
    return signature | dict.fromkeys(constants, "constexpr"), constants, _options(len(dtypes))
