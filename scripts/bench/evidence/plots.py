"""Pictures of the benchmark, in docs/images: what tests detect and accuse, what can be seen, what is off.

evidence-tests.png: detections against false accusations, for three tests. evidence-power.png: detections against the
untouched share, and against the strength of what was done to a merge. evidence-coefficients.png: errors of
coefficients, by estimator.
"""

from __future__ import annotations

from pathlib import Path

from observations import main_runs, read_observations
from peers import read_answers
from PIL import Image
from plot_coefficient_errors import plot_coefficient_errors
from plot_power import plot_power
from plot_tests import plot_tests

from reconstruct.report.plot_style import plot_settings, save, settle

__all__ = ["IMAGES", "main"]

IMAGES = Path(__file__).parents[3] / "docs" / "images"


def main(work: Path, images: Path = IMAGES) -> list[Path]:
    """Draw all pictures of the runs in `work`; returns where they are. One half alone: tests are not compared."""
    runs, answers = main_runs(read_observations(work)), read_answers(work)
    paths = []
    with plot_settings():
        figures = {"power": plot_power(runs), "coefficients": plot_coefficient_errors(runs)}
        if any(o.truth.half == "reporting" for o in runs):
            figures["tests"] = plot_tests(runs, answers)
        for name, figure in figures.items():
            path = save(settle(figure), images / f"evidence-{name}.png")
            # A palette makes a third of the size; this method keeps colours that few points have.
            Image.open(path).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
            paths.append(path)
            print(path)
    return paths
