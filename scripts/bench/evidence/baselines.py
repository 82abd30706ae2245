"""The naive test: least squares on the movements, and a merge is called wherever R squared is high enough.

    R^2 >= threshold, and at least two sources have a share of .05 or more

Its threshold, and whether the base counts as a source, are chosen on the tuning half in its own favour, in two ways:
for the best balanced accuracy, and for the most detections without one false accusation. Both are then applied to the
other half.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from observations import Observation
from proportions import Proportion, proportion

__all__ = ["BaselineRule", "BaselineScore", "apply", "choose", "score"]

_MATERIAL = 0.05


@dataclass(frozen=True)
class BaselineRule:
    """`threshold` of R squared; `with_base`: whether a share of the base counts."""

    threshold: float
    with_base: bool


@dataclass(frozen=True)
class BaselineScore:
    """What a rule does: merges that it detects, and others that it accuses."""

    rule: BaselineRule
    detected: Proportion
    accused: Proportion

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the share of merges detected and the share of others cleared, so that equal counts are equal."""
        return round((self.detected.share + 1 - self.accused.share) / 2, 12)


def score(o: Observation, *, with_base: bool) -> float:
    """R squared where two sources have a share, else -inf: accused where this reaches the threshold."""
    shares = [c.least_squares for path, c in o.finding.coefficients.items() if with_base or path != o.truth.base]
    material = sum(share >= _MATERIAL for share in shares)
    return o.finding.explained if material >= 2 and math.isfinite(o.finding.explained) else -math.inf


def apply(rule: BaselineRule, observations: Iterable[Observation]) -> BaselineScore:
    """Count what the rule does to merges, modified or not, and to all others."""
    said = [(o.truth.is_merge, score(o, with_base=rule.with_base) >= rule.threshold) for o in observations]
    return BaselineScore(
        rule, proportion(accused for merge, accused in said if merge),
        proportion(accused for merge, accused in said if not merge),
    )  # fmt: skip


def choose(tuning: Sequence[Observation]) -> tuple[BaselineScore, BaselineScore]:
    """The rule of best balanced accuracy, and that of most detections without a false accusation, on these.

    Thresholds lie halfway between neighbouring scores. Of equally good rules the strictest is taken, which is the more
    careful one on other cases. Raises ValueError without a merge or without anything else.
    """
    tried = [apply(BaselineRule(t, b), tuning) for b in (False, True) for t in _thresholds(tuning, with_base=b)]
    if not tried or not tried[0].detected.total or not tried[0].accused.total:
        raise ValueError("a threshold is chosen between merges and others: the tuning half lacks one kind")
    best = max(tried, key=lambda s: (s.balanced_accuracy, s.rule.threshold))
    clean = max((s for s in tried if not s.accused.hits), key=lambda s: (s.detected.share, s.rule.threshold))
    return best, clean


def _thresholds(observations: Iterable[Observation], *, with_base: bool) -> list[float]:
    """Between all neighbouring scores, and beyond all of them."""
    scores = sorted({s for s in (score(o, with_base=with_base) for o in observations) if math.isfinite(s)})
    return [*((a + b) / 2 for a, b in itertools.pairwise(scores)), *scores[:1], math.inf]
