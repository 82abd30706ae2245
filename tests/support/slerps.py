"""Slerps of single tensors, as the merge programs compute them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from support.tensors import rounded

from reconstruct.hypotheses.slerp import slerp_coefficients


def slerped(a: NDArray[np.float32], b: NDArray[np.float32], t: float) -> tuple[NDArray[np.float32], float]:
    """Flat tensors -> their slerp in bfloat16, and the cosine between them."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    cosine = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    first, second = slerp_coefficients(t, cosine)
    return rounded((first * x + second * y).astype(np.float32)), cosine
