"""The tables of docs/evidence.md and of README.md, as Markdown, from the summary of a run and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from page_details import misses_section, thresholds_section
from page_format import accused, counts, percent, rate, table

__all__ = ["evidence_page", "readme_table"]

Summary = Mapping[str, Any]

_METHODS = {
    "least_squares": "least squares", "sum_to_one": "least squares, parents sum to 1", "interval": "interval fit",
    "estimate": "final estimate",
}  # fmt: skip
_COMPARED = (
    "merges recognised", "the same, changed afterwards", "falsely accused: trained models",
    "falsely accused: merges of others",
)  # fmt: skip
_HOW_COMPARED = (
    "*Least squares* calls a merge where R² reaches the threshold and two sources have a share of .05; the threshold "
    "is chosen on the tuning half in its own favour. Recognised: called a merge of the candidates, by whatever "
    "verdict. Merges of others: of other models than the candidates, or with a parent that is not among them."
)
_HOW_PEER = (
    "MERGE counts as calling it a merge, the other words as not, a refusal as no answer. It is given the base wherever "
    "there is one; its full mode gives the same answers. Merges with less than two parents besides the base are left "
    "out for it: MERGE cannot be its word for them."
)
_COMMAND = "python scripts/bench/evidence"


def readme_table(summary: Summary) -> str:
    """The one table that matters: what each test recognises and whom it accuses, on the reporting half."""
    rows = [
        [row["test"] + (", where it answers" if row["scope"] != "reporting half" else ""), *_compared(row)]
        for row in summary["tests"] if row["scope"] != "both halves" and not _partial_repeat(row, summary)
    ]  # fmt: skip
    sizes, every = summary["counts"], summary["false accusations"]
    return "\n".join([
        table(["test", *_COMPARED], rows), "",
        (f"On the families of the reporting half; over both halves the verdict accuses {every['hits']} of "
        f"{every['total']} innocent models falsely (at most {percent(every['at_most'])} at 95 % confidence). "
        f"{sum(sizes.values())} cases of {len(summary['families'])} trained families, most of them near misses: "
        f"`{_COMMAND} all` trains the families and makes this table ([all results](docs/evidence.md#measured))."),
    ])  # fmt: skip


def _partial_repeat(row: Mapping[str, Any], summary: Summary) -> bool:
    """Of the cases that the peer answers, README shows the peer alone."""
    return bool(row["scope"] != "reporting half" and row["test"] != summary["tests"][-1]["test"])


def evidence_page(summary: Summary) -> str:
    """All that was measured, in sections."""
    parts = (_head, _verdicts, _tests, _power, _coefficients, _calibration, _parts, thresholds_section, misses_section)
    return "\n\n".join(text for text in (part(summary) for part in parts) if text)


def _head(s: Summary) -> str:
    sizes, halves = s["counts"], s["false accusations by half"]
    names = {half: ", ".join(f for f, h in s["families"].items() if h == half) for half in ("tuning", "reporting")}
    every = s["false accusations"]
    return "\n".join([
        (f"{sizes['merge']} merges, {sizes['modified merge']} merges that were changed afterwards, and "
        f"{sizes['no merge']} suspects that are no merge of the candidates, by program {', '.join(s['programs'])}; a "
        f"case takes {s['seconds']:.1f} s (median). Families on which thresholds may be chosen: {names['tuning']}; "
        f"families on which results are reported: {names['reporting']}."), "",
        (f"- **Falsely accused: {every['hits']} of {every['total']}**, at most {percent(every['at_most'])} with 95 % "
        f"confidence (tuning half {counts(halves['tuning'])}, reporting half {counts(halves['reporting'])}). The bound "
        "takes cases as independent draws of such cases; those of one family share their weights."),
        f"- **Unmodified linear-family merges reproduced with exactly the true numbers: {rate(s['exact merges'])}.**",
        f"- **Certified bounds that hold every true number: {rate(s['calibration']['holding'])}.**",
        f"- Innocent candidates given a share in the recipe of a true merge: {_innocents(s)}.",
    ])  # fmt: skip


def _innocents(s: Summary) -> str:
    found = s["accused innocents"]
    return "none" if not found else "; ".join(f"{name}: {', '.join(paths)}" for name, paths in found.items())


def _verdicts(s: Summary) -> str:
    rows = []
    for entry in s["verdicts"]:
        given = sorted(entry["verdicts"].items(), key=lambda pair: (-pair[1], pair[0]))
        said = ", ".join(f"`{verdict}` {count}" for verdict, count in given)
        rows.append([entry["sort"], entry["group"], str(entry["right"]["total"]), percent(entry["right"]["share"]),
                     str(entry["accused"]["hits"]), said])  # fmt: skip
    head = ["truth", "kind", "cases", "right", "falsely accused", "verdicts given"]
    return f"### Verdicts by kind of case\n\n{table(head, rows)}"


def _tests(s: Summary) -> str:
    rows = [[row["scope"], row["test"], *_compared(row)] for row in s["tests"]]
    head = ["cases", "test", *_COMPARED]
    lines = [
        "### Beside other tests", "",
        "![Detections against false accusations of three tests](images/evidence-tests.png)", "",
        table(head, rows), "",
        _HOW_COMPARED,
    ]  # fmt: skip
    head = ["no merge of these candidates", *s["accused by kind"]]
    kinds = sorted({kind for column in s["accused by kind"].values() for kind in column})
    rows = [[kind, *(_few(column.get(kind)) for column in s["accused by kind"].values())] for kind in kinds]
    lines += ["", "Whom the tests accuse falsely, on the reporting half:", "", table(head, rows)]
    if sum(s["peer"].values()) or s["peer refusals"]:
        said = ", ".join(f"{summary} {count}" for summary, count in s["peer"].items())
        refused = "; ".join(f"{words} ({count})" for words, count in s["peer refusals"].items())
        lines += ["", f"On all cases the peer says {said}. It refuses with: {refused or 'nothing'}. {_HOW_PEER}"]
    return "\n".join(lines)


def _compared(row: Mapping[str, Any]) -> list[str]:
    recognised = [rate(row[key]) for key in ("unmodified", "modified")]
    return [*recognised, *(accused(row[key]) for key in ("accused_trained", "accused_kin"))]


def _few(p: Mapping[str, Any] | None) -> str:
    return counts(p) if p else "-"


def _power(s: Summary) -> str:
    power = s["power"]
    if not power:
        return ""
    names = list(power)
    rows = []
    for place, edges in enumerate(power[names[0]]):
        cells = [rate(power[name][place]["rate"]) for name in names]
        rows.append([f"{percent(edges['low'])} to {percent(edges['high'])}", *cells])
    text = [
        "### What it takes to be seen", "",
        "![Right verdicts by untouched share and by strength of later changes](images/evidence-power.png)", "",
        "Right verdicts on merges changed afterwards, by the true share of decisive weights that stayed as they were:",
        "", table(["share left", *names], rows),
    ]  # fmt: skip
    for group, rates in s["strengths"].items():
        cells = [rate(p) for p in rates.values()]
        text += ["", table([group, *rates], [["right", *cells]])]
    untouched = s["untouched"]
    if untouched["cases"]:
        extremes = "; ".join(
            f"{percent(e['estimated'])} for {percent(e['true'])} in {e['case']}"
            for e in (untouched["least"], untouched["most"])
        )
        ratio = f"median {untouched['median ratio']:.2f} in {untouched['cases']} cases"
        text += ["", f"The estimated untouched share over the true one: {ratio}; farthest off: {extremes}."]
    return "\n".join(text)


def _coefficients(s: Summary) -> str:
    rows = [
        [sort, _METHODS[method], str(of["cases"]), _error(of["median"]), _error(of["worst"]), of["worst case"]]
        for sort, methods in s["coefficients"].items() for method, of in methods.items()
    ]  # fmt: skip
    head = ["merges", "estimator", "cases", "median error", "worst error", "in"]
    return "\n".join([
        "### Coefficients", "",
        "![Cumulative errors of coefficients by estimator](images/evidence-coefficients.png)", "",
        "The largest distance of a coefficient from the true number, a merge:", "", table(head, rows),
    ])  # fmt: skip


def _error(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _calibration(s: Summary) -> str:
    outside = s["calibration"]["outside"]
    if not outside:
        return ""
    rows = [[name, f"{distance:.1e}"] for name, distance in sorted(outside.items(), key=lambda pair: -(pair[1] or 9e9))]
    return f"### Certified bounds without the true number\n\n{table(['case', 'outside by'], rows)}"


def _parts(s: Summary) -> str:
    if not s["parts"]:
        return ""
    rows = []
    for entry in s["parts"]:
        read = (
            f"{percent(entry['budget'])} of all bytes" if entry["budget"] else f"{entry['sample']:,} elements a tensor"
        )
        rows.append([read, rate(entry["right merges"]), rate(entry["right merges in full"]), accused(entry["accused"])])
    head = ["read", "right on merges", "the same cases, read in full", "others falsely accused"]
    return f"### From a part of the weights\n\n{table(head, rows)}"
