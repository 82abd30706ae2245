"""How far coefficients are off, by estimator: the share of merges whose worst coefficient is at most that far off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
import scores
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from observations import Observation

from reconstruct.report.plot_style import BLUE, GREEN, ORANGE, VERMILLION, log_ticks, new_figure

__all__ = ["plot_coefficient_errors"]

_FLOOR = 1e-9  # drawn in place of what is less
_LOOKS = {
    "least_squares": ("least squares", VERMILLION, ":"),
    "sum_to_one": ("the same, parents sum to 1", ORANGE, "--"),
    "interval": ("interval fit", GREEN, "-."),
    "estimate": ("final estimate", BLUE, "-"),
}
_TITLES = {"merge": "merges as they were made", "modified merge": "merges changed afterwards"}


def plot_coefficient_errors(runs: Sequence[Observation]) -> Figure:
    """Cumulative shares on a logarithmic axis of errors; one panel for merges as made, one for those changed after."""
    errors = {sort: scores.coefficient_errors(o for o in runs if o.truth.sort == sort) for sort in _TITLES}
    errors = {sort: of for sort, of in errors.items() if of["estimate"]}
    every = [e for of in errors.values() for cases in of.values() for e in cases.values()]
    first = next(iter(errors.values()))
    figure = new_figure(
        f"Half of the merges are known {_within(median(first['estimate'].values()))}; by least squares "
        f"{_within(median(first['least_squares'].values()))}",
        f"{len({o.truth.family for o in runs})} families, both halves", "coefficients of merges",
        "Per merge, the largest distance of a coefficient from the true number; less than 10⁻⁹ is drawn there. The "
        "same merges for every estimator.",
        4.4,
    )  # fmt: skip
    panels = figure.subplots(1, len(errors), sharey=True, squeeze=False)[0]
    for axes, (sort, of) in zip(panels, errors.items(), strict=True):
        low = max(min(every), _FLOOR)
        _panel(axes, of, low, max(*every, 10 * low))
        axes.set_title(f"{_TITLES[sort]} ({len(of['estimate'])})", loc="left")
    panels[0].set_ylabel("share of merges")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _within(error: float) -> str:
    """The error in words, with one digit and without an exponent."""
    if error < _FLOOR:
        return "exactly"
    return f"to within {np.format_float_positional(error, precision=1, fractional=False, trim='-')}"


def _panel(axes: Axes, errors: Mapping[str, Mapping[str, float]], low: float, high: float) -> None:
    for method, (label, colour, style) in _LOOKS.items():
        values = sorted(max(e, _FLOOR) for e in errors[method].values())
        steps = [k / len(values) for k in range(len(values) + 1)]
        axes.step([low / 2, *values, high * 2], [*steps, 1.0], where="post", color=colour, linestyle=style, linewidth=2,
                  label=label)  # fmt: skip
    axes.set_xscale("log")
    axes.set(xlim=(low / 2, high * 2), ylim=(0, 1.01), xlabel="error of the worst coefficient, at most")
    log_ticks(axes.xaxis, low, high)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(visible=True)
