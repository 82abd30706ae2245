"""The report as it is read in a terminal, or as plain text where there is none; and the progress of a run."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from reconstruct.byte_size import byte_text
from reconstruct.evidence import ModelEvidence
from reconstruct.recipe import Recipe
from reconstruct.report.console_tables import (
    coefficient_table,
    orientation_table,
    parameter_table,
    pool_table,
    reason_table,
    recipe_lines,
)
from reconstruct.report.wording import VERDICT_WORDS, number, origin_word, share, shorten, varies
from reconstruct.staged_reading import StagedReading
from reconstruct.verdict import Verdict

__all__ = ["ByteProgress", "print_report", "progress"]


def print_report(
    console: Console,
    evidence: ModelEvidence,
    verdict: Verdict,
    suspect: str,
    left_out: int,
    revisions: Sequence[str] = (),
    reading: StagedReading | None = None,
) -> None:
    """Print verdict, coefficients, evidence by layer and module kind, reasons, notes and limits.

    `left_out`: tensors of the suspect that could not be compared; `revisions`: repositories and commits that were read;
    `reading`: what a byte budget allowed to read.
    """
    title = Text.assemble((VERDICT_WORDS[verdict.kind], "bold"), f"   {shorten(suspect, 60)}")
    console.print(title, highlight=False)
    _pairs(console, [("", verdict.summary)])
    elements = sum(t.measurement.elements for t in evidence.tensors)
    compared = f"{len(evidence.tensors):,} tensors with {elements:,} weights; {len(evidence.voting):,} tensors vote"
    compared += f"; {left_out:,} could not be compared" if left_out else ""
    read = [("read", ", ".join(revisions))] if revisions else []
    read += _reading_lines(reading) if reading is not None else []
    _pairs(console, [("compared", compared), *read, *recipe_lines(evidence, verdict)])
    origin = origin_word(evidence.estimate)
    _section(console, f"Coefficients of the whole model ({origin})", coefficient_table(evidence))
    _pairs(console, [("fit", _fit_line(evidence)), ("controls", _control_line(evidence))])
    if isinstance(verdict.recipe, Recipe) and varies(evidence):
        table, hidden = parameter_table(verdict.recipe)
        _section(console, "Parameters of the recipe", table, hidden, "recipe parameters")
    for by, pools in (("layer", evidence.layers), ("module kind", evidence.kinds)):
        if pools:
            table, hidden = pool_table(evidence, pools, "layer" if by == "layer" else "kind", console.width)
            _section(console, f"By {by}", table, hidden, f"{by}s")
    if evidence.orientations:
        heading = "Each model in the suspect's place, on samples of equal size from every tensor"
        _section(console, heading, orientation_table(evidence))
    _section(console, "Reasons", reason_table(verdict.reasons))
    for heading, lines in (("Notes", evidence.notes), ("Limits", verdict.limits)):
        if lines:
            console.print(Text(f"\n{heading}", style="bold"))
            _pairs(console, [("-", line) for line in lines])


def _reading_lines(reading: StagedReading) -> list[tuple[str, str]]:
    size, requests = sum(m.bytes for m in reading.models), sum(m.requests for m in reading.models)
    text = f"{byte_text(size)} of {byte_text(reading.budget)} allowed, in {requests:,} requests and "
    text += f"{len(reading.stages)} of {reading.planned} stages"
    return [("sampled", text), ("stopped", reading.stopped)]


def _section(console: Console, heading: str, table: Table, hidden: int = 0, what: str = "") -> None:
    console.print(Text(f"\n{heading}", style="bold"))
    console.print(Padding(table, (0, 0, 0, 2), expand=False), highlight=False)
    if hidden:
        console.print(Text(f"  {hidden:,} more {what} are hidden; tensors.parquet has every tensor."))


def _pairs(console: Console, lines: list[tuple[str, str]]) -> None:
    """Label and text, the text wrapped beside its label."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in lines:
        grid.add_row(Text(label), Text(text))
    console.print(Padding(grid, (0, 0, 0, 2 if lines[0][0] else 1), expand=False), highlight=False)


def _fit_line(evidence: ModelEvidence) -> str:
    estimate = evidence.estimate
    text = f"least squares explains {share(estimate.explained)} of the movement"
    text += f"; {share(evidence.box)} of the weights lie inside the rounding box"
    return text + ("; the sources' movements are collinear" if estimate.collinear else "")


def _control_line(evidence: ModelEvidence) -> str:
    controls = evidence.controls
    text = f"wrong recipes reproduce {share(controls.hit_rate)} of novel weights; permuted movements explain "
    text += f"{share(controls.explained)} and put {share(controls.box)} inside the box"
    return text + (f"; searched decoys reach z = {number(controls.spike_z, 3)}" if controls.spike_z else "")


class ByteProgress:
    """Progress in bytes, with rate and time left, one line a phase. Silent unless shown on a terminal."""

    def __init__(self, console: Console, enabled: bool) -> None:
        self._display: Progress | None = None
        self._task: TaskID | None = None
        if enabled and console.is_terminal:
            self._display = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=console,
            )

    def __enter__(self) -> Self:
        if self._display is not None:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()

    def phase(self, name: str, total_bytes: int | None) -> None:
        """Begin a phase; the one before stays as it is. `total_bytes` is None where it is not known."""
        if self._display is not None:
            self._task = self._display.add_task(name, total=total_bytes)

    def advance(self, bytes_: int) -> None:
        """Count bytes that are done. May be called from any thread."""
        if self._display is not None and self._task is not None:
            self._display.advance(self._task, bytes_)


def progress(console: Console, enabled: bool = True) -> ByteProgress:
    """A context manager that shows progress on this console if it is a terminal and `enabled`."""
    return ByteProgress(console, enabled)
