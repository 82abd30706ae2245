"""Inputs for the differential tests of the kernels: seeded numbers and real weights, in every storage dtype."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from support import family

from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.results import View

DTYPES = tuple(FLOAT_FORMATS)
#: Around nothing, one element, and the edges of a chunk.
LENGTHS = (0, 1, 2, 3, 7, 4095, 4096, 4097, 8191, 12345)
#: Models stored in different dtypes, suspect first, as merges of mixed provenance are.
MIXTURES = (
    ("BF16", "F32", "F16", "BF16"),
    ("F16", "BF16", "F32"),
    ("F32", "F64", "BF16"),
    ("F8_E4M3", "BF16", "F8_E5M2"),
    ("F64", "F8_E4M3", "F16"),
)


def encode(values: NDArray[np.floating], dtype: str) -> View:
    """Numbers rounded to a dtype by torch, in storage form."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(getattr(torch, FLOAT_FORMATS[dtype].torch_name))
    carrier = {1: torch.uint8, 2: torch.uint16}.get(tensor.element_size())
    return View((tensor if carrier is None else tensor.view(carrier)).numpy(), dtype)


def related(dtypes: Sequence[str], count: int, seed: int = 0, step: float = 0.1) -> list[View]:
    """Models around a common base, as fine-tunes are: some elements equal, some moved by about `step`."""
    random = np.random.default_rng(seed)
    base = random.standard_normal(count)
    moved = [base + step * random.standard_normal(count) * random.integers(0, 2, count) for _ in dtypes]
    return [encode(values, dtype) for values, dtype in zip(moved, dtypes, strict=True)]


def integers(dtypes: Sequence[str], count: int, seed: int = 0) -> list[View]:
    """Small non-zero integers: exact in every dtype, and so is every partial sum of their products in float32."""
    random = np.random.default_rng(seed)
    values = random.integers(1, 5, (len(dtypes), count)) * random.choice([-1.0, 1.0], (len(dtypes), count))
    return [encode(row, dtype) for row, dtype in zip(values, dtypes, strict=True)]


def trained(names: Sequence[str], dtypes: Sequence[str] | None = None) -> list[View]:
    """All weights of members of the trained family, one flat array each."""
    flat = [torch.cat([t.reshape(-1) for t in family.load(name).values()]).double().numpy() for name in names]
    return [encode(values, dtype) for values, dtype in zip(flat, dtypes or ["BF16"] * len(names), strict=True)]


def part(models: Sequence[View], start: int, stop: int) -> list[View]:
    """Elements [start, stop) of every model."""
    return [View(model.bits[start:stop], model.dtype) for model in models]
