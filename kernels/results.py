"""What the kernels return: float64 and int64 arrays on the host. All results of disjoint elements add."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.formulas import Formula

__all__ = ["MAXIMUM_STEPS", "STRATA", "GramResult", "ReplayResult", "View", "check_views"]

#: Lower edges, in spacings, of the strata of distance between prediction and nearest source.
STRATA = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
#: Differences between suspect and prediction are counted for -20 ... 20 spacings; the ends hold what lies beyond.
MAXIMUM_STEPS = 20


@dataclass(frozen=True)
class View:
    """A contiguous 1-D array in storage form and the name of its dtype (see `formats`)."""

    bits: NDArray[np.generic]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in FLOAT_FORMATS:
            raise ValueError(f"{self.dtype} is not read by the kernels; they read {', '.join(FLOAT_FORMATS)}")
        storage = np.dtype(FLOAT_FORMATS[self.dtype].storage)
        if self.bits.ndim != 1 or self.bits.dtype != storage:
            found = f"{self.bits.ndim}-D {self.bits.dtype}"
            raise ValueError(f"{self.dtype} is held as a 1-D array of {storage}, not as {found}")

    def __len__(self) -> int:
        return len(self.bits)

    def first(self, count: int) -> View:
        """The first `count` elements, in place."""
        return View(self.bits[:count], self.dtype)


def check_views(models: Sequence[Sized], *, at_least: int = 2) -> None:
    """Raise ValueError unless there are enough models and all have as many elements: kernels check no bounds."""
    if len(models) < at_least:
        raise ValueError(f"{at_least} models are needed, {len(models)} given")
    if len({len(model) for model in models}) > 1:
        raise ValueError(f"models of {', '.join(str(len(model)) for model in models)} elements cannot be compared")


def check_replay(
    models: Sequence[Sized], coefficients: NDArray[np.float64], divisors: NDArray[np.float64], formula: Formula
) -> None:
    """Raise ValueError unless models, coefficient vectors [V, sources] and divisors [V] fit together."""
    check_views(models)
    sources = len(models) - 1
    if coefficients.ndim != 2 or coefficients.shape[1] != sources or divisors.shape != coefficients.shape[:1]:
        raise ValueError(
            f"{sources} sources need coefficients [V, {sources}] and divisors [V], "
            f"not {list(coefficients.shape)} and {list(divisors.shape)}"
        )
    if formula.order == "lerp" and (sources < 2 or np.any(coefficients[:, 2:])):
        raise ValueError("lerp is between the first two sources; further ones need coefficient 0")


class _Additive:
    """Field-wise sum of dataclasses of arrays and numbers."""

    def __add__(self, other: object):  # type: ignore[no-untyped-def]
        if type(other) is not type(self):
            return NotImplemented
        names = [f.name for f in fields(self)]  # type: ignore[arg-type]
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True)
class GramResult(_Additive):
    """Sums over elements of one tensor, for suspect s, pivot b and K further sources.

    `gram` float64 [K+2, K+2]: products of d = (s - b, x_1 - b, ..., x_K - b, b). `rounding_energy`: sum of u^2 / 12.
    `identical` int64 [K+1]: elements equal to the suspect's, per source. `nonfinite` int64 [K+2]: NaN or infinite
    elements per model, suspect first; elements where any model is not finite take no part in the sums.
    """

    count: int
    gram: NDArray[np.float64]
    rounding_energy: float
    identical: NDArray[np.int64]
    nonfinite: NDArray[np.int64]


@dataclass(frozen=True)
class ReplayResult(_Additive):
    """Counts for V coefficient vectors; all arrays int64 [V] but `energy` float64 [V] and `steps`.

    `total` elements compared (one whose prediction overflows counts here alone); `exact` identical to the suspect's;
    `close` within 2 spacings of the largest number involved; `inside_box` explained by rounding of suspect and
    sources alone; `novel` predictions that differ from every source; `energy` sum of squared residuals before
    rounding; `steps` int64 [V, 7, 41]: novel elements by stratum of distance from the nearest source and by suspect
    minus prediction in spacings, -20 ... 20.
    """

    total: NDArray[np.int64]
    exact: NDArray[np.int64]
    close: NDArray[np.int64]
    inside_box: NDArray[np.int64]
    novel: NDArray[np.int64]
    energy: NDArray[np.float64]
    steps: NDArray[np.int64]

    @property
    def novel_exact(self) -> NDArray[np.int64]:
        """Novel elements identical to the suspect's, int64 [V]."""
        return np.asarray(self.steps[:, :, MAXIMUM_STEPS].sum(axis=1))

    def vector(self, index: int) -> ReplayResult:
        """The result of one coefficient vector, still with its leading axis."""
        return ReplayResult(*(getattr(self, f.name)[index : index + 1] for f in fields(self)))

    @classmethod
    def empty(cls, vectors: int) -> ReplayResult:
        """Nothing counted yet."""

        def zeros() -> NDArray[np.int64]:
            return np.zeros(vectors, np.int64)

        steps = np.zeros((vectors, len(STRATA), 2 * MAXIMUM_STEPS + 1), np.int64)
        return cls(zeros(), zeros(), zeros(), zeros(), zeros(), np.zeros(vectors), steps)
