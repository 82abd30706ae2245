"""Words and numbers that all reports share: verdicts, shares that never round to a false 100 %, the order of layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import Estimate, ModelEvidence
from reconstruct.verdict import VerdictKind

__all__ = [
    "VERDICT_WORDS",
    "coefficient",
    "coefficient_range",
    "interval_word",
    "joined",
    "layer_number",
    "material_sources",
    "model_order",
    "number",
    "origin_word",
    "share",
    "short_names",
    "shorten",
    "unique",
    "varies",
]

VERDICT_WORDS = {
    VerdictKind.REPRODUCED: "reproduced",
    VerdictKind.MERGE_THEN_MODIFIED: "merge, then modified",
    VerdictKind.MERGE_CONSISTENT: "merge-consistent (a lead, not proof)",
    VerdictKind.COPY: "copy",
    VerdictKind.DERIVED: "derived",
    VerdictKind.ANCESTOR: "ancestor",
    VerdictKind.RELATED: "related, not a merge",
    VerdictKind.NOT_EXPLAINED: "not explained",
    VerdictKind.UNDETERMINED: "undetermined",
}


def shorten(name: str, limit: int) -> str:
    """At most `limit` characters, cut in the middle: both ends of a model's name tell it from its relatives."""
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[len(name) - tail :]}"


def short_names(names: Sequence[str], limit: int) -> list[str]:
    """At most `limit` characters each and still told apart: a folder or organisation that all share is left out, and
    where that is not enough, what all begin and end with.
    """
    shared = _shared_start(names)
    result = [shorten(name[shared.rfind("/") + 1 :], limit) for name in names]
    if len(set(result)) < len(set(names)):
        start = len(_whole_words(shared))
        rest = [name[start:] for name in names]
        end = len(_whole_words(_shared_start([name[::-1] for name in rest])))
        result = [shorten(name[: len(name) - end] or "…", limit) for name in rest]
    return unique(result) if len(set(names)) == len(names) else result


def _shared_start(names: Sequence[str]) -> str:
    """What several names begin with in common."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)
    differing = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differing, min(len(first), len(last)))]


def _whole_words(text: str) -> str:
    """The text up to its last separator."""
    return text[: max(text.rfind(mark) for mark in "/-_. ") + 1]


def unique(names: Sequence[str]) -> list[str]:
    """Names that occur again get a number, so that they can head columns."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return result


def joined(names: Sequence[str]) -> str:
    """Such as "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def number(value: float, digits: int = 5) -> str:
    """Whole numbers with thousands separators, others with so many significant digits; "-" for NaN."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "unbounded"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def share(value: float, decimals: int = 1) -> str:
    """Per cent. Only a true 1 is "100 %" and only a true 0 is "0 %"."""
    if math.isnan(value):
        return "-"
    if value in (0.0, 1.0):
        return f"{value:.0%}".replace("%", " %")
    least = 10.0**-decimals
    percent = 100 * value
    if 0 < percent < least:
        return f"< {least:g} %"
    if 100 - least < percent < 100:
        return f"> {100 - least:g} %"
    return f"{percent:.{decimals}f} %"


def _decimals(low: float, high: float) -> int:
    width = high - low
    return min(max(math.ceil(-math.log10(width)) + 1, 3), 6) if math.isfinite(width) and width > 0 else 3


def coefficient(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """As many decimals as the limits warrant (four without limits), trailing zeros beyond the third left out."""
    if not math.isfinite(value):
        return "-"
    decimals = _decimals(low, high) if math.isfinite(high - low) else 4
    text = f"{value:.{decimals}f}"
    while len(text) - text.index(".") > 4 and text.endswith("0"):
        text = text[:-1]
    return text[1:] if float(text) == 0 and text.startswith("-") else text


def coefficient_range(low: float, high: float) -> str:
    """Such as "[0.56, 0.57]", or what is missing."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no limits"
    decimals = _decimals(low, high)
    return f"[{low:.{decimals}f}, {high:.{decimals}f}]".replace(f"-{0:.{decimals}f}", f"{0:.{decimals}f}")


def varies(evidence: ModelEvidence) -> bool:
    """Whether the recipe found gives different tensors different coefficients."""
    recipe = evidence.recipe
    return recipe is not None and (recipe.partition != "constant" or recipe.pair is not None)


def origin_word(estimate: Estimate) -> str:
    """Where the whole-model coefficients come from."""
    words = {
        "certified": "certified by linear programmes",
        "consensus": "consensus of untouched weights",
        "regression": "median of interval fits",
    }
    return words.get(estimate.origin, estimate.origin)


def interval_word(evidence: ModelEvidence) -> str:
    """What the limits of the whole-model coefficients are."""
    if evidence.estimate.origin == "certified":
        return "lowest and highest tensor" if varies(evidence) else "certified bounds"
    return "resolution of the search" if evidence.estimate.origin == "consensus" else "95 % limits"


def layer_number(label: str) -> tuple[str, int] | None:
    """(prefix, index) of a numbered layer: "7" -> ("", 7), "visual.7" -> ("visual", 7); None for "embedding", ..."""
    prefix, _, last = label.rpartition(".")
    return (prefix, int(last)) if last.isdecimal() else None


def model_order(labels: Iterable[str]) -> list[str]:
    """Embedding, numbered layers (towers in order of appearance), parts of unknown place, final, head."""
    found = list(dict.fromkeys(labels))
    towers: dict[str, int] = {}
    for label in found:
        place = layer_number(label)
        if place is not None:
            towers.setdefault(place[0], len(towers))

    def rank(label: str) -> tuple[int, int, int]:
        place = layer_number(label)
        if place is not None:
            return (1, towers[place[0]], place[1])
        return ({"embedding": 0, "final": 3, "head": 4}.get(label, 2), 0, found.index(label))

    return sorted(found, key=rank)


def material_sources(coefficients: NDArray[np.float64], limit: int) -> list[int]:
    """Positions of at most `limit` sources, those with the largest coefficients, in their own order."""
    finite = np.nan_to_num(np.abs(coefficients), nan=0.0, posinf=0.0)
    largest = np.argsort(-finite, kind="stable")[:limit]
    return sorted(int(j) for j in largest)
