"""Two plots over depth: what stays unexplained per layer, and the coefficients per layer."""

from __future__ import annotations

from collections.abc import Sequence

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
    SMALL,
    VERMILLION,
    log_ticks,
    name_of,
    new_figure,
    source_names,
)
from reconstruct.report.wording import (
    coefficient,
    coefficient_range,
    interval_word,
    joined,
    layer_number,
    material_sources,
    number,
    origin_word,
    varies,
)
from reconstruct.verdict import Verdict

__all__ = ["coefficients_per_layer", "residual_per_layer"]

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")
_KINDS = len(_MARKERS)  # lines of their own; further kinds share one
_PANELS = 5


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
        style = {"color": _COLOURS[n % len(_COLOURS)], "marker": _MARKERS[n], "linestyle": "-" if n < len(_COLOURS) else "--"}
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
    for name, label, dashes, width in (("decoy_residual", "wrong recipes (decoys)", (0, (2, 1.5)), 2.2),
                                       ("floor", "rounding floor", "-", 2.6)):  # fmt: skip
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
    axes: Axes, axis: LayerAxis, members: Sequence[PoolEvidence], style: dict[str, str], low: float, shift: float,
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
            axes.plot(x, [found[axis.labels[i]] for i in places], markersize=size, markevery=every,
                      linewidth=1.2 if dense else 1.5, markeredgecolor="white", markeredgewidth=0.5, **style)  # fmt: skip
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
    axes: Axes, axis: LayerAxis, layers: Sequence[PoolEvidence], name: str, dashes: object, width: float
) -> bool:
    """A level per layer, drawn over each layer's whole slot; whether there was one to draw."""
    levels = {c.layer: getattr(c, name) for c in layers if getattr(c, name) > 0}
    for run in axis.runs():
        places = [i for i in run if axis.labels[i] in levels]
        x = [edge for i in places for edge in (axis.edges[i], axis.edges[i + 1])]
        y = [levels[axis.labels[i]] for i in places for _ in (0, 1)]
        axes.plot(x, y, color=BLACK, linewidth=width, linestyle=dashes, zorder=1.5)  # type: ignore[arg-type]
    return bool(levels)


def coefficients_per_layer(evidence: ModelEvidence, verdict: Verdict, suspect: str) -> Figure | None:
    """One panel a source: each layer's coefficient with its limits, least squares beside it, the whole model's as a
    line; None where there is but one source or nothing was fitted.
    """
    layers = [p for p in evidence.layers if p.layer is not None and np.isfinite(p.coefficients).all()]
    estimate = evidence.estimate
    if not layers or len(evidence.sources.names) < 2:
        return None
    largest = np.abs(np.vstack([estimate.coefficients, *(p.coefficients for p in layers)])).max(axis=0)
    shown = material_sources(largest, _PANELS)
    hidden = len(evidence.sources.names) - len(shown)
    axis = LayerAxis.of(p.layer for p in layers if p.layer is not None)
    detail = f"whole model: {origin_word(estimate)}; in brackets: {interval_word(evidence)}"
    detail += f"; {hidden} further sources have smaller coefficients" if hidden else ""
    finding = _coefficient_finding(evidence, layers, shown)
    figure = new_figure(finding, verdict, suspect, detail, 1.5 + 1.75 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    spans = [_span(evidence, layers, j) for j in shown]
    half = max(max(high - low for low, high in spans) * 0.58, 0.002)
    for axes, j, (low, high), colour in zip(panels, shown, spans, (BLUE, VERMILLION, GREEN, PURPLE, ORANGE), strict=False):
        _panel(axes, axis, evidence, layers, j, colour)
        axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
        axis.apply(axes, "layer" if j == shown[-1] else "")
    figure.supylabel("coefficient (share of each source)", fontsize=12.5)
    handles = _coefficient_handles(layers)
    figure.legend(handles=handles, loc="outside lower center", ncols=3 if len(handles) <= 3 else 2)
    return figure


def _coefficient_finding(evidence: ModelEvidence, layers: Sequence[PoolEvidence], shown: Sequence[int]) -> str:
    values = np.array([p.coefficients for p in layers])
    material = [j for j in shown if np.abs(values[:, j]).max() >= 0.02] or list(shown)
    spread = float(np.ptp(values[:, material], axis=0).max())
    names = source_names(evidence.sources.names)
    if spread <= 0.001:
        parts = [f"{names[j]} {coefficient(float(evidence.estimate.coefficients[j]))}" for j in material]
        return f"The same coefficients in every layer: {joined(parts)}"
    parts = [f"{names[j]} {values[:, j].min():.3f} to {values[:, j].max():.3f}" for j in material]
    recipe = evidence.recipe
    if recipe is not None and varies(evidence) and evidence.arithmetic is not None:
        kind = "One slerp" if recipe.partition == "constant" else f"The recipe varies by {recipe.partition}"
        return f"{kind}: {joined(parts)}"
    return f"Fitted layer by layer, the coefficients lie at {joined(parts)}"


def _span(evidence: ModelEvidence, layers: Sequence[PoolEvidence], j: int) -> tuple[float, float]:
    """Lowest and highest number that one panel must show; limits far outside may run off it."""
    points = [v for p in layers for v in (p.coefficients[j], p.least_squares[j]) if np.isfinite(v)]
    points.append(float(evidence.estimate.coefficients[j]))
    low, high = min(points), max(points)
    margin = max(high - low, 0.02)
    ends = [v for p in layers for v in (p.low[j], p.high[j]) if np.isfinite(v)]
    return max(min([low, *ends]), low - margin), min(max([high, *ends]), high + margin)


def _panel(
    axes: Axes, axis: LayerAxis, evidence: ModelEvidence, layers: Sequence[PoolEvidence], j: int, colour: str
) -> None:
    estimate, dense = evidence.estimate, len(axis.labels) > 30
    value, low, high = (float(v[j]) for v in (estimate.coefficients, estimate.low, estimate.high))
    axes.axhline(value, color=colour, linewidth=1.2, alpha=0.7, zorder=1)
    shift = 0.0 if dense else 0.14
    for p in layers:
        x = axis.position(p.layer or "")
        axes.plot(x + shift, p.least_squares[j], marker="D", markersize=5 if dense else 7, markerfacecolor="none",
                  markeredgecolor=BLACK, markeredgewidth=1.2, linestyle="none", zorder=2)  # fmt: skip
        limits = np.array([[p.coefficients[j] - p.low[j]], [p.high[j] - p.coefficients[j]]])
        bars = np.maximum(limits, 0) if np.isfinite(limits).all() else None
        axes.errorbar(x - shift, p.coefficients[j], bars, fmt="s" if p.certified else "o", color=colour,
                      markersize=4.5 if dense else 7, capsize=2 if dense else 4, elinewidth=2.6 if p.certified else 1.3,
                      zorder=3)  # fmt: skip
    name = source_names(evidence.sources.names, 40)[j]
    title = f"{name}:  {coefficient(value, low, high)}  {coefficient_range(low, high)}"
    axes.set_title(title, loc="left", fontsize=12, color=BLACK, pad=5)
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    axes.locator_params(axis="y", nbins=4)
    axes.grid(axis="y")


def _coefficient_handles(layers: Sequence[PoolEvidence]) -> list[Line2D]:
    finite = [bool(np.isfinite(p.low).all() and np.isfinite(p.high).all()) for p in layers]
    handles = []
    if any(p.certified for p in layers):
        handles.append(Line2D([], [], color=GREY, marker="s", linewidth=2.6, label="layer, certified bounds"))
    if any(f and not p.certified for p, f in zip(layers, finite, strict=True)):
        handles.append(Line2D([], [], color=GREY, marker="o", linewidth=1.3, label="layer, 95 % limits"))
    if not all(finite):
        handles.append(Line2D([], [], color=GREY, marker="o", linestyle="none", label="one tensor, no limits"))
    handles.append(Line2D([], [], color=GREY, linewidth=1.2, label="whole model"))
    handles.append(Line2D([], [], color=BLACK, marker="D", markerfacecolor="none", linestyle="none", markersize=SMALL / 1.6,
                          label="least squares (biased by rounding)"))  # fmt: skip
    return handles
