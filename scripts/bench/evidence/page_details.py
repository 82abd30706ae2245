"""The sections of docs/evidence.md that go into detail: how far thresholds could be moved, and every miss by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from page_format import table

__all__ = ["misses_section", "thresholds_section"]

_HOW_MOVED = (
    "Every threshold was moved alone, over a grid of values; all at once were not tried. *Safe*: on the tuning half "
    "nobody is accused falsely, and no right verdict of today's is lost; in brackets how far that is from today's, "
    "and what happens at the next value tried. *Tuning alone*: the middle of the safe values, where they end on both "
    "sides. The conditions are a conjunction: an open end says that the others hold the line, not that this one is "
    "needless."
)
_LISTED = 60  # misses of one sort that are listed by name


def thresholds_section(s: Mapping[str, Any]) -> str:
    """Safe ranges of the thresholds that the tuning half limits, and the names of the others."""
    bound = [r for r in s["thresholds"] if r["range"]["bounded"] or not r["range"]["safe"]]
    loose = [r for r in s["thresholds"] if r["binds"] and r not in bound]
    never = [r for r in s["thresholds"] if not r["binds"]]
    rows = [
        [r["key"], f"{r['today']:g}", r["range"]["low"], r["range"]["high"], _chosen(r),
         _effect(r["reporting_today"]), _effect(r["reporting_chosen"])]
        for r in bound
    ]  # fmt: skip
    head = ["threshold", "today", "safe down to", "safe up to", "tuning alone", "reporting half, today", "as chosen"]
    lines = [
        "### Thresholds", "",
        _HOW_MOVED, "",
        table(head, rows) if rows else "No threshold is limited by the tuning half.",
    ]  # fmt: skip
    for words, reports in (
        ("Change verdicts, but no right one is lost and nobody is accused falsely, at any value tried", loose),
        ("Never bind at any value tried", never),
    ):
        if reports:
            names = ", ".join(f"{r['key']} ({r['tried'][0]:g} to {r['tried'][-1]:g})" for r in reports)
            lines += ["", f"{words}: {names}."]
    return "\n".join(lines)


def _chosen(report: Mapping[str, Any]) -> str:
    return f"{report['chosen']:g}" if report["range"]["closed"] else "as today"


def _effect(outcome: Mapping[str, Any]) -> str:
    text = f"{len(outcome['accused'])} accused, {outcome['detected']} merges recognised"
    changes = [f"{len(outcome[key])} {key}" for key in ("lost", "gained") if outcome[key]]
    return text + (f" ({', '.join(changes)})" if changes else "")


def misses_section(s: Mapping[str, Any]) -> str:
    """False accusations, merges that were not recognised, and other verdicts that were not expected."""
    found: Sequence[Mapping[str, Any]] = s["misses"]
    groups: list[tuple[str, str, Callable[[Mapping[str, Any]], bool]]] = [
        ("False accusations", "held", lambda m: m["false_accusation"]),
        ("Merges not recognised for what they are", "failed",
         lambda m: not m["false_accusation"] and m["sort"] != "no merge"),
        ("Others with a verdict that accuses nobody but is not the expected one", "failed",
         lambda m: not m["false_accusation"] and m["sort"] == "no merge"),
    ]  # fmt: skip
    lines = ["### Every miss by name"]
    for title, conditions, wanted in groups:
        rows = [[m["name"], f"`{m['verdict']}`", ", ".join(f"`{v}`" for v in m["expected"]), _cause(m)]
                for m in found if wanted(m)]  # fmt: skip
        more = f"\n\nand {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
        listed = table(["case", "verdict", "right would be", f"conditions that {conditions}"], rows[:_LISTED])
        lines += ["", f"{title}: {len(rows)}." + (f"\n\n{listed}{more}" if rows else "")]
    return "\n".join(lines)


def _cause(miss: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {_short(value)} (against {_short(bound)})" for name, value, bound in miss["telling"][:3])


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
