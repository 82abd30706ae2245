"""The plots of one run. Matplotlib is imported when the first plot is drawn, and never asked for a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reconstruct.evidence import ModelEvidence
from reconstruct.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reconstruct.verification.run import Verification

__all__ = ["PLOTS", "build_figures", "draw_plots", "draw_verification"]

#: File names, in the order in which a report shows them.
PLOTS = ("residual-per-layer", "coefficients-per-layer", "heat-map", "spike-histogram", "untouched-share")


def draw_plots(
    evidence: ModelEvidence, verdict: Verdict, suspect: str, folder: Path, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write every plot that has something to show, in every format ("png", "svg"). Raises ValueError on another one.

    The same evidence gives the same bytes. Safe to call from several threads.
    """
    unknown = sorted(set(formats) - {"png", "svg"})
    if unknown:
        raise ValueError(f"plots are written as png or svg, not as {', '.join(unknown)}")
    from reconstruct.report.plot_style import plot_settings, save

    folder.mkdir(parents=True, exist_ok=True)
    with plot_settings():
        return [
            save(figure, folder / f"{name}.{suffix}")
            for name, figure in build_figures(evidence, verdict, suspect).items()
            for suffix in formats
        ]


def draw_verification(result: Verification, folder: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write the plots of a verification that have something to show."""
    from reconstruct.report.plot_style import plot_settings, save, settle
    from reconstruct.report.plot_verification import claimed_and_fitted, identical_per_layer

    folder.mkdir(parents=True, exist_ok=True)
    with plot_settings():
        drawn = {"identical-per-layer": identical_per_layer(result), "claimed-and-fitted": claimed_and_fitted(result)}
        settled = {name: settle(figure) for name, figure in drawn.items() if figure is not None}
        return [save(figure, folder / f"{name}.{suffix}") for name, figure in settled.items() for suffix in formats]


def build_figures(evidence: ModelEvidence, verdict: Verdict, suspect: str) -> dict[str, Figure]:
    """The plots by name, laid out but not written; those with nothing to show are left out."""
    from reconstruct.report.plot_coefficients import coefficients_per_layer
    from reconstruct.report.plot_heat_map import heat_map
    from reconstruct.report.plot_residuals import residual_per_layer
    from reconstruct.report.plot_spikes import spike_histogram, untouched_share
    from reconstruct.report.plot_style import plot_settings, settle

    drawers = (residual_per_layer, coefficients_per_layer, heat_map, spike_histogram, untouched_share)
    with plot_settings():
        drawn = {name: draw(evidence, verdict, suspect) for name, draw in zip(PLOTS, drawers, strict=True)}
        return {name: settle(figure) for name, figure in drawn.items() if figure is not None}
