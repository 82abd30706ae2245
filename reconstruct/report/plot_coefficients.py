"""The coefficients, layer by layer: one panel a source, with limits, least squares and the whole model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reconstruct.evidence import ModelEvidence, PoolEvidence
from reconstruct.report.layer_axis import LayerAxis
from reconstruct.report.plot_style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    new_figure,
    source_names,
)
from reconstruct.report.wording import (
    coefficient,
    coefficient_range,
    interval_word,
    joined,
    material_sources,
    origin_word,
    varies,
)
from reconstruct.verdict import Verdict

__all__ = ["coefficients_per_layer"]

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
_PANELS = len(_COLOURS)


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
    for axes, j, (low, high), colour in zip(panels, shown, spans, _COLOURS, strict=False):
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
    handles.append(Line2D([], [], color=BLACK, marker="D", markerfacecolor="none", linestyle="none", markersize=7,
                          label="least squares (biased by rounding)"))  # fmt: skip
    return handles
