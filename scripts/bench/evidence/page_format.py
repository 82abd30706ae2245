"""Numbers and tables of the page in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["accused", "counts", "percent", "rate", "table"]

Proportion = Mapping[str, Any]  # proportions.Proportion, as it stands in the summary


def rate(p: Proportion) -> str:
    """A share with its counts; a dash for none."""
    return f"{percent(p['share'])} ({counts(p)})" if p["total"] else "-"


def accused(p: Proportion) -> str:
    """Counts with the one-sided 95 % bound; a dash for none."""
    return f"{counts(p)} (at most {percent(p['at_most'])})" if p["total"] else "-"


def counts(p: Proportion) -> str:
    """Hits of the total."""
    return f"{p['hits']} of {p['total']}"


def percent(share: float) -> str:
    """Two digits below 1 %, else one decimal; 0 % and 100 % stand for none and all alone."""
    digits = f"{100 * share:.2f}" if share < 0.01 else f"{100 * share:.1f}"
    if 0 < share < 1:
        digits = {"0.00": "<0.01", "100.0": "99.9"}.get(digits, digits)
        return f"{digits.removesuffix('.0')} %"
    return f"{share:.0%}".replace("%", " %")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
