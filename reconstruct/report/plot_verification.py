"""A claimed recipe beside the weights: which share follows it in every layer, and what they say of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reconstruct.checkpoints.module_names import describe
from reconstruct.replay.comparison import CheckState, TensorCheck
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
    new_figure,
    source_names,
)  # fmt: skip
from reconstruct.report.wording import share

if TYPE_CHECKING:
    from reconstruct.verification.run import Verification

__all__ = ["claimed_and_fitted", "identical_per_layer"]

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_PANELS = 6


def identical_per_layer(result: Verification) -> Figure | None:
    """Share of weights identical to the recipe's output, one point a tensor over depth; None without a comparison."""
    compared = [c for c in result.checks if c.state is not CheckState.CANNOT_SAY and c.total]
    if not compared:
        return None
    modules = {c.name: describe(c.name) for c in compared}
    axis = LayerAxis.of(m.layer_label for m in modules.values())
    figure = new_figure(_finding(compared), f"claim {result.conclusion.kind.value}", result.suspect, "", 4.4)
    axes = figure.add_subplot()
    rng = np.random.default_rng(0)
    for matches, colour, marker in ((True, BLUE, "o"), (False, VERMILLION, "X")):
        members = [c for c in compared if (c.identical == c.total) is matches]
        places = [axis.position(modules[c.name].layer_label) for c in members]
        # Side by side: many tensors of a layer share one height.
        x = np.array(places) + rng.uniform(-0.28, 0.28, len(members))
        axes.plot(x, [c.share for c in members], marker=marker, color=colour, linestyle="none", markersize=6.5,
                  markeredgecolor="white", markeredgewidth=0.6, clip_on=False, zorder=3)  # fmt: skip
    lowest = min(c.share for c in compared)
    low = max(0.0, 1 - 1.25 * (1 - lowest)) if lowest < 0.999999 else 0.9
    axes.set_ylim(low, 1.0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.{2 if low > 0.95 else 0}f} %")
    axes.set_ylabel("weights identical to the recipe's")
    axes.grid(axis="y")
    axis.apply(axes)
    handles = [
        Line2D(
            [], [], color=BLUE, marker="o", linestyle="none", markersize=7, label="tensor identical to the last bit"
        ),
        Line2D([], [], color=VERMILLION, marker="X", linestyle="none", markersize=7, label="tensor that differs"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _finding(compared: Sequence[TensorCheck]) -> str:
    wrong = [c for c in compared if c.identical < c.total]
    if not wrong:
        return "Every weight is what the claimed recipe makes"
    layers = dict.fromkeys(describe(c.name).layer_label for c in wrong)
    identical = sum(c.identical for c in compared) / sum(c.total for c in compared)
    count = len({describe(c.name).layer_label for c in compared})
    named = f"in {'layer' if len(layers) == 1 else 'layers'} {', '.join(layers)}"
    where = named if len(layers) <= 4 else f"in {len(layers)} of {count} layers, embedding and head counted"
    return f"{share(identical)} of the weights are what the claimed recipe makes; others differ {where}"


def claimed_and_fitted(result: Verification) -> Figure | None:
    """Claimed coefficient and fitted one with its certified bounds, one panel a source; None without both."""
    run = result.run
    if run is None or not result.claimed or len(run.evidence.sources.names) < 2:
        return None
    tensors = [t for t in run.evidence.tensors if t.measurement.name in result.claimed and t.measurement.votes]
    if not tensors:
        return None
    names = source_names(run.evidence.sources.names)
    claimed = np.array([result.claimed[t.measurement.name] for t in tensors])
    fitted = np.array([np.concatenate([[1 - t.fit.interval.sum()], t.fit.interval]) for t in tensors])
    shown = [j for j in range(len(names)) if np.abs([claimed[:, j], fitted[:, j]]).max() >= 0.02][:_PANELS]
    if not shown:
        return None
    axis = LayerAxis.of(t.measurement.module.layer_label for t in tensors)
    gaps = np.abs(np.median(claimed, axis=0) - np.median(fitted, axis=0))
    worst = int(np.argmax(gaps))
    finding = (
        f"The weights put {names[worst]} at {np.median(fitted[:, worst]):.3f}, the claim at "
        f"{np.median(claimed[:, worst]):.3f}"
        if gaps[worst] > 0.002
        else "The fitted coefficients are those of the claim"
    )
    about = f"claim {result.conclusion.kind.value}"
    figure = new_figure(finding, about, result.suspect, "", 1.0 + 2.0 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    rng = np.random.default_rng(0)
    for axes, j, colour in zip(panels, shown, _COLOURS, strict=False):
        for n, tensor in enumerate(tensors):
            x = axis.position(tensor.measurement.module.layer_label) + rng.uniform(-0.28, 0.28)
            box = tensor.fit.affine
            bars = None
            if box is not None:
                low, high = (1 - box.high_sum, 1 - box.low_sum) if j == 0 else (box.low[j - 1], box.high[j - 1])
                bars = np.maximum([[fitted[n, j] - low], [high - fitted[n, j]]], 0)
            axes.errorbar(x, fitted[n, j], bars, fmt="o", color=colour, markersize=5.5, capsize=3, zorder=3)
            axes.plot([x - 0.1, x + 0.1], [claimed[n, j]] * 2, color=BLACK, linewidth=2.4, zorder=4)
        axes.set_title(names[j], loc="left", fontsize=12)
        axes.ticklabel_format(axis="y", useOffset=False, style="plain")
        axes.locator_params(axis="y", nbins=4)
        axes.grid(axis="y")
        values = np.concatenate([claimed[:, j], fitted[:, j]])
        middle, half = (values.max() + values.min()) / 2, max(np.ptp(values) * 0.6, 0.004)
        axes.set_ylim(middle - half, middle + half)
        axis.apply(axes, "layer" if j == shown[-1] else "")
    figure.supylabel("coefficient (share of each source)", fontsize=12.5)
    certified = any(t.fit.affine is not None for t in tensors)
    handles = [
        Line2D([], [], color=BLACK, linewidth=2.4, label="claimed"),
        Line2D([], [], color=GREY, marker="o", linewidth=1.3 if certified else 0.0,
               label="fitted, with certified bounds" if certified else "fitted"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
