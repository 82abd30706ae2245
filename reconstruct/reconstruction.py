"""What a run returns: evidence, verdict, and ways to look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconstruct.checkpoints.alignment import LeftOut
from reconstruct.evidence import ModelEvidence, RecipeProof
from reconstruct.recipe import Recipe, WholeRecipe
from reconstruct.verdict import Verdict, decide

if TYPE_CHECKING:
    import pandas as pd

    from reconstruct.staged_reading import StagedReading

__all__ = ["Reconstruction", "with_proof"]


@dataclass(frozen=True)
class Reconstruction:
    """A finished run. `suspect` as given by the user; `left_out`: tensors that were not compared, and why;
    `folder`: where the run store lies; `revisions`: repository as given -> "org/name@commit". `reading`: what was read,
    and why no more, where a byte budget was set.
    """

    suspect: str
    evidence: ModelEvidence
    verdict: Verdict
    left_out: tuple[LeftOut, ...]
    folder: Path
    revisions: Mapping[str, str] = field(default_factory=dict)
    reading: StagedReading | None = None

    @property
    def recipe(self) -> Recipe | WholeRecipe | None:
        """The recipe that replays, if one does: `recipe.to_yaml()` is a mergekit configuration."""
        return self.verdict.recipe

    @property
    def coefficients(self) -> dict[str, float]:
        """Coefficient of every source, by its name as given."""
        e = self.evidence
        found = dict(zip(e.sources.names, e.estimate.coefficients.tolist(), strict=True))
        return found | {name: 0.0 for name, _ in e.sources.duplicates if name not in found}

    def table(self) -> pd.DataFrame:
        """One row a compared tensor."""
        from reconstruct.report.tables import tensor_table

        return tensor_table(self.evidence)

    def plot(self, folder: str | Path | None = None, formats: tuple[str, ...] = ("png", "svg")) -> list[Path]:
        """Draw the plots into `folder` (the run's report folder if left out); returns the files."""
        from reconstruct.report.plots import draw_plots

        target = Path(folder) if folder is not None else self.folder / "report"
        return draw_plots(self.evidence, self.verdict, self.suspect, target, formats)

    def to_dict(self) -> dict[str, Any]:
        """The content of result.json."""
        from reconstruct.report.result import result_document

        return result_document(self)


def with_proof(run: Reconstruction, proof: RecipeProof | None) -> Reconstruction:
    """The run with the proof of its recipe among the evidence, and the verdict that follows."""
    if proof is None:
        return run
    evidence = replace(run.evidence, proof=proof)
    return replace(run, evidence=evidence, verdict=decide(evidence))
