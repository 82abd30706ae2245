"""Why a verdict is not the right one: conditions that failed in the rules which would have given it, or, of a false
accusation, those that held in the rule which gave it.

The decision table notes every condition that it tried on its way, also of rules that nobody expects to hold. Which rule
a condition belongs to is told by the words it begins with; of an unknown one, it is shown.
"""

from __future__ import annotations

import re
from dataclasses import replace

from observations import Condition, Observation

__all__ = ["telling_conditions"]

_WORDS = {
    "copy": ("elements identical to",),
    "undetermined": ("elements in which the sources differ", "collinear"),
    "reproduced": (
        "weights that", "elements that differ from", "matrices with a hundred", "sources none of which",
        "voting tensors whose rounding", "replayed elements", "novel elements", "rounding came last",
        "fit of another orientation",
    ),
    "ancestor": ("elements of", "untouched share of"),
    "related": ("elements inside the rounding box", "the same for decoys", "movement explained beyond"),
    "merge_then_modified": (
        "untouched decisive", "decisive strata", "untouched share by sides", "the same at", "voting tensors with",
        "consensus of", "inside the rounding box", "largest untouched share",
    ),
    "derived": ("coefficient of", "movement that it", "largest other parent"),
    "merge_consistent": (
        "coefficients over", "explained beyond", "tensors that vote", "tensors on lattices", "overlap of",
        "this orientation",
    ),
}  # fmt: skip


def telling_conditions(o: Observation) -> list[Condition]:
    """In the table's order, with models named by their last part.

    A merge that was changed afterwards is not expected to replay: why it did not is told only if nothing else failed.
    """
    if o.false_accusation:
        return [_shortly(o, r) for r in o.finding.reasons if r.passed and o.finding.verdict in _rules(r.name)]
    failed = [(_rules(r.name), r) for r in o.finding.reasons if not r.passed]
    right = frozenset(o.truth.expected)
    likely = right - {"reproduced"} if o.truth.sort == "modified merge" else right
    shown = [r for rules, r in failed if not rules or rules & likely]
    shown = shown or [r for rules, r in failed if rules & right]
    return [_shortly(o, r) for r in shown]


def _rules(name: str) -> set[str]:
    """Verdicts of the rules that a condition belongs to; of two openings that fit, the longer counts."""
    fitting = [(len(words), verdict) for verdict, openings in _WORDS.items() for words in openings
               if name.startswith(words)]  # fmt: skip
    return {verdict for length, verdict in fitting if length == max(fitting)[0]}


def _shortly(o: Observation, condition: Condition) -> Condition:
    """Without the folders that a model lies in."""
    name = condition.name
    for path in {o.truth.suspect, o.truth.base or o.truth.suspect, *o.truth.parents}:
        name = re.sub(rf"\S*{re.escape(path)}(?=[ ,]|$)", path.rsplit("/", 1)[-1], name)
    return replace(condition, name=name)
