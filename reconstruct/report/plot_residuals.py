"""What stays unexplained, layer by layer: between the rounding floor and what wrong recipes leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reconstruct.evidence import ModelEvidence, PoolEvidence
from reconstruct.report.layer_axis import LayerAxis
from reconstruct.report.plot_style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    log_ticks,
    name_of,
    new_figure,
)
from reconstruct.report.wording import layer_number, number
from reconstruct.verdict import Verdict

__all__ = ["residual_per_layer"]

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")
_KINDS = len(_MARKERS)  # lines of their own; further kinds share one


def residual_per_layer(evidence: ModelEvidence, verdict: Verdict, suspect: str) -> Figure | None:
    """RMS residual of every module kind over depth, between the rounding floor and the decoys; None without cells."""
    cells = [c for c in evidence.cells if c.layer is not None and np.isfinite(c.residual)]
    if not cells:
        return None
    axis = LayerAxis.of(c.layer for c in evidence.layers if c.layer is not None)
    figure = new_figure(_residual_finding(cells), verdict, suspect, "", 5.6)
    axes = figure.add_subplot()
    levels = [v for c in cells for v in (c.residual, c.floor, c.decoy_residual) if v > 0 and np.isfinite(v)]
    low, high = (min(levels) / 2, max(levels) * 1.6) if levels else (0.1, 10.0)
    inside = dict.fromkeys(c.kind for c in cells if layer_number(c.layer or "") is not None)
    size = {kind: sum(c.elements for c in cells if c.kind == kind) for kind in inside}
    own = sorted(inside, key=lambda kind: -size[kind])[: _KINDS if len(inside) <= _KINDS else _KINDS - 1]
    handles: list[Line2D | Patch] = []
    dodge = 0.5 / len(own) if own and len(axis.labels) <= 12 else 0.0  # side by side where there is room
    for n, kind in enumerate(k for k in inside if k in own):
        members = [c for c in cells if c.kind == kind]
        shift = dodge * (n - (len(own) - 1) / 2)
        line = "-" if n < len(_COLOURS) else "--"
        style = {"color": _COLOURS[n % len(_COLOURS)], "marker": _MARKERS[n], "linestyle": line}
        handles.append(_kind_line(axes, axis, members, style, low, shift, name_of(kind or "", 24)))
    others = [kind for kind in inside if kind not in own]
    if others:
        band = _band(axes, axis, [c for c in cells if c.kind in others])
        band.set_label(f"{len(others)} smaller kinds (range)")
        handles.append(band)
    outside = [c for c in cells if c.kind not in inside]
    if outside:
        style = {"color": GREY, "marker": "*", "linestyle": "none"}
        handles.append(_kind_line(axes, axis, outside, style, low, 0.0, "outside the blocks"))
    levels_drawn: tuple[tuple[str, str, Any, float], ...] = (
        ("decoy_residual", "wrong recipes (decoys)", (0, (2, 1.5)), 2.2),
        ("floor", "rounding floor", "-", 2.6),
    )
    for name, label, dashes, width in levels_drawn:
        if _layer_line(axes, axis, evidence.layers, name, dashes, width):
            handles.insert(0, Line2D([], [], color=BLACK, linestyle=dashes, linewidth=width, label=label))
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    log_ticks(axes.yaxis, low, high)
    axes.set_ylabel("RMS of suspect minus prediction, in weight units")
    axes.grid(axis="y")
    axis.apply(axes)
    if any(c.residual == 0 for c in cells):
        handles.append(Line2D([], [], color=GREY, marker="v", linestyle="none", markerfacecolor="white",
                              label="no residual at all"))  # fmt: skip
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
    return figure


def _residual_finding(cells: Sequence[PoolEvidence]) -> str:
    floors = np.array([c.residual / c.floor for c in cells if c.floor > 0])
    decoys = np.array([c.residual / c.decoy_residual for c in cells if c.decoy_residual > 0])
    if not len(floors):
        return "What the candidates leave unexplained, layer by layer"
    if floors.max() == 0:
        return "Nothing is left unexplained, in any layer"
    if floors.max() <= 1.15:
        return "What the recipe leaves unexplained is rounding alone, in every layer"
    typical = float(np.median(floors))
    text = f"What is left unexplained is {number(typical, 3)} times what rounding alone would leave"
    return f"{text}, {np.median(decoys):.0%} of what wrong recipes leave".replace("%", " %") if len(decoys) else text


def _kind_line(
    axes: Axes,
    axis: LayerAxis,
    members: Sequence[PoolEvidence],
    style: dict[str, Any],
    low: float,
    shift: float,
    label: str,
) -> Line2D:
    """One kind's residuals, joined between blocks. Zeros cannot stand on a logarithmic axis: they lie on its edge."""
    found = {c.layer: c.residual for c in members}
    if style["linestyle"] == "none":  # several kinds may lie outside the blocks in one layer
        x = [axis.position(c.layer or "") for c in members if c.residual > 0]
        axes.plot(x, [c.residual for c in members if c.residual > 0], markersize=11, markeredgecolor="white", **style)
    else:
        dense = len(axis.labels) > 30
        size, every = (5.0, max(len(axis.labels) // 12, 1)) if dense else (6.5, 1)
        for run in axis.runs():
            places = [i for i in run if found.get(axis.labels[i], 0) > 0]
            x = [float(axis.centres[i]) + shift for i in places]
            axes.plot(x, [found[axis.labels[i]] for i in places], markersize=size, markevery=every, linewidth=1.4,
                      markeredgecolor="white", markeredgewidth=0.5, **style)  # fmt: skip
    zeros = [axis.position(c.layer or "") + shift for c in members if c.residual == 0]
    if zeros:
        axes.plot(zeros, [low * 1.06] * len(zeros), marker="v", linestyle="none", color=style["color"], markersize=8,
                  markerfacecolor="white", clip_on=False)  # fmt: skip
    return Line2D([], [], markersize=7, linewidth=1.5, label=label, **style)


def _band(axes: Axes, axis: LayerAxis, members: Sequence[PoolEvidence]) -> Patch:
    """Lowest to highest residual of many kinds."""
    for run in axis.runs():
        rows = [(float(axis.centres[i]), [c.residual for c in members if c.layer == axis.labels[i] and c.residual > 0])
                for i in run]  # fmt: skip
        rows = [row for row in rows if row[1]]
        axes.fill_between([x for x, _ in rows], [min(v) for _, v in rows], [max(v) for _, v in rows], color="#C4C4C4",
                          linewidth=0, zorder=1)  # fmt: skip
    return Patch(color="#C4C4C4")


def _layer_line(
    axes: Axes, axis: LayerAxis, layers: Sequence[PoolEvidence], name: str, dashes: Any, width: float
) -> bool:
    """A level per layer, drawn over each layer's whole slot; whether there was one to draw."""
    levels = {c.layer: getattr(c, name) for c in layers if getattr(c, name) > 0}
    for run in axis.runs():
        places = [i for i in run if axis.labels[i] in levels]
        x = [edge for i in places for edge in (axis.edges[i], axis.edges[i + 1])]
        y = [levels[axis.labels[i]] for i in places for _ in (0, 1)]
        axes.plot(x, y, color=BLACK, linewidth=width, linestyle=dashes, zorder=1.5)
    return bool(levels)
