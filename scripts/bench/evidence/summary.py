"""All numbers of a run in one JSON document: what the page is written from, kept beside the code.

Floats are rounded to six digits, so that the document is the same wherever the same runs are counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from statistics import median
from typing import Any

import scores
import thresholds
from comparison import accused_by_kind, compare
from observations import Observation, main_runs, read_observations
from peers import ANSWERS, read_answers
from power import LARGE, power, proved, strengths
from proportions import proportion

__all__ = ["SUMMARY", "main", "read_summary", "summarise"]

SUMMARY = Path(__file__).parents[1] / "results" / "evidence.json"


def summarise(work: Path) -> dict[str, Any]:
    """Everything that the page says, from cases.jsonl, results.jsonl, grid.json and modeldna.jsonl in `work`."""
    observations = read_observations(work)
    runs = main_runs(observations)
    answers = read_answers(work)
    grid = json.loads((work / "grid.json").read_text())
    document = {
        "programs": sorted({o.finding.program for o in runs}),
        "families": {o.truth.family: o.truth.half for o in runs},
        "counts": {sort: sum(o.truth.sort == sort for o in runs) for sort in ("merge", "modified merge", "no merge")},
        "seconds": median(o.finding.seconds for o in runs),
        "false accusations": scores.false_accusations(runs),
        "false accusations by half": {
            half: scores.false_accusations(o for o in runs if o.truth.half == half) for half in ("tuning", "reporting")
        },
        "accused innocents": scores.accused_innocents(runs),
        "exact merges": scores.exact_merges(runs),
        "verdicts": _verdicts(runs),
        "tests": compare(runs, answers),
        "accused by kind": accused_by_kind(runs, answers),
        "peer": {summary: sum(a.summary == summary for a in answers.values()) for summary in ANSWERS},
        "peer refusals": _refusals([a.error for a in answers.values() if a.error]),
        "power": _power(runs),
        "strengths": {
            group: {f"{strength:g}": rate for strength, rate in rates.items()}
            for group, rates in strengths(runs).items()
        },
        "coefficients": _coefficients(runs),
        "calibration": dict(zip(("holding", "outside"), scores.calibration(runs), strict=True)),
        "untouched": _untouched(runs),
        "parts": _parts(observations),
        "thresholds": [_threshold(report) for report in thresholds.examine_all(runs, grid)],
        "misses": scores.misses(runs),
    }
    plain: dict[str, Any] = _plain(document)
    return plain


def read_summary() -> dict[str, Any]:
    """The document that is kept beside the code. Raises FileNotFoundError before the first run."""
    found: dict[str, Any] = json.loads(SUMMARY.read_text())
    return found


def main(work: Path) -> None:
    """Write the document of the runs in `work`."""
    SUMMARY.write_text(json.dumps(summarise(work), indent=1, ensure_ascii=False) + "\n")
    print(SUMMARY)


def _verdicts(runs: Sequence[Observation]) -> list[dict[str, Any]]:
    """One entry a group of cases."""
    entries = []
    for (sort, group), verdicts in scores.confusion(runs).items():
        cases = [o for o in runs if (o.truth.sort, o.truth.group) == (sort, group)]
        right, accused = proportion(o.right for o in cases), proportion(o.false_accusation for o in cases)
        entries.append({"sort": sort, "group": group, "verdicts": verdicts, "right": right, "accused": accused})
    return sorted(entries, key=lambda entry: (_SORTS.index(entry["sort"]), entry["group"]))


_SORTS = ("merge", "modified merge", "no merge")


def _power(runs: Sequence[Observation]) -> dict[str, Any]:
    """Detection of modified merges by true untouched share: of all, of each group, and where matrices are large."""
    modified = [o for o in runs if o.truth.sort == "modified merge"]
    large = [o for o in modified if o.finding.largest >= LARGE]
    sets = {"all": modified, "a matrix of 1,000,000 or more": large}
    for group in sorted({o.truth.group for o in modified}):
        sets[group] = [o for o in modified if o.truth.group == group]
    bins = {name: power(cases) for name, cases in sets.items()}
    bins |= {f"{name}, proved": power(sets[name], proved) for name in list(sets)[:2]}
    return {name: rows for name, rows in bins.items() if any(row.rate.total for row in rows)}


def _coefficients(runs: Sequence[Observation]) -> dict[str, Any]:
    """Sort of merge -> method -> number of cases, median and worst error, and the case of the worst."""
    tables: dict[str, Any] = {}
    for sort in _SORTS[:2]:
        errors = scores.coefficient_errors(o for o in runs if o.truth.sort == sort)
        tables[sort] = {
            method: {"cases": len(of), "median": median(of.values()), "worst": max(of.values()),
                     "worst case": max(of, key=lambda name: (of[name], name))}
            for method, of in errors.items() if of
        }  # fmt: skip
    return tables


def _untouched(runs: Sequence[Observation]) -> dict[str, Any]:
    """Number of cases with both shares, and the ratio of the estimated to the true one: median, smallest, largest."""
    pairs = scores.untouched_errors(runs)
    ratios = {name: found / true for name, (true, found) in pairs.items() if true > 0}
    if not ratios:
        return {"cases": 0}
    least, most = (choose(ratios, key=lambda name: (ratios[name], name)) for choose in (min, max))
    return {
        "cases": len(ratios), "median ratio": median(ratios.values()),
        "median difference": median(abs(found - true) for true, found in pairs.values()),
        "least": {"case": least, "true": pairs[least][0], "estimated": pairs[least][1]},
        "most": {"case": most, "true": pairs[most][0], "estimated": pairs[most][1]},
    }  # fmt: skip


def _parts(observations: Sequence[Observation]) -> list[dict[str, Any]]:
    """What was read (share of all bytes, or elements a tensor), right and false verdicts, and those of full reading."""
    kinds = sorted({(o.finding.budget, o.finding.sample) for o in observations} - {(None, None)},
                   key=lambda kind: (kind[0] or 0, kind[1] or 0))  # fmt: skip
    full = {o.truth.name: o for o in main_runs(observations)}
    entries = []
    for budget, sample in kinds:
        cases = [o for o in observations if (o.finding.budget, o.finding.sample) == (budget, sample)]
        entries.append({
            "budget": budget, "sample": sample, "accused": scores.false_accusations(cases),
            "right merges": proportion(o.right for o in cases if o.truth.is_merge),
            "right merges in full": proportion(full[o.truth.name].right for o in cases if o.truth.is_merge),
        })  # fmt: skip
    return entries


def _threshold(report: thresholds.ThresholdReport) -> dict[str, Any]:
    """The report, and its safe range in words."""
    safe = report.low is not None and report.high is not None
    words = thresholds.ends(report) if safe else ("today accuses falsely", "today accuses falsely")
    limits = {"safe": safe, "bounded": report.bounded, "closed": report.closed, "low": words[0], "high": words[1]}
    return {**asdict(report), "range": limits}


def _refusals(errors: Sequence[str]) -> dict[str, int]:
    """Words of the peer's refusals, up to the first bracket, with how often each came; the most frequent first."""
    words = [error.split("(")[0].strip() for error in errors]
    return {word: words.count(word) for word in sorted(set(words), key=lambda word: (-words.count(word), word))}


def _plain(value: Any) -> Any:
    """Only what JSON knows; infinite and undefined numbers are null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
