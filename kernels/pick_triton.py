"""The informative elements whose hash is small, on a GPU, in one pass.

Each program writes one bit an element; no program waits for another, nothing is added atomically. torch then finds the
bits that are set, on the GPU: a byte for eight elements is read again, next to the 16 bytes a model in bf16 had.
"""

# Triton compiles a subset of Python: `else` where one branch alone is to be compiled.
# ruff: noqa: RET505
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from reconstruct.kernels.device import DeviceView, on_device, storage_type
from reconstruct.kernels.device_numbers import CODES, POINTERS, decode, load, specialisation_label
from reconstruct.kernels.pick_reference import EVERY_HASH, hash_key
from reconstruct.kernels.results import View, check_views

__all__ = ["aot_cases", "pick"]

#: Lanes of a program (one a thread); bytes of bits, eight elements each, that a lane writes in a run.
_SHAPE = {"LANES": 128, "TILES": 16}


def _options(dtypes: Sequence[str]) -> dict[str, Any]:
    """Fusing changes nothing: the only products that enter a sum are 0 or NaN.

    Left to itself, the assembler allows ten models of float64 168 registers on sm_90 and spills.
    """
    return {"num_warps": 4, "enable_fp_fusion": True} | ({"maxnreg": 255} if "F64" in dtypes else {})


def _constants(dtypes: Sequence[str]) -> dict[str, Any]:
    """The kernel's constants for models of these dtypes; WIDTH elements of a lane fit a load of 16 bytes."""
    width = min(8, 16 // min(storage_type(dtype).itemsize for dtype in dtypes))
    return {"FORMATS": tuple(CODES[dtype] for dtype in dtypes), "WIDTH": width, **_SHAPE}


@triton.jit
def _mixed(h):
    """The finaliser of MurmurHash3: uint32 -> uint32; see `pick_reference`."""
    h = (h ^ (h >> 16)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    return h ^ (h >> 16)


@triton.jit
def _elements(pointer, offsets, left, FORMAT: tl.constexpr, WHOLE: tl.constexpr):
    """Without a mask, which would keep the compiler from wide loads, where all elements are there."""
    if WHOLE:
        return decode(tl.load(pointer + offsets), FORMAT)
    else:
        return load(pointer, offsets, offsets < left, FORMAT)


@triton.jit
def _tile(
    models, start, left, low, key, threshold, FORMATS: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr,
    WHOLE: tl.constexpr
):  # fmt: skip
    """Of eight elements a lane, the bits of those wanted: int32 [LANES]."""
    byte = tl.zeros([LANES], tl.int32)
    low += start.to(tl.uint32)
    for part in tl.static_range(0, 8, WIDTH):
        bit = part + tl.arange(0, WIDTH)[None, :]
        place = tl.arange(0, LANES)[:, None] * 8 + bit
        suspect = _elements(models[0] + start, place, left, FORMATS[0], WHOLE)
        pivot = _elements(models[1] + start, place, left, FORMATS[1], WHOLE)
        # Elements that are not there are 0, as the suspect may not be.
        informative = (suspect != 0) & (tl.abs(suspect) >= 0.25 * tl.abs(pivot))
        moved = suspect != suspect
        nothing = suspect * 0.0 + pivot * 0.0  # NaN if one of them is not finite: cheaper than to test each
        for j in tl.static_range(2, len(FORMATS)):
            source = _elements(models[j] + start, place, left, FORMATS[j], WHOLE)
            moved = moved | (source != pivot)
            nothing += source * 0.0
        informative = informative & moved & (nothing == 0)
        wanted = informative & (_mixed((low + place.to(tl.uint32)) ^ key) <= threshold)
        byte += tl.sum(wanted.to(tl.int32) << bit, axis=1)
    return byte


@triton.jit(do_not_specialize=["elements", "low", "key", "threshold"])  # one compilation for all their values
def pick_kernel(
    models,
    elements: tl.int64,
    low: tl.uint32,
    key: tl.uint32,
    threshold: tl.uint32,
    wanted,
    FORMATS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    TILES: tl.constexpr,
):
    TILE: tl.constexpr = LANES * 8
    run = tl.program_id(0).to(tl.int64)
    start = run * (TILES * TILE)
    left = tl.minimum(elements - start, TILES * TILE).to(tl.int32)
    wanted += run * (TILES * LANES) + tl.arange(0, LANES)
    # The interpreter goes by a number's size, not by what a parameter is declared as.
    low, key, threshold = low.to(tl.uint32), key.to(tl.uint32), threshold.to(tl.uint32)
    whole = left // TILE
    for t in range(whole):
        byte = _tile(models, start + t * TILE, TILE, low, key, threshold, FORMATS, LANES, WIDTH, True)
        tl.store(wanted + t * LANES, byte.to(tl.uint8))
    if whole * TILE < left:
        done = whole * TILE
        byte = _tile(models, start + done, left - done, low, key, threshold, FORMATS, LANES, WIDTH, False)
        tl.store(wanted + whole * LANES, byte.to(tl.uint8))


def _launch(models: Sequence[DeviceView], position: int, seed: int, threshold: int) -> NDArray[np.int64]:
    """The informative elements with a hash up to `threshold`, ascending, as positions.

    `position` is the first element's; no two may differ in the bits above the 32 low ones.
    """
    elements, device, dtypes = len(models[0]), models[0].bits.device, [m.dtype for m in models]
    tile = _SHAPE["LANES"] * 8
    runs = -(-elements // (tile * _SHAPE["TILES"]))
    wanted = torch.empty(-(-elements // tile) * _SHAPE["LANES"], dtype=torch.uint8, device=device)
    # The processor that interprets the kernel warns of infinity times 0.
    with torch.cuda.device_of(wanted), np.errstate(invalid="ignore"):
        pick_kernel[(runs,)](
            tuple(m.bits for m in models), elements, position & EVERY_HASH, hash_key(position >> 32, seed), threshold,
            wanted, **_constants(dtypes), **_options(dtypes),
        )  # fmt: skip
    where = torch.nonzero(wanted).reshape(-1)
    eights = np.unpackbits(wanted[where].cpu().numpy()[:, None], axis=1, bitorder="little")
    row, bit = np.nonzero(eights)
    return np.asarray(where.cpu().numpy()[row] * 8 + bit + position, np.int64)


def pick(
    models: Sequence[View | DeviceView], *, seed: int, offset: int = 0, below: int = EVERY_HASH
) -> NDArray[np.int64]:
    """Positions of informative elements with a hash up to `below`, int64 [n], ascending; see `pick_reference`."""
    check_views(models)
    held, elements = on_device(models), len(models[0])
    if elements == 0:
        return np.empty(0, np.int64)
    # Positions are told apart by their 32 low bits; a part ends where the high ones change.
    edges = [0, *range(2**32 - offset % 2**32, elements, 2**32), elements]
    parts = [(a, [DeviceView(m.bits[a:b], m.dtype) for m in held]) for a, b in itertools.pairwise(edges)]
    return np.concatenate([_launch(part, offset + start, seed, below) for start, part in parts])


def aot_cases() -> list[tuple[str, Any, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Label, kernel, signature, constants and options of specialisations to compile ahead of time."""
    mixtures = [[dtype] * 3 for dtype in CODES] + [["BF16"] * count for count in (2, 6, 10)]
    mixtures += [["F32"] * 10, ["F64"] * 10, ["BF16", "F32", "F16", "BF16"], ["F64", "F8_E4M3", "F16"]]
    return [(specialisation_label(dtypes), pick_kernel, *_specialisation(dtypes)) for dtypes in mixtures]


def _specialisation(dtypes: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    signature = {
        "models": tuple(POINTERS[dtype] for dtype in dtypes),
        "elements": "i64", "low": "u32", "key": "u32", "threshold": "u32", "wanted": "*u8",
    }  # fmt: skip
    constants = _constants(dtypes)
    return signature | dict.fromkeys(constants, "constexpr"), constants, _options(dtypes)
