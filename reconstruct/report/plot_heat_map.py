"""Layer by module kind: where the suspect is replayed exactly, or how far above the rounding floor it lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from reconstruct.evidence import ModelEvidence, PoolEvidence
from reconstruct.report.layer_axis import LayerAxis
from reconstruct.report.plot_style import PALE, SMALL, legible, name_of, new_figure
from reconstruct.report.wording import number, share
from reconstruct.verdict import Verdict, VerdictKind

__all__ = ["heat_map"]

_ROWS = 40
_PRINTED = 10  # columns in which a number finds room
_EXACT = (VerdictKind.REPRODUCED, VerdictKind.MERGE_THEN_MODIFIED, VerdictKind.COPY)


def heat_map(evidence: ModelEvidence, verdict: Verdict, suspect: str) -> Figure | None:
    """Layers across, module kinds down; hatched where the model has no such matrix; None without cells."""
    cells = [c for c in evidence.cells if c.layer is not None and c.kind is not None and c.elements]
    if not cells:
        return None
    exact = verdict.kind in _EXACT or evidence.arithmetic is not None
    axis = LayerAxis.of(c.layer for c in cells if c.layer is not None)
    kinds = _rows(cells, axis)
    grid = np.full((len(kinds), len(axis.labels)), np.nan)
    known = {(c.kind, c.layer): c for c in cells}
    for row, kind in enumerate(kinds):
        for column, layer in enumerate(axis.labels):
            cell = known.get((kind, layer))
            if cell is not None:
                grid[row, column] = cell.exact / cell.elements if exact else _above(cell)
    hidden = len({c.kind for c in cells}) - len(kinds)
    detail = f"{hidden} smaller module kinds are left out" if hidden else ""
    height = max(0.36 * min(len(kinds), 12) + 0.27 * max(len(kinds) - 12, 0) + 2.0, 4.2)
    figure = new_figure(_finding(cells, exact), verdict, suspect, detail, height)
    axes = figure.add_subplot()
    scale = _scale(grid, exact)
    colours = ScalarMappable(scale, "cividis")
    axes.pcolormesh(axis.edges, np.arange(len(kinds) + 1), np.ma.masked_invalid(grid), cmap="cividis", norm=scale,
                    edgecolors="white" if len(axis.labels) <= 40 else "none", linewidth=0.6)  # fmt: skip
    _hatch(axes, axis, np.array([[(k, label) not in known for label in axis.labels] for k in kinds]))
    if len(axis.labels) <= _PRINTED:
        _print(axes, axis, grid, colours, exact)
    axes.set_ylim(len(kinds), 0)
    axes.set_yticks(np.arange(len(kinds)) + 0.5, [name_of(kind, 26) for kind in kinds])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axis.apply(axes)
    axes.set_ylabel("module kind")
    bar = figure.colorbar(colours, ax=axes, pad=0.02, aspect=28)
    bar.outline.set_visible(False)
    if exact:
        bar.set_label("weights replayed exactly, share of all")
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
    else:
        bar.set_label("residual over rounding floor (logarithmic)")
        ticks = [m * 10.0**p for p in range(-3, 12) for m in (1, 2, 5)]
        low, high = scale.vmin or 0.0, scale.vmax or 1.0
        inside = [t for t in ticks if low - 1e-9 <= np.log10(t) <= high + 1e-9]
        inside = [t for t in inside if np.log10(t) % 1 == 0] if len(inside) > 10 else inside
        bar.set_ticks([float(np.log10(t)) for t in inside], labels=[f"{number(t)} ×" for t in inside])
    if not all((k, label) in known for k in kinds for label in axis.labels):
        handle = Patch(facecolor=PALE, edgecolor="#8A8A8A", hatch="////", label="no such matrix")
        figure.legend(handles=[handle], loc="outside lower right")
    return figure


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else number(ratio, 3)


def _rows(cells: Sequence[PoolEvidence], axis: LayerAxis) -> list[str]:
    """Kinds in the order in which the model runs through them, at most `_ROWS`, the largest."""
    first: dict[str, int] = {}
    size: dict[str, int] = {}
    for cell in cells:
        assert cell.kind is not None and cell.layer is not None
        place = axis.labels.index(cell.layer)
        first[cell.kind] = min(first.get(cell.kind, place), place)
        size[cell.kind] = size.get(cell.kind, 0) + cell.elements
    largest = sorted(size, key=lambda kind: -size[kind])[:_ROWS]
    return [kind for kind in sorted(first, key=lambda kind: first[kind]) if kind in largest]


def _above(cell: PoolEvidence) -> float:
    """log10 of residual over floor; a residual of 0 counts as a thousandth of the floor."""
    return float(np.log10(max(cell.residual / cell.floor, 1e-3))) if cell.floor > 0 else float("nan")


def _finding(cells: Sequence[PoolEvidence], exact: bool) -> str:
    if not exact:
        ratios = [c.residual / c.floor for c in cells if c.floor > 0]
        if not ratios:
            return "What the candidates leave unexplained, by layer and module kind"
        low, high, typical = (number(float(v), 3) for v in (min(ratios), max(ratios), np.median(ratios)))
        if low == high:
            return f"Residuals are {typical} times the rounding floor"
        return f"Residuals are {low} to {high} times the rounding floor, {typical} in the median matrix"
    total = sum(c.exact for c in cells) / sum(c.elements for c in cells)
    worst = min(cells, key=lambda c: c.exact / c.elements)
    if total == 1:
        return "Every weight of every compared matrix is replayed exactly"
    lowest = share(worst.exact / worst.elements, 2)
    return legible(f"{share(total, 2)} of the weights are replayed exactly; fewest in layer {worst.layer}, "
                   f"{worst.kind}: {lowest}")  # fmt: skip


def _scale(grid: NDArray[np.float64], exact: bool) -> Normalize:
    if exact:
        return Normalize(0, 1)
    finite = grid[np.isfinite(grid)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return Normalize(min(low, 0.0), max(high, min(low, 0.0) + 0.5))


def _hatch(axes: Axes, axis: LayerAxis, missing: NDArray[np.bool_]) -> None:
    for row, column in np.argwhere(missing):
        left, right = float(axis.edges[column]), float(axis.edges[column + 1])
        cell = Rectangle((left, float(row)), right - left, 1.0, facecolor=PALE, edgecolor="#8A8A8A", hatch="////")
        cell.set_linewidth(0.0)
        axes.add_patch(cell)


def _print(axes: Axes, axis: LayerAxis, grid: NDArray[np.float64], colours: ScalarMappable, exact: bool) -> None:
    for row, column in np.argwhere(np.isfinite(grid)):
        value = float(grid[row, column])
        red, green, blue, _ = colours.to_rgba(np.array([value]))[0]
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
        text = share(value).removesuffix(" %") if exact else _times(10**value)
        axes.text(float(axis.centres[column]), row + 0.5, text, ha="center", va="center", fontsize=SMALL,
                  color="white" if dark else "black")  # fmt: skip
