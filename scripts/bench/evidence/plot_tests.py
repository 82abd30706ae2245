"""Receiver operating curves of least squares and of the peer, with the verdict of this program as a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import baselines
from comparison import peer_can_say
from curves import operating_curve
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from observations import Observation
from peers import PEER, PeerAnswer
from proportions import Proportion, proportion

from reconstruct.report.plot_style import BLACK, BLUE, GREEN, VERMILLION, new_figure

__all__ = ["plot_tests"]

_OFF = -0.012  # of the axes: left of 0, so that a curve along the axis is seen


def plot_tests(runs: Sequence[Observation], answers: Mapping[str, PeerAnswer]) -> Figure:
    """Detections of merges against false accusations of others, on the reporting half.

    To the left all its cases; to the right, if the peer was run, those that it answers and where MERGE could be right.
    """
    reporting = [o for o in runs if o.truth.half == "reporting"]
    rules = baselines.choose([o for o in runs if o.truth.half == "tuning"])
    answered = [o for o in reporting if peer_can_say(o, answers)]
    own = _own(reporting)
    naive = baselines.apply(rules[0].rule, reporting)
    figure = new_figure(
        f"The verdict accuses {own[0].hits} of {own[0].total} innocent models falsely; least squares with R², at its "
        f"best threshold, {naive.accused.hits} of {naive.accused.total}",
        f"{len({o.truth.family for o in reporting})} families, {len(reporting)} cases",
        "reporting half of the benchmark",
        "R² thresholds are chosen on the other half; the peer's are its own. Bars: 95 % bounds of Clopper and Pearson.",
        5.0,
    )
    panels = figure.subplots(1, 2 if answered else 1, squeeze=False, sharey=True)[0]
    _panel(panels[0], f"all {len(reporting)} cases", reporting, rules)
    if answered:
        _panel(panels[1], f"the {len(answered)} cases that {PEER.split('==')[0]} can answer", answered, rules)
        _peer(panels[1], answered, answers)
    panels[0].set_ylabel("merges recognised as merges")
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, columnspacing=3)
    return figure


def _own(cases: Sequence[Observation]) -> tuple[Proportion, Proportion]:
    accused = proportion(o.false_accusation for o in cases if not o.truth.is_merge)
    return accused, proportion(o.finding.accuses for o in cases if o.truth.is_merge)


def _panel(axes: Axes, title: str, cases: Sequence[Observation], rules: Sequence[baselines.BaselineScore]) -> None:
    accused, detected = _own(cases)
    with_base = rules[0].rule.with_base
    curve = operating_curve((o.truth.is_merge, baselines.score(o, with_base=with_base)) for o in cases)
    axes.plot(*zip(*curve, strict=True), color=VERMILLION, label="least squares: R², two sources with a share")
    for marker, found, words in zip("vs", rules, ("best balanced accuracy", "no false accusation"), strict=True):
        score = baselines.apply(found.rule, cases)
        axes.plot(score.accused.share, score.detected.share, marker, color=VERMILLION, markersize=8,
                  markeredgecolor=BLACK, clip_on=False, label=f"R² chosen for {words}")  # fmt: skip
    axes.errorbar(accused.share, detected.share, xerr=_bar(accused), yerr=_bar(detected), fmt="o", color=BLUE,
                  markersize=9, markeredgecolor=BLACK, capsize=3, clip_on=False, zorder=5,
                  label="verdict of reconstruct")  # fmt: skip
    axes.set_title(title, loc="left")
    axes.set(xlim=(_OFF, 1), ylim=(0, 1.01), xlabel="others falsely accused")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(visible=True)


def _peer(axes: Axes, cases: Sequence[Observation], answers: Mapping[str, PeerAnswer]) -> None:
    curve = operating_curve((o.truth.is_merge, answers[o.truth.name].score(o.truth.base)) for o in cases)
    name = PEER.replace("==", " ")
    axes.plot(*zip(*curve, strict=True), color=GREEN, linestyle="--", label=f"{name}: gain over one parent")
    said = [(o.truth.is_merge, bool(answers[o.truth.name].accuses)) for o in cases]
    accused, detected = (proportion(a for merge, a in said if merge is wanted) for wanted in (False, True))
    axes.errorbar(accused.share, detected.share, xerr=_bar(accused), yerr=_bar(detected), fmt="D", color=GREEN,
                  markersize=8, markeredgecolor=BLACK, capsize=3, clip_on=False,
                  label=f"{name}: its verdict MERGE")  # fmt: skip


def _bar(p: Proportion) -> list[list[float]]:
    """Lengths of an error bar, down and up."""
    return [[p.share - p.low], [p.high - p.share]]
