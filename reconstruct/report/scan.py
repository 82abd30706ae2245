"""A scan for readers and for other programs: console, result.json, candidates.parquet."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconstruct.byte_size import byte_text
from reconstruct.report.wording import short_names, shorten
from reconstruct.scanning.result import CandidateKind, CandidateResult, Scan

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KIND_WORDS", "print_scan", "scan_json", "scan_table"]

KIND_WORDS = {
    CandidateKind.MATERIAL_PARENT: "parent (shown)",
    CandidateKind.COPY: "copy of suspect",
    CandidateKind.DERIVED: "derived",
    CandidateKind.MADE_FROM_SUSPECT: "made from suspect",
    CandidateKind.LEAD: "lead",
    CandidateKind.REDUNDANT: "redundant",
    CandidateKind.SHARES_BASE: "shares the base",
    CandidateKind.STRANGER: "stranger",
    CandidateKind.NOT_COMPARABLE: "not comparable",
}
_SCHEMA = 1
_SHOWN = 60  # rows of the table
_WIDTH = 40  # characters of a name in a sentence
_COLUMN = 16  # and in the table
#: Classes that need a sentence beside their row.
_EXPLAINED = {
    CandidateKind.MATERIAL_PARENT, CandidateKind.COPY, CandidateKind.DERIVED, CandidateKind.MADE_FROM_SUSPECT,
    CandidateKind.LEAD, CandidateKind.NOT_COMPARABLE,
}  # fmt: skip


def print_scan(console: Console, result: Scan) -> None:
    """Summary, candidates by class, reasons, the fits that were made, notes, and the command to run next."""
    console.print(Text.assemble(("scan", "bold"), f"   {shorten(result.suspect, 60)}"), highlight=False)
    _lines(console, [result.summary, _read_line(result)])
    order = list(CandidateKind)
    listed = sorted(result.candidates, key=lambda c: (order.index(c.kind), -abs(c.cosine or 0.0)))
    console.print(Text("\nCandidates", style="bold"))
    console.print(Padding(_table(listed[:_SHOWN]), (0, 0, 0, 2), expand=False), highlight=False)
    if len(listed) > _SHOWN:
        _lines(console, [f"{len(listed) - _SHOWN:,} more are hidden; candidates.parquet has every one."])
    if reasons := [f"{shorten(c.name, _WIDTH)}: {c.reason}" for c in listed[:_SHOWN] if c.kind in _EXPLAINED]:
        console.print(Text("\nReasons", style="bold"))
        _lines(console, reasons)
    if result.fits:
        console.print(Text("\nFits of the rows read", style="bold"))
        _lines(console, [f"{fit.verdict.replace('_', ' ')}: {_numbers(fit.coefficients)}" for fit in result.fits])
    console.print(Text("\nNotes", style="bold"))
    _lines(console, list(result.notes))
    if result.command is not None:
        console.print(Text("\nTo run next", style="bold"))
        console.print(Text(f"  {result.command}"), soft_wrap=True, highlight=False)


def _read_line(result: Scan) -> str:
    text = f"{len(result.candidates):,} candidates; of each model {result.elements:,} weights in {result.matrices:,} "
    text += f"matrices were read ({byte_text(result.bytes)} of the suspect)"
    if result.pivot is not None:
        text += f"; movements are measured from {shorten(result.pivot, _WIDTH)}"
    if result.unexplained is not None:
        text += f"; the selection leaves {result.unexplained:.3g} of the suspect's movement unexplained"
    return text


def _numbers(coefficients: dict[str, float]) -> str:
    names = short_names(list(coefficients), _WIDTH)
    return ", ".join(f"{value:.4f} of {name}" for name, value in zip(names, coefficients.values(), strict=True))


def _lines(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, 2)), highlight=False)


def _table(candidates: list[CandidateResult]) -> Table:
    table = Table(
        "candidate", "class", "cosine\nraw", "cosine\nmoved", "coeffi-\ncient", "z\nalone", "z\nbeside", box=None
    )
    for column, width in zip(table.columns, (_COLUMN, 0, 5, 6, 7, 5, 6), strict=True):
        column.no_wrap = True
        column.min_width = width
        column.justify = "right" if column.header not in {"candidate", "class"} else "left"
    for name, c in zip(short_names([c.name for c in candidates], _COLUMN), candidates, strict=True):
        table.add_row(
            name, KIND_WORDS[c.kind], _number(c.likeness, ".3f"), _number(c.cosine, ".3f"),
            _number(c.coefficient, ".3f"), _number(c.z_alone, ".0f"), _number(c.z_beside, ".0f"),
        )  # fmt: skip
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def scan_json(result: Scan) -> str:
    """As text, with a final newline; free of times and of the run's place."""
    document: dict[str, Any] = {"schema": _SCHEMA, **result.to_dict()}
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def scan_table(result: Scan) -> pd.DataFrame:
    """One row a candidate, in the order given; NaN where a number was not measured; `group` joined by line breaks."""
    import pandas as pd

    words = ("name", "kind", "reason", "address")
    numbers = ("likeness", "cosine", "coefficient", "z_alone", "z_beside")
    columns: dict[str, Any] = {w: pd.array([str(getattr(c, w)) for c in result.candidates], "string") for w in words}
    for number in numbers:
        found = (getattr(c, number) for c in result.candidates)
        columns[number] = np.array([math.nan if value is None else value for value in found])
    columns["group"] = pd.array(["\n".join(c.group) for c in result.candidates], "string")
    return pd.DataFrame(columns)
