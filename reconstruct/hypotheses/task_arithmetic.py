"""task_arithmetic: s = base + lambda sum_j w_j (x_j - base); lambda and w_j show only as their product."""

from __future__ import annotations

from dataclasses import replace

from reconstruct.hypotheses.base import Fit
from reconstruct.hypotheses.linear import Linear
from reconstruct.statistics.moments import Moments

__all__ = ["TaskArithmetic"]


class TaskArithmetic:
    """The same span as `linear` with the base as a source: only the arithmetic of the program tells them apart."""

    name = "task_arithmetic"

    def __init__(self, *, has_base: bool) -> None:
        self.has_base = has_base

    def fit(self, moments: Moments, names: tuple[str, ...]) -> Fit | None:
        """Weights lambda w_j of the parents' deltas; None without a base."""
        if not self.has_base:
            return None
        fit = Linear().fit(moments, names)
        assert fit is not None
        weights = {name: value for name, value in fit.parameters.items() if name != names[0]}
        return replace(fit, hypothesis=self.name, parameters=weights)
