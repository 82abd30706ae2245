"""Lines of the evidence benchmark's cases and results, written by hand: tests state what matters and no more."""

from __future__ import annotations

from typing import Any

__all__ = ["case_line", "result_line"]


def case_line(name: str, sort: str = "no merge", **others: Any) -> dict[str, Any]:
    """A case of two parents and a base, in the tuning half."""
    merge = sort != "no merge"
    expected = {"merge": ["reproduced"], "modified merge": ["merge_then_modified"], "no merge": ["related"]}[sort]
    forbidden = [] if merge else ["reproduced", "merge_then_modified", "merge_consistent"]
    line = {
        "name": name, "family": "f", "half": "tuning", "sort": sort, "group": "linear" if merge else "sibling",
        "suspect": f"f/{name}", "parents": ["f/a", "f/b"], "base": "f/base", "families": None, "expected": expected,
        "forbidden": forbidden, "coefficients": {"f/base": 0.0, "f/a": 0.6, "f/b": 0.4} if merge else None,
        "untouched": None, "strength": None,
    }  # fmt: skip
    return line | others


def result_line(case: str, verdict: str, shares: tuple[float, float, float] = (0.0, 0.6, 0.4), **others: Any) -> Any:
    """A result whose estimates are `shares` of the base, of a and of b by every method, certified to 1e-7."""
    coefficients = {
        path: {"estimate": v, "low": v - 1e-7, "high": v + 1e-7, "least_squares": v, "sum_to_one": v, "interval": v}
        for path, v in zip(("f/base", "f/a", "f/b"), shares, strict=True)
    }
    line = {
        "case": case, "verdict": verdict, "reasons": [], "origin": "certified", "coefficients": coefficients,
        "explained": 0.9, "decoy_explained": 0.0, "untouched": 0.0, "largest": 1_000_000, "seconds": 1.0,
        "program": "0.1.0", "sweep": {}, "budget": None, "sample": None,
    }  # fmt: skip
    return line | others
