"""How much of a merge must be left to be seen: detection by untouched share, and by the strength of what was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, PercentFormatter
from observations import Observation
from power import LARGE, power, proved, strengths
from proportions import Proportion, proportion

from reconstruct.report.plot_style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, new_figure

__all__ = ["plot_power"]

_LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"))
#: Groups whose strength is told in other units than the share left: the axis, and what values are multiplied by.
_UNITS = {"trained on": ("steps × rate × 1000", 1000.0), "noise": ("noise over movement", 1.0)}

_LEAST = 2e-4  # share left, where the axis begins


def plot_power(runs: Sequence[Observation]) -> Figure:
    """Right verdicts on modified merges: to the left and above by true untouched share, below by what was done."""
    measured = {o.truth.group for o in runs if o.truth.untouched is not None} | {*_UNITS}
    modified = [o for o in runs if o.truth.sort == "modified merge" and o.truth.group in measured]
    by_group = {
        group: [o for o in modified if o.truth.group == group] for group in sorted({o.truth.group for o in modified})
    }
    looks = dict(zip(by_group, _LOOKS, strict=False))
    shares = {
        g: cases for g, cases in by_group.items() if g in looks and any(o.truth.untouched is not None for o in cases)
    }
    strong = {g: rates for g, rates in sorted(strengths(modified).items()) if g in _UNITS and g in looks}
    right = proportion(o.right for o in modified)
    figure = new_figure(
        f"Of {right.total} merges that were changed afterwards, {right.hits} are recognised as merges; what counts is "
        "how many weights were left as they were",
        f"{len({o.truth.family for o in modified})} families, both halves", "merges modified afterwards",
        "To the left and above by the true share of decisive weights that nothing changed after the merge, below by "
        "what was done. Bars: 95 % bounds of Clopper and Pearson.", 6.0,
    )  # fmt: skip
    columns = max(len(shares), len(strong))
    grid = figure.add_gridspec(2, 1 + columns, width_ratios=(1.4, *[1] * columns))
    first = figure.add_subplot(grid[:, 0])
    _whole(first, modified)
    for column, (group, cases) in enumerate(shares.items(), start=1):
        axes = figure.add_subplot(grid[0, column], sharey=first)
        _by_share(axes, cases, *looks[group], group)
        axes.set_title(f"{group} ({len(cases)})", loc="left")
        axes.set_xlabel("share left")
        axes.tick_params(labelleft=False)
    for column, (group, rates) in enumerate(strong.items(), start=1):
        axes = figure.add_subplot(grid[1, column], sharey=first)
        label, factor = _UNITS[group]
        _by_strength(axes, {s * factor: rate for s, rate in rates.items()}, *looks[group])
        axes.set_title(f"{group} ({sum(rate.total for rate in rates.values())})", loc="left")
        axes.set_xlabel(label)
        axes.tick_params(labelleft=False)
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _whole(axes: Axes, modified: Sequence[Observation]) -> None:
    """All groups with a known share: every right verdict, those that unchanged weights prove, and large matrices."""
    large = [o for o in modified if o.finding.largest >= LARGE]
    _by_share(axes, modified, BLACK, "P", "called a merge")
    _by_share(axes, modified, SKY, "X", "proved by unchanged weights", 1.12, proved)
    _by_share(axes, large, VERMILLION, "v", "proved, in matrices of a million", 1.25, proved)
    axes.set_title(f"all with a known share ({sum(o.truth.untouched is not None for o in modified)})", loc="left")
    axes.set(xlabel="share of weights left", ylabel="recognised as merges")


def _by_share(
    axes: Axes, cases: Sequence[Observation], colour: str, marker: str, label: str, shift: float = 1,
    seen: Callable[[Observation], bool] = lambda o: o.right,
) -> None:  # fmt: skip
    bins = [b for b in power(cases, seen) if b.rate.total]
    if bins:
        places = [max(b.center, _LEAST * 1.4) * shift for b in bins]  # no share at all is drawn at the edge
        _points(axes, places, [b.rate for b in bins], colour, marker, label)
    axes.set_xscale("log")
    axes.set_xlim(_LEAST, 1.5)
    axes.xaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 1.0]))
    axes.xaxis.set_major_formatter(FixedFormatter([".1 %", "1 %", "10 %", "all"]))
    axes.xaxis.set_minor_locator(NullLocator())


def _by_strength(axes: Axes, rates: Mapping[float, Proportion], colour: str, marker: str) -> None:
    """Strengths at even distances: they were chosen, not measured."""
    places = list(range(len(rates)))
    _points(axes, places, list(rates.values()), colour, marker, "")
    labels = [f"{s:g}".removeprefix("0") for s in rates]
    axes.set_xticks(places, labels, rotation=45 if len("".join(labels)) > 14 else 0)
    axes.set_xlim(-0.5, len(rates) - 0.5)


def _points(
    axes: Axes, places: Sequence[float], rates: Sequence[Proportion], colour: str, marker: str, label: str
) -> None:
    bars = [[r.share - r.low for r in rates], [r.high - r.share for r in rates]]
    axes.errorbar(places, [r.share for r in rates], yerr=bars, color=colour, marker=marker, markersize=7, capsize=2.5,
                  linewidth=1.6, elinewidth=1, label=label, clip_on=False)  # fmt: skip
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(visible=True)
