"""Do independent estimates agree? Cochran's Q and I^2 (Higgins and Thompson 2002), and the plain spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True)
class Agreement:
    """`pooled`: mean weighted by precision; `spread`: standard deviation of the estimates; `i_squared`: share of
    their variance beyond error; `p`: probability of a Q this large if all estimated one number.
    """

    count: int
    pooled: float
    spread: float
    median_error: float
    q: float
    i_squared: float
    p: float


def agreement(estimates: NDArray[np.float64], errors: NDArray[np.float64]) -> Agreement:
    """Compare estimates [n] with their standard errors [n]; those without a finite error take no part."""
    keep = np.isfinite(estimates) & np.isfinite(errors) & (errors > 0)
    x, e = estimates[keep], errors[keep]
    if len(x) < 2:
        value = float(x[0]) if len(x) else float("nan")
        return Agreement(len(x), value, float("nan"), float("nan"), 0.0, 0.0, 1.0)
    weight = 1 / e**2
    pooled = float((weight * x).sum() / weight.sum())
    q = float((weight * (x - pooled) ** 2).sum())
    freedom = len(x) - 1
    return Agreement(
        len(x), pooled, float(x.std(ddof=1)), float(np.median(e)), q,
        max(0.0, (q - freedom) / q) if q > 0 else 0.0, float(chdtrc(freedom, q)),
    )  # fmt: skip
