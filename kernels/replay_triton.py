"""Predict, round, compare and count on a GPU, for up to four coefficient vectors a launch's program; see `formulas`.

A program takes a run of tiles; a tile is loaded and decoded once for its vectors, and once more, from the cache, for
the next four. Nothing is shared between programs: each stores its own counts, and the host (int64, float64) adds them.

Two forms of the comparison. The wide one is float64 throughout, for any numbers. The narrow one is float32, and exact:
differences of numbers with at most 11 significant bits are exact where they decide about a stratum or a step, and a
tile in which float32 might decide otherwise than float64 (NaN, tiny or huge numbers, a residual within 2^-20 of the
box's edge, the ragged end) is left to the wide form: the narrow kernel sets one bit a tile and vector, and a second
launch takes those tiles alone. Among weights of language models they are few.

Nearly all novel elements of the true recipe fall into one column of `steps`, that of step 0. `tl.histogram` counts with
atomics in shared memory, which would wait for each other there; so this column is counted in registers, 4 bits a
stratum and tile, 8 bits a program, and only a tile that holds another step enters the histogram, with these elements
alone. Flags (exact, close, inside) are bytes of one register. The counts, not memory, bound the speed.
"""

# ruff: noqa: RUF005
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disable-error-code="assignment"

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from reconstruct.kernels.device import DeviceView, on_device
from reconstruct.kernels.device_numbers import CODES, POINTERS, decode, float_of, is_finite, load
from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.lattice import Lattice, working_coefficients
from reconstruct.kernels.replay_device import (
    BINS,
    CARE,
    COUNTS,
    STORED,
    add_steps,
    any_bits,
    compare_narrow,
    compare_wide,
    finish,
    hot_strata,
    needs_care,
    numbers,
    predict,
    prepare,
    round_narrow,
    zeros,
)
from reconstruct.kernels.results import MAXIMUM_STEPS, STRATA, ReplayResult, View, check_replay

__all__ = ["aot_cases", "replay"]


@triton.jit(do_not_specialize=["count", "tiles", "vectors", "mantissa", "quantum_bits"])
def narrow(
    models, weights, divisors, bounds, care, counts, energies, steps, count, tiles, vectors,
    mantissa, quantum_bits, zone, magic, least,
    CODES: tl.constexpr, ORDER: tl.constexpr, WORKING: tl.constexpr, DIVIDE: tl.constexpr, COARSE: tl.constexpr,
    ON_LATTICE: tl.constexpr, GROUP: tl.constexpr, LANES: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """A run of whole tiles in float32. `care` receives one bit for each tile that the wide kernel must take instead."""
    SOURCES: tl.constexpr = len(CODES) - 1
    TILE: tl.constexpr = LANES * EACH
    drop = 23 - mantissa
    first = tl.program_id(0).to(tl.int64) * tiles * TILE
    whole = tl.minimum(tl.maximum(count - first, 0) // TILE, tiles).to(tl.int32)
    ragged = (whole < tiles) & (first + whole * TILE < count)
    offsets = tl.arange(0, LANES)[:, None] * EACH + tl.arange(0, EACH)[None, :]
    flags, even, odd = zeros(GROUP, LANES, tl.int32), zeros(GROUP, LANES, tl.int32), zeros(GROUP, LANES, tl.int32)
    energy, histogram = zeros(GROUP, LANES, tl.float64), zeros(GROUP, BINS, tl.int32)
    marks, one = (), tl.full([], 1, tl.int64)
    for _ in tl.static_range(GROUP):
        marks = marks + (tl.where(ragged, one << whole, 0),)
    for tile in range(whole):
        start = first + tile * TILE
        suspect = decode(tl.load(models[0] + start + offsets), CODES[0])
        sources, rounded = (), ()
        for j in tl.static_range(SOURCES):
            source = decode(tl.load(models[j + 1] + start + offsets), CODES[j + 1])
            sources = sources + (source,)
            if not ON_LATTICE:
                rounded = rounded + (round_narrow(source, drop, zone, magic, COARSE),)
        unit, tiny, special = needs_care(suspect, sources, mantissa, quantum_bits, least)
        special = tl.max(tl.where(special, CARE, 0), 1)
        prepared = prepare(sources, ORDER, WORKING, False)
        new_flags, new_even, new_odd, new_energy, new_histogram, new_marks = (), (), (), (), (), ()
        for v in tl.static_range(GROUP):
            vector = tl.program_id(1) * GROUP + v
            raw = predict(
                prepared, numbers(weights, vector, SOURCES), tl.load(divisors + vector), ORDER, WORKING, DIVIDE, False
            )
            predicted = round_narrow(raw, drop, zone, magic, COARSE)
            flag, exact, novel, stratum, difference, spacing, residual = compare_narrow(
                suspect, sources, rounded, raw, predicted, unit, tiny,
                tl.load(bounds + 2 * vector), tl.load(bounds + 2 * vector + 1), mantissa, quantum_bits,
                WORKING == "float16",
            )  # fmt: skip
            flag = tl.sum(flag, 1)
            state = any_bits(((flag >> 24) & 0xFF) | special)
            keep = state < CARE
            steps_now = histogram[v]
            if keep & (state != 0):
                inverse = float_of(((254 << 23) - spacing).to(tl.uint32))
                size = tl.abs(difference) * inverse + 0.5
                steps_now = add_steps(steps_now, novel & ~exact, stratum, size, difference < 0)
            hot = tl.where(keep, hot_strata(novel & exact, stratum), 0)
            new_flags = new_flags + (flags[v] + tl.where(keep, (flag & 0xFFFFFF) + (EACH << 24), 0),)
            new_even = new_even + (even[v] + (hot & 0x0F0F0F0F),)
            new_odd = new_odd + (odd[v] + ((hot >> 4) & 0x0F0F0F0F),)
            new_energy = new_energy + (energy[v] + tl.where(keep, tl.sum(residual * residual, 1), 0.0).to(tl.float64),)
            new_histogram = new_histogram + (steps_now,)
            new_marks = new_marks + (marks[v] | tl.where(keep, 0, one << tile),)
        flags, even, odd, energy, histogram, marks = (
            new_flags, new_even, new_odd, new_energy, new_histogram, new_marks
        )  # fmt: skip
    for v in tl.static_range(GROUP):
        slot = tl.program_id(0).to(tl.int64) * vectors + tl.program_id(1) * GROUP + v
        tl.store(care + slot, marks[v])
        finish(counts, energies, steps, flags[v], even[v], odd[v], energy[v], histogram[v], slot, False)


@triton.jit(do_not_specialize=["count", "tiles", "vectors", "mantissa", "quantum"])
def wide(
    models, weights, divisors, shares, care, counts, energies, steps, count, tiles, vectors, mantissa, quantum,
    CODES: tl.constexpr, ORDER: tl.constexpr, WORKING: tl.constexpr, DIVIDE: tl.constexpr,
    GROUP: tl.constexpr, LANES: tl.constexpr, EACH: tl.constexpr, RATIO: tl.constexpr,
):  # fmt: skip
    """A run of tiles in float64. RATIO 0: all of them; else those that the narrow kernel marked, whose tiles are RATIO
    times as long; GROUP is 1 then.
    """
    SOURCES: tl.constexpr = len(CODES) - 1
    TILE: tl.constexpr = LANES * EACH
    first = tl.program_id(0).to(tl.int64) * tiles * TILE
    here = tl.minimum((tl.maximum(count - first, 0) + TILE - 1) // TILE, tiles).to(tl.int32)
    offsets = tl.arange(0, LANES)[:, None] * EACH + tl.arange(0, EACH)[None, :]
    flags, even, odd = zeros(GROUP, LANES, tl.int32), zeros(GROUP, LANES, tl.int32), zeros(GROUP, LANES, tl.int32)
    energy, histogram = zeros(GROUP, LANES, tl.float64), zeros(GROUP, BINS, tl.int32)
    marks = -1
    if RATIO > 0:
        marks = tl.load(care + tl.program_id(0).to(tl.int64) * vectors + tl.program_id(1))
        here = tl.where(marks == 0, 0, here)
    for tile in range(here):
        if RATIO == 0 or (marks >> (tile // max(RATIO, 1))) & 1 != 0:
            start = first + tile * TILE
            mask = offsets < count - start
            suspect = load(models[0] + start, offsets, mask, CODES[0])
            finite = mask & is_finite(suspect)
            sources = ()
            for j in tl.static_range(SOURCES):
                source = load(models[j + 1] + start, offsets, mask, CODES[j + 1])
                sources = sources + (source,)
                finite = finite & is_finite(source)
            prepared = prepare(sources, ORDER, WORKING, True)
            new_flags, new_even, new_odd, new_energy, new_histogram = (), (), (), (), ()
            for v in tl.static_range(GROUP):
                vector = tl.program_id(1) * GROUP + v
                raw = predict(
                    prepared, numbers(weights, vector, SOURCES), tl.load(divisors + vector),
                    ORDER, WORKING, DIVIDE, True,
                )  # fmt: skip
                flag, exact, novel, stratum, difference, inverse, residual = compare_wide(
                    suspect, sources, finite, raw, tl.load(shares + vector), mantissa, quantum
                )
                rest = novel & ~exact
                steps_now = histogram[v]
                if any_bits(tl.max(tl.where(rest, 1, 0), 1)) != 0:
                    steps_now = add_steps(steps_now, rest, stratum, tl.abs(difference) * inverse + 0.5, difference < 0)
                hot = hot_strata(novel & exact, stratum)
                new_flags = new_flags + (flags[v] + tl.sum(flag, 1),)
                new_even = new_even + (even[v] + (hot & 0x0F0F0F0F),)
                new_odd = new_odd + (odd[v] + ((hot >> 4) & 0x0F0F0F0F),)
                new_energy = new_energy + (energy[v] + tl.sum(residual * residual, 1),)
                new_histogram = new_histogram + (steps_now,)
            flags, even, odd, energy, histogram = new_flags, new_even, new_odd, new_energy, new_histogram
    if marks != 0:
        for v in tl.static_range(GROUP):
            slot = tl.program_id(0).to(tl.int64) * vectors + tl.program_id(1) * GROUP + v
            finish(counts, energies, steps, flags[v], even[v], odd[v], energy[v], histogram[v], slot, RATIO > 0)


def _shape(*, narrow: bool) -> dict[str, int]:
    """Lanes of a program (one a thread) and elements of a lane in a tile: few enough for three programs of four vectors
    on a multiprocessor at once.
    """
    return {"LANES": 128, "EACH": 4 if narrow else 2}


def _run(count: int, shape: dict[str, int]) -> int:
    """Tiles of a program: many programs for small tensors, few stores for large ones; no more than a lane's bytes can
    count, nor than `care` has bits.
    """
    tiles = math.ceil(count / (shape["LANES"] * shape["EACH"]))
    return min(max(tiles // 1024, 4), 248 // shape["EACH"])


def _is_narrow(
    dtypes: Sequence[str],
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
    lattice: Lattice,
) -> bool:
    """Whether float32 decides as float64 does, but for tiles that are marked; see `replay_device`.

    Up to 10 mantissa bits in models and lattice, so that differences near a threshold have 24 bits at most; at least
    6 in the lattice, so that 32 spacings are less than the prediction, and nothing far smaller can decide; in a coarse
    lattice no model has much finer steps; and nothing overflows on the way.
    """
    formats = [FLOAT_FORMATS[dtype] for dtype in dtypes]
    if formula.working == "float64" or max(f.mantissa for f in formats) > 10 or not 6 <= lattice.mantissa <= 10:
        return False
    if _is_coarse(lattice) and (lattice.quantum > 60 or min(f.quantum for f in formats) < lattice.quantum - 13):
        return False
    # Numbers up to 2^40 then make predictions up to 2^60, whose squares float32 can add.
    sizes, scale = np.abs(coefficients).sum(axis=1), np.abs(divisors)
    return bool(((sizes <= 2.0**18) & (sizes <= 2.0**18 * scale) & (scale >= 2.0**-30)).all())


def _is_coarse(lattice: Lattice) -> bool:
    """Whether ordinary weights can fall below the sizes where the lattice's step is constant."""
    return lattice.mantissa + lattice.quantum > -100


def _constants(lattice: Lattice) -> tuple[int, int, float, float, float]:
    """Mantissa bits, bits of the smallest spacing, and for `round_narrow` and `needs_care`: zone, magic, least."""
    mantissa, quantum = lattice.mantissa, lattice.quantum
    if _is_coarse(lattice):
        return mantissa, (quantum + 127) << 23, 2.0 ** (quantum + mantissa), 1.5 * 2.0 ** (quantum + 23), 0.0
    return mantissa, 1 << 23, 0.0, 0.0, 2.0 ** max(mantissa - 126, quantum + mantissa)


def replay(
    models: Sequence[View | DeviceView],
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
    lattice: Lattice,
) -> ReplayResult:
    """Compare the suspect with predictions from the other models for V coefficient vectors; see `replay_reference`."""
    check_replay(models, coefficients, divisors, formula)
    result = ReplayResult.empty(len(coefficients))
    count, vectors = len(models[0]), len(coefficients)
    if count == 0 or vectors == 0:
        return result
    views = on_device(models)
    device = views[0].bits.device
    dtypes = tuple(view.dtype for view in views)
    is_narrow = _is_narrow(dtypes, coefficients, divisors, formula, lattice)
    groups = math.ceil(vectors / _vectors(len(views), narrow=is_narrow))
    group = math.ceil(vectors / groups)
    shape, ratio = _shape(narrow=is_narrow), 0
    tiles = _run(count, shape)
    programs = math.ceil(count / (tiles * shape["LANES"] * shape["EACH"]))
    rows = groups * group

    def upload(array: NDArray[np.floating]) -> torch.Tensor:
        """One row a vector; those that fill the last group are zero."""
        padded = np.zeros((rows, *array.shape[1:]), array.dtype)
        padded[:vectors] = array
        return torch.from_numpy(padded).to(device)

    weights, scale = working_coefficients(coefficients, divisors, formula)
    scale = np.concatenate([scale, np.ones(rows - vectors, scale.dtype)])
    shares = 0.5 + 0.5 * np.abs(coefficients / divisors[:, None]).sum(axis=1) + 1e-3
    most = tiles * shape["LANES"] * shape["EACH"]
    care = torch.empty((programs, rows), dtype=torch.int64, device=device)
    counts = torch.empty((programs, rows, int(COUNTS)), dtype=torch.int32, device=device)
    energies = torch.empty((programs, rows), dtype=torch.float64, device=device)
    histograms = torch.empty(
        (programs, rows, int(STORED)), dtype=torch.int16 if most < 2**15 else torch.int32, device=device
    )
    inputs = (tuple(view.bits for view in views), upload(weights), torch.from_numpy(scale).to(device))
    outputs = (care, counts, energies, histograms)
    options: dict[str, Any] = {
        "CODES": tuple(CODES[dtype] for dtype in dtypes), "ORDER": formula.order, "WORKING": formula.working,
        "DIVIDE": bool((divisors != 1).any()),
    }  # fmt: skip
    # Triton launches on the current device.
    current = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with current, np.errstate(all="ignore"):  # the interpreter computes with numpy; overflow is part of the meaning
        if is_narrow:
            bounds = (shares[:, None] * np.array([1 - 2.0**-20, 1 + 2.0**-20])).astype(np.float32)
            narrow[(programs, groups)](
                *inputs, upload(bounds), *outputs, count, tiles, rows, *_constants(lattice), **options, **shape,
                COARSE=_is_coarse(lattice), ON_LATTICE=all(lattice.holds(dtype) for dtype in dtypes[1:]), GROUP=group,
                **_options(shape, group, narrow=True),
            )  # fmt: skip
            ratio = shape["EACH"] // 2
            shape = shape | {"EACH": 2}
            groups, group, tiles = vectors, 1, tiles * ratio
        wide[(programs, groups)](
            *inputs, upload(shares), *outputs, count, tiles, rows, lattice.mantissa, lattice.quantum,
            **options, **shape, GROUP=group, RATIO=ratio, **_options(shape, group, narrow=False),
        )  # fmt: skip
    _collect(result, counts, energies, histograms)
    return result


def _vectors(models: int, *, narrow: bool) -> int:
    """Coefficient vectors of a program, at most: what 255 registers hold without spilling."""
    return 4 if narrow or models <= 5 else 2


def _options(shape: dict[str, int], group: int, *, narrow: bool) -> dict[str, Any]:
    """Every operation is rounded by itself: nothing may fuse. ptxas would rather spill than exceed 168 registers."""
    options: dict[str, Any] = {"num_warps": max(1, min(8, shape["LANES"] // 32)), "enable_fp_fusion": False}
    return options if narrow or group == 1 else options | {"maxnreg": 255}


def _collect(result: ReplayResult, counts: torch.Tensor, energies: torch.Tensor, histograms: torch.Tensor) -> None:
    """Sum over programs: integers on the device (any order gives the same), energies on the host."""
    vectors = len(result.total)
    fields = counts.sum(dim=0, dtype=torch.int64).cpu().numpy()[:vectors]
    result.energy[:] = energies.cpu().numpy()[:, :vectors].sum(axis=0)
    bins = len(STRATA) * (2 * MAXIMUM_STEPS + 1)
    steps = histograms.sum(dim=0, dtype=torch.int64).cpu().numpy()[:vectors, :bins]
    result.steps[:] = steps.reshape(result.steps.shape)
    result.steps[:, :, MAXIMUM_STEPS] += fields[:, 4 : 4 + len(STRATA)]
    result.exact[:], result.close[:], result.inside_box[:], result.total[:] = fields[:, :4].T
    result.novel[:] = result.steps.sum(axis=(1, 2))


def aot_cases() -> list[tuple[str, Any, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Label, kernel, signature, constants and options of specialisations to compile ahead of time."""
    delta, double, half = Formula("delta", "float32"), Formula("delta", "float64"), Formula("task", "float16")
    formulas = [
        delta, Formula("sum", "float32"), Formula("fused", "float32"), Formula("stack", "bfloat16"),
        Formula("task", "bfloat16"), Formula("lerp", "float32"),
    ]  # fmt: skip
    cases = [_case(("BF16",) * n, formula, group) for formula in formulas for n in (3, 4) for group in (1, 4)]
    for dtype, models, formula in (
        ("F16", 4, half), ("F32", 4, delta), ("BF16", 10, delta), ("F16", 10, half), ("BF16", 4, double),
        ("F32", 10, double),
    ):  # fmt: skip
        cases += [_case((dtype,) * models, formula, group) for group in (1, 4 if (dtype, models) != ("F32", 10) else 2)]
    return [*cases, _case(("BF16",) * 4, delta, 1, ratio=2), _case(("BF16",) * 10, half, 1, ratio=2)]


def _case(
    dtypes: tuple[str, ...], formula: Formula, group: int, ratio: int = 0
) -> tuple[str, Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    lattice = Lattice.of_dtype(dtypes[0])
    once = np.ones((1, len(dtypes) - 1))
    is_narrow = not ratio and _is_narrow(dtypes, once, np.ones(1), formula, lattice)
    kernel: Any = narrow if is_narrow else wide
    number = "*fp64" if formula.working == "float64" else "*fp32"
    signature: dict[str, Any] = {
        "models": tuple(POINTERS[dtype] for dtype in dtypes), "weights": number, "divisors": number,
        "bounds" if is_narrow else "shares": "*fp32" if is_narrow else "*fp64",
        "care": "*i64", "counts": "*i32", "energies": "*fp64", "steps": "*i16",
        "count": "i32", "tiles": "i32", "vectors": "i32", "mantissa": "i32",
    }  # fmt: skip
    shape = _shape(narrow=is_narrow)
    constants: dict[str, Any] = {
        "CODES": tuple(CODES[dtype] for dtype in dtypes), "ORDER": formula.order, "WORKING": formula.working,
        "DIVIDE": formula.order in {"sum", "fused", "stack"},
    }  # fmt: skip
    if is_narrow:
        signature |= {"quantum_bits": "i32", "zone": "fp32", "magic": "fp32", "least": "fp32"}
        constants |= {
            "COARSE": _is_coarse(lattice),
            "ON_LATTICE": all(lattice.holds(dtype) for dtype in dtypes[1:]),
            "GROUP": group,
            **shape,
        }
    else:
        signature |= {"quantum": "i32"}
        constants |= {"GROUP": group, **shape, "RATIO": ratio}
    signature |= dict.fromkeys(constants, "constexpr")
    form = "narrow" if is_narrow else "marked" if ratio else "wide"
    label = f"{form} {formula.order}-{formula.working} {len(dtypes)} x {dtypes[0]}, {group} vectors"
    return label, kernel, signature, constants, _options(shape, group, narrow=is_narrow)
