"""Two plots of single weights: how far they lie from the prediction, and how many the prediction hits as it moves."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from reconstruct.evidence import ModelEvidence
from reconstruct.kernels.results import MAXIMUM_STEPS
from reconstruct.report.plot_style import BLUE, GREY, SKY, VERMILLION, log_ticks, new_figure, source_names
from reconstruct.report.wording import coefficient, number, share, varies
from reconstruct.statistics.mixture import DECISIVE, Spike
from reconstruct.verdict import THRESHOLDS, Verdict, VerdictKind

__all__ = ["spike_histogram", "untouched_share"]

_NEAR = 0.0035  # a curve peaks at the coefficient found if it does within a few of its finest steps
_FLAT = 20.0  # a bar so many times the next one would flatten it on a linear scale


def spike_histogram(evidence: ModelEvidence, verdict: Verdict, suspect: str) -> Figure | None:
    """Differences in spacings, one panel a stratum of distance from the nearest source; None without novel weights."""
    steps = evidence.replay.steps[0]
    shown = [i for i, part in enumerate(evidence.strata) if part.count]
    if not shown:
        return None
    columns = {1: 1, 2: 2, 4: 2}.get(len(shown), 3)
    rows = -(-len(shown) // columns)
    detail = (
        "weights that differ from every source, by the distance of their prediction from the nearest source; only "
        "those 4 spacings away or more are decisive"
    )
    figure = new_figure(_finding(evidence, verdict), verdict, suspect, detail, 0.9 + 2.75 * rows + 0.3)
    spare = rows * columns > len(shown) and columns == 3  # the legend takes a free place, else a row of its own
    layout = figure.add_gridspec(rows + (not spare), columns, height_ratios=[1.0] * rows + [0.3] * (not spare))
    grid = [figure.add_subplot(layout[k // columns, k % columns]) for k in range(len(shown))]
    corner = figure.add_subplot(layout[divmod(len(shown), columns)] if spare else layout[-1, :])
    peaks = [steps[i][MAXIMUM_STEPS] / max(np.delete(steps[i], MAXIMUM_STEPS)[1:-1].max(), 1) for i in shown]
    logarithmic = max(peaks) > _FLAT
    for axes, i in zip(grid, shown, strict=True):
        _panel(axes, steps[i], evidence.strata[i], decisive=i >= DECISIVE, logarithmic=logarithmic)
    figure.supxlabel("suspect minus prediction, in spacings of the suspect's number format", fontsize=12.5)
    figure.supylabel("weights" + (" (logarithmic scale)" if logarithmic else ""), fontsize=12.5)
    handles = [
        Patch(color=BLUE, label="exactly as predicted"),
        Patch(color=SKY, label="other differences"),
        Patch(facecolor="white", edgecolor=GREY, hatch="////", label="20 spacings or more"),
        Line2D([], [], color=VERMILLION, linewidth=2.5, marker="D", markersize=6, markerfacecolor="white",
               label="expected at 0 if smooth"),
    ]  # fmt: skip
    corner.set_axis_off()
    corner.legend(handles=handles, loc="upper left" if spare else "center", borderaxespad=0, ncols=1 if spare else 2)
    return figure


def _finding(evidence: ModelEvidence, verdict: Verdict) -> str:
    spike = evidence.spike
    if verdict.kind is VerdictKind.REPRODUCED and spike.count and spike.hit_rate > 0.95:
        hits = share(spike.hit_rate, 2)
        return f"{hits} of the decisive weights are exactly as predicted, however far from every source"
    if spike.count < THRESHOLDS["novel elements"]:
        return "Hardly any prediction lies far enough from the sources to be decisive"
    if verdict.kind is VerdictKind.MERGE_THEN_MODIFIED:
        return (
            f"A spike at zero: {_ratio(spike)} as many decisive weights sit on the prediction as a smooth relation "
            "would put there"
        )
    return f"Decisive weights exactly as predicted: {_ratio(spike)} what their neighbours in the histogram imply"


def _ratio(spike: Spike) -> str:
    """Such as "1.02 times"; beyond a thousand the extrapolation carries no meaning."""
    return "over 1,000 times" if spike.ratio > 1000 else f"{spike.ratio:.2f} times"


def _panel(axes: Axes, counts: NDArray[np.int64], part: Spike, *, decisive: bool, logarithmic: bool) -> None:
    offsets = np.arange(-MAXIMUM_STEPS, MAXIMUM_STEPS + 1)
    inner = counts[1:-1]
    axes.bar(offsets[1:-1], inner, width=1.0, color=SKY, edgecolor="white", linewidth=0.3)
    axes.bar([offsets[0], offsets[-1]], [counts[0], counts[-1]], width=1.0, facecolor="white", edgecolor=GREY,
             hatch="////", linewidth=0.5)  # fmt: skip
    axes.bar([0], [counts[MAXIMUM_STEPS]], width=1.0, color=BLUE, edgecolor="white", linewidth=0.3)
    top = max(float(inner.max()), part.smooth, 1.0)
    if logarithmic:
        axes.set_yscale("log")
        low, high = 0.4, max(float(counts.max()), top) * 3
        axes.set_ylim(low, high)
        log_ticks(axes.yaxis, low, high)
    else:
        axes.set_ylim(0, top * 1.12)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.plot([-2.2, 2.2], [part.smooth, part.smooth], color=VERMILLION, linewidth=2.5, zorder=4)
    axes.plot([0], [part.smooth], marker="D", color=VERMILLION, markersize=5.5, markerfacecolor="white", zorder=5)
    axes.set_xlim(-MAXIMUM_STEPS - 0.8, MAXIMUM_STEPS + 0.8)
    axes.set_xticks([-20, -10, 0, 10, 20])
    away = f"{part.low:g} to {part.high:g} spacings" if np.isfinite(part.high) else f"over {part.low:g} spacings"
    away += " away" if decisive else ", not decisive"
    ratio = "over 1,000" if part.ratio > 1000 else f"{part.ratio:.2f}" if part.ratio < 100 else f"{part.ratio:.0f}"
    lines = (
        away,
        f"{part.reproduced:,} of {part.count:,} at 0",
        f"ratio {ratio}, z = {number(round(part.z, 1) if abs(part.z) < 10 else round(part.z), 4)}",
    )
    axes.set_title("\n".join(lines), loc="left", fontsize=11.5, color="black" if decisive else GREY)


def _thousands(value: float, _: int | None = None) -> str:
    return f"{value / 1000:g} k" if abs(value) >= 1000 else f"{value:g}"


def untouched_share(evidence: ModelEvidence, verdict: Verdict, suspect: str) -> Figure | None:
    """Decisive weights reproduced, and untouched beyond smoothness, as one coefficient moves; None without any."""
    curve = np.array([row for row in evidence.curve if np.isfinite(row[0])]).reshape(-1, 3)
    rates = curve[:, 1:]
    if len(curve) < 2 or not np.isfinite(rates).any() or np.nanmax(rates) <= 0:
        return None
    moved, found = _moved(evidence)
    name = source_names(evidence.sources.names)[moved]
    detail = "a sample of the whole model's decisive weights; other parents keep their coefficients"
    if varies(evidence):
        finding = f"No single coefficient of {name} fits all tensors: the recipe varies"
    else:
        finding = _curve_finding(curve, found, name, verdict)
    figure = new_figure(finding, verdict, suspect, detail, 5.0)
    axes = figure.add_subplot()
    axes.plot(curve[:, 0], curve[:, 1], color=BLUE, marker="o", markersize=5, linewidth=1.8, label="reproduced exactly")
    label = "untouched: reproduced beyond what a smooth relation explains"
    axes.plot(curve[:, 0], curve[:, 2], color=VERMILLION, marker="D", markersize=5, markerfacecolor="white",
              linewidth=1.8, linestyle="--", label=label)  # fmt: skip
    axes.axvline(found, color=GREY, linewidth=1.3, linestyle=":", label=f"coefficient found: {coefficient(found)}")
    top = float(np.nanmax(rates))
    axes.set_ylim(-0.02 * top, top * 1.08)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel(f"coefficient of {name}")
    axes.set_ylabel("share of decisive weights")
    axes.grid()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return figure


def _moved(evidence: ModelEvidence) -> tuple[int, float]:
    """The source whose coefficient the curve moves, and where it was found: the parent of largest weight."""
    voting = [evidence.tensors[i].coefficients for i in evidence.voting] or [evidence.estimate.coefficients]
    weights = np.median(voting, axis=0)
    moved = 1 + int(np.argmax(np.abs(weights[1:])))
    return moved, float(weights[moved])


def _curve_finding(curve: NDArray[np.float64], found: float, name: str, verdict: Verdict) -> str:
    rates = np.nan_to_num(curve[:, 2])
    best, peak = float(curve[int(np.argmax(rates)), 0]), float(rates.max())
    proven = verdict.kind in (VerdictKind.REPRODUCED, VerdictKind.MERGE_THEN_MODIFIED)
    if proven and abs(best - found) <= _NEAR:
        place = f"{coefficient(best)} of {name}"
        return f"Untouched weights peak at {place}: {share(peak)} of the decisive ones"
    return f"Whatever the coefficient of {name}, at most {share(peak)} of the decisive weights are untouched"
