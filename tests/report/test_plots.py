"""Plots: what they say, that nothing is cut off, and that the same evidence gives the same bytes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from reconstruct.report.plots import PLOTS, build_figures, draw_plots
from reconstruct.report.wording import VERDICT_WORDS
from reconstruct.verdict import VerdictKind

CASES = ("blend", "half", "alone", "nothing", "broken", "tall")
TOLERANCE = 1.0  # pixels


_DRAWN = {}


def figures(case):
    """Drawn once: the tests only look at them."""
    key = (id(case.evidence), id(case.verdict), case.suspect)
    if key not in _DRAWN:
        _DRAWN[key] = (case, build_figures(case.evidence, case.verdict, case.suspect))
    return _DRAWN[key][1]


def draw(case, folder, formats=("svg",)):
    return draw_plots(case.evidence, case.verdict, case.suspect, folder, formats)


def texts(figure):
    axes = [axis for a in figure.axes for axis in (a.xaxis, a.yaxis)]
    drawn = {tick.label1 for axis in axes for tick in axis._update_ticks()}
    ticks = {label for axis in axes for label in axis.get_ticklabels()}
    return [
        t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and (t in drawn or t not in ticks)
    ]


def words(figure):
    return "\n".join(t.get_text() for t in texts(figure)).replace("\xa0", " ")


def heading(figure):
    return " ".join(figure.texts[0].get_text().replace("\xa0", " ").split())


def test_every_plot_in_every_format(blend, tmp_path):
    files = draw(blend, tmp_path / "new" / "folder", ("png", "svg"))
    assert [f.name for f in files] == [f"{name}.{suffix}" for name in PLOTS for suffix in ("png", "svg")]
    for file in files:
        start = file.read_bytes()[:8]
        assert start == b"\x89PNG\r\n\x1a\n" if file.suffix == ".png" else start.startswith(b"<?xml")


def test_bytes_repeat_and_carry_no_date_or_version(blend, tmp_path):
    draw(blend, tmp_path / "b", ("svg", "png"))
    for first in draw(blend, tmp_path / "a", ("png", "svg")):
        twin = tmp_path / "b" / first.name
        assert first.read_bytes() == twin.read_bytes(), first.name
        assert b"Matplotlib v" not in first.read_bytes()
        assert b"dc:date" not in first.read_bytes()


def test_users_style_changes_nothing_and_stays_as_it_was(blend, tmp_path):
    expected = draw(blend, tmp_path / "a")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "path", "text.color": "red"}):
        styled = draw(blend, tmp_path / "b")
        assert mpl.rcParams["font.size"] == 30
    for first, second in zip(expected, styled, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_threads_draw_the_same(blend, half, tmp_path):
    jobs = [(case, tmp_path / str(n)) for n, case in enumerate((blend, half, blend, half))]
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda job: draw(*job), jobs))
    for a, b in ((0, 2), (1, 3)):
        assert [f.read_bytes() for f in drawn[a]] == [f.read_bytes() for f in drawn[b]]


@pytest.mark.parametrize("name", CASES)
def test_no_text_is_cut_off_or_small(name, request):
    for plot, figure in figures(request.getfixturevalue(name)).items():
        width, height = figure.bbox.size
        renderer = figure.canvas.get_renderer()
        for text in texts(figure):
            box = text.get_window_extent(renderer)
            inside = box.x0 >= -TOLERANCE and box.y0 >= -TOLERANCE
            inside = inside and box.x1 <= width + TOLERANCE and box.y1 <= height + TOLERANCE
            assert inside, (plot, text.get_text(), box)
            assert text.get_fontsize() >= 11, (plot, text.get_text())


@pytest.mark.parametrize(("plot", "label"), [
    ("residual-per-layer", "RMS of suspect minus prediction, in weight units"),
    ("coefficients-per-layer", "coefficient (share of each source)"),
    ("heat-map", "module kind"),
    ("spike-histogram", "suspect minus prediction, in spacings of the suspect's number format"),
    ("untouched-share", "share of decisive weights"),
])  # fmt: skip
def test_svg_holds_axis_labels_suspect_and_verdict_as_text(blend, tmp_path, plot, label):
    draw(blend, tmp_path)
    svg = (tmp_path / f"{plot}.svg").read_text("utf-8")
    assert f">{label}</text>" in svg
    assert "lab/blend   |   verdict: reproduced" in svg


def test_headings_say_what_is_seen(blend, half):
    exact, related = figures(blend), figures(half)
    assert (
        heading(exact["residual-per-layer"]) == "What the recipe leaves unexplained is rounding alone, in every layer"
    )
    assert (
        heading(exact["coefficients-per-layer"])
        == "The same coefficients in every layer: ft-code 0.565 and ft-docs 0.435"
    )
    assert heading(exact["heat-map"]) == "Every weight of every compared matrix is replayed exactly"
    assert heading(exact["spike-histogram"]).startswith("100 % of the decisive weights")
    assert "at 0.565 of ft-code" in heading(exact["untouched-share"])
    assert "times what rounding alone would leave" in heading(related["residual-per-layer"])
    assert "times the rounding floor" in heading(related["heat-map"])
    assert "spike at zero" not in words(related["spike-histogram"])


def test_residuals_stand_between_floor_and_decoys(blend):
    figure = figures(blend)["residual-per-layer"]
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    for cell in blend.evidence.cells:
        assert low < cell.floor < cell.decoy_residual < high
    labels = [t.get_text() for t in axes.get_xticklabels()]
    assert labels == ["embedding", "0", "1", "2", "head"]
    assert {"rounding floor", "wrong recipes (decoys)", "mlp.down_proj", "outside the blocks"} <= set(
        words(figure).split("\n")
    )


def test_coefficients_show_bounds_and_least_squares(blend, half):
    exact, related = words(figures(blend)["coefficients-per-layer"]), words(figures(half)["coefficients-per-layer"])
    assert "certified bounds" in exact
    assert "least squares (biased by rounding)" in exact
    assert "layer, 95 % limits" in related
    assert "layer, certified bounds" not in related


def test_heat_map_hatches_missing_matrices_and_prints_shares(blend):
    figure = figures(blend)["heat-map"]
    axes = figure.axes[0]
    cells, layers, kinds = (getattr(blend.evidence, name) for name in ("cells", "layers", "kinds"))
    hatched = [p for p in axes.patches if isinstance(p, Rectangle) and p.get_hatch()]
    assert len(hatched) == len(layers) * len(kinds) - len(cells)
    assert [t.get_text() for t in axes.texts] == ["100"] * len(cells)


def test_heat_map_shows_residuals_where_nothing_is_replayed(half):
    axes = figures(half)["heat-map"].axes[0]
    expected = sorted(f"{c.residual / c.floor:.2f}" for c in half.evidence.cells if c.residual / c.floor < 10)
    assert sorted(t.get_text() for t in axes.texts if float(t.get_text()) < 10) == expected


def test_histogram_draws_the_counts_of_every_stratum(half):
    figure = figures(half)["spike-histogram"]
    strata = half.evidence.strata
    steps = half.evidence.replay.steps[0]
    shown = [i for i, s in enumerate(strata) if s.count]
    for axes, i in zip(figure.axes, shown, strict=False):
        heights = sorted((round(p.get_x() + p.get_width() / 2), p.get_height()) for p in axes.patches)
        drawn = {x: max(h for at, h in heights if at == x) for x in range(-20, 21)}
        assert [drawn[x] for x in range(-20, 21)] == steps[i].tolist()
        assert f"{strata[i].reproduced:,} of {strata[i].count:,} at 0" in axes.get_title(loc="left")


def test_histogram_is_logarithmic_only_where_it_must_be(blend, half):
    assert figures(blend)["spike-histogram"].axes[0].get_yscale() == "log"
    assert figures(half)["spike-histogram"].axes[0].get_yscale() == "linear"


def test_curve_marks_the_coefficient_found(blend):
    figure = figures(blend)["untouched-share"]
    assert "coefficient found: 0.565" in words(figure)
    points = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(points, [row[:2] for row in blend.evidence.curve])


def test_plots_with_nothing_to_show_are_left_out(alone, nothing, broken):
    assert list(figures(nothing)) == []
    assert list(figures(alone)) == ["residual-per-layer", "heat-map"]
    assert "untouched-share" not in figures(broken)
    assert "coefficients-per-layer" in figures(broken)


def test_many_kinds_share_a_band_and_many_layers_are_thinned(tall):
    drawn = figures(tall)
    assert "11 smaller kinds (range)" in words(drawn["residual-per-layer"])
    labels = [t.get_text() for t in drawn["residual-per-layer"].axes[0].get_xticklabels()]
    assert labels[0] == "embed"
    assert labels[-1] == "head"
    assert 8 <= len(labels) <= 20
    assert not drawn["heat-map"].axes[0].texts  # no room for numbers


def test_long_names_are_cut_but_stay_apart(tall):
    titles = [axes.get_title(loc="left") for axes in figures(tall)["coefficients-per-layer"].axes]
    names = [title.split(":")[0] for title in titles]
    assert len(set(names)) == 3
    assert [name.split("-Instruct")[0] for name in names] == ["base", "ft-code", "ft-docs"]


@pytest.mark.parametrize("name", ["a_$model$_^{x", "模型", "two\nlines", "[bold]x[/]", "<&>"])
def test_any_name_can_be_drawn(blend, tmp_path, name):
    case = blend.named([name, "ft-code", "ft-docs"], name)
    assert len(draw(case, tmp_path)) == len(PLOTS)


@pytest.mark.parametrize("kind", list(VerdictKind))
def test_every_verdict_can_be_drawn(half, kind):
    drawn = figures(half.judged(kind))
    assert len(drawn) == len(PLOTS)
    assert all(VERDICT_WORDS[kind] in words(figure) for figure in drawn.values())


def test_a_single_stratum_and_four_of_them_have_room_for_the_legend(half):
    for count in (1, 2, 3, 4, 6):
        strata = tuple(replace(s, count=s.count if i >= 7 - count else 0) for i, s in enumerate(half.evidence.strata))
        case = replace(half, evidence=replace(half.evidence, strata=strata))
        figure = figures(case)["spike-histogram"]
        assert len(figure.axes) == count + 1  # panels and legend
        boxes = [axes.get_position() for axes in figure.axes]
        assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def test_other_formats_are_refused(blend, tmp_path):
    with pytest.raises(ValueError, match="png or svg, not as pdf"):
        draw(blend, tmp_path, ("pdf",))


def test_importing_the_package_imports_no_plotting():
    code = "import sys, reconstruct, reconstruct.report.plots, reconstruct.report.tables\n"
    code += "print([m for m in ('matplotlib', 'pandas', 'pyarrow') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
