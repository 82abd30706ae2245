"""G = sum d d^T with d = (s - b, x_1 - b, ..., x_K - b, b), in float64 torch. Defines what `gram` means."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reconstruct.kernels.formats import decode
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import GramResult, View, check_views

__all__ = ["gram"]


def gram(models: Sequence[View], lattice: Lattice) -> GramResult:
    """Moments of suspect, pivot and further sources, in this order. `lattice` is the suspect's."""
    check_views(models)
    raw = torch.stack([torch.from_numpy(decode(m.bits, m.dtype)).double() for m in models])
    finite = torch.isfinite(raw)
    values = raw[:, finite.all(dim=0)]
    suspect, pivot = values[0], values[1]
    d = torch.cat([values[:1] - pivot, values[2:] - pivot, pivot[None]])
    spacing = torch.from_numpy(lattice.spacing(suspect.numpy()))
    return GramResult(
        count=values.shape[1],
        gram=(d @ d.T).numpy(),
        rounding_energy=float((spacing**2).sum() / 12),
        identical=(values[1:] == suspect).sum(dim=1).numpy(),
        nonfinite=(~finite).sum(dim=1).numpy(),
    )
