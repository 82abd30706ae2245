"""How plots look and how they reach the disk: one style, set only while drawing, the same bytes for the same evidence.

Colours are those of Okabe and Ito, told apart with any kind of colour vision; none carries meaning alone. Text stays
text in SVG files, so that it can be searched, read aloud and edited.
"""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from reconstruct.recipe import WholeRecipe
from reconstruct.report.wording import VERDICT_WORDS, short_names, shorten
from reconstruct.verdict import Verdict

__all__ = [
    "BLACK", "BLUE", "GREEN", "GREY", "ORANGE", "PALE", "PURPLE", "SKY", "SMALL", "VERMILLION", "legible", "log_ticks",
    "name_of", "new_figure", "plot_settings", "save", "settle", "source_names",
]  # fmt: skip

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE = "#5F5F5F", "#E4E4E4"
SMALL = 11.5  # points, the smallest text
_TITLE = 14.5
_WIDTH = 10.0  # inches
_DOTS = 150  # per inch
_LOCK = threading.RLock()
#: Groups of settings that a user's own style could change.
_GROUPS = ("agg", "axes", "errorbar", "figure", "font", "grid", "hatch", "image", "legend", "lines", "markers", "patch",
           "path", "savefig", "svg", "text", "xtick", "ytick")  # fmt: skip
_SETTINGS: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": SMALL,
    "axes.labelsize": 12.5,
    "axes.titlesize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DADADA",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.6,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "svg.hashsalt": "merge-reconstruct",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a model's name may hold dollar signs
    "text.usetex": False,
}


@contextmanager
def plot_settings() -> Iterator[None]:
    """Matplotlib's defaults and this style, whatever the user's configuration; one drawing at a time."""
    defaults = {k: v for k, v in mpl.rcParamsDefault.items() if k.split(".")[0] in _GROUPS}
    settings: dict[Any, Any] = {**defaults, **_SETTINGS}
    with _LOCK, mpl.rc_context(settings):
        yield


def new_figure(finding: str, verdict: Verdict | str, suspect: str, detail: str, height: float) -> Figure:
    """A figure with its heading: what is seen, in words; then whose weights these are, the verdict, and a detail."""
    lines = _balanced(legible(finding), 80)
    said = verdict if isinstance(verdict, str) else f"verdict: {VERDICT_WORDS[verdict.kind]}"
    remark = ""
    if isinstance(verdict, Verdict) and isinstance(verdict.recipe, WholeRecipe):
        families = " or ".join(verdict.recipe.families)
        remark = f"reproduced by {families}; shown is the nearest fixed blend, which is not that recipe"
    about = f"{name_of(suspect, 60)}   |   {said}"
    below = [about, *_balanced(remark, 112), *_balanced(legible(detail), 112)]
    head = 0.16 + 0.27 * len(lines) + 0.22 * len(below) + 0.08
    height += head
    figure = Figure(figsize=(_WIDTH, height), dpi=_DOTS, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0.008, 0.01, 0.984, 1 - head / height - 0.01), w_pad=0.06, h_pad=0.06)  # type: ignore[call-arg]
    top = 1 - 0.14 / height
    figure.text(0.015, top, "\n".join(lines), fontsize=_TITLE, fontweight="bold", va="top", linespacing=1.25)
    top -= (0.27 * len(lines) + 0.04) / height
    figure.text(0.015, top, below[0], fontsize=12.5, va="top")
    if len(below) > 1:
        top -= 0.23 / height
        figure.text(0.015, top, "\n".join(below[1:]), fontsize=SMALL, va="top", color=GREY, linespacing=1.25)
    return figure


def _balanced(text: str, limit: int) -> list[str]:
    """As few lines as the limit allows, of about equal length: no word is left alone on the last one."""
    text = text.replace(" %", "\u00a0%").replace("> ", ">\u00a0").replace("< ", "<\u00a0")
    fewest = len(textwrap.wrap(text, limit, break_on_hyphens=False))
    tries = (textwrap.wrap(text, width, break_on_hyphens=False) for width in range(20, limit + 1))
    return next(lines for lines in tries if len(lines) <= fewest)


def save(figure: Figure, path: Path) -> Path:
    """Write PNG or SVG, by the suffix, without dates and versions. The layout must have been settled once."""
    metadata: dict[str, Any] = {"Software": None}
    if path.suffix == ".svg":
        metadata = {"Date": None, "Creator": "merge-reconstruct"}
    figure.savefig(path, format=path.suffix[1:], dpi=_DOTS, metadata=metadata)
    return path


def settle(figure: Figure) -> Figure:
    """Compute the layout once and freeze it: every format gets the same picture."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def legible(text: str) -> str:
    """The text with every character the font cannot draw, and every control character, replaced."""
    return "".join(c if ord(c) in _glyphs() and c.isprintable() else "\ufffd" for c in text)


def source_names(names: Sequence[str], limit: int = 28) -> list[str]:
    """Names of the sources fit for a plot: legible, short and still told apart."""
    return [legible(name) for name in short_names(names, limit)]


def name_of(name: str, limit: int = 28) -> str:
    """A name fit for a plot: legible and cut in the middle."""
    return legible(shorten(name, limit))


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Readable ticks on a logarithmic axis: powers of ten, with 2 and 5 between them where few powers fit."""
    wide = high / low > 300
    axis.set_major_locator(LogLocator(base=10, subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=9))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_power))


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power(value: float, _: int | None = None) -> str:
    if value <= 0:
        return ""
    mantissa, exponent = f"{value:.0e}".split("e")
    if 0 <= int(exponent) <= 3:
        return f"{value:,.0f}"
    power = f"10{str(int(exponent)).translate(_RAISED)}"
    return power if mantissa == "1" else f"{mantissa}·{power}"
