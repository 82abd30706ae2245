"""What a scan says of every candidate, and the whole of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconstruct.scanning.listing import TreeListing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CandidateKind", "CandidateResult", "FitSummary", "Scan"]


class CandidateKind(StrEnum):
    """What the sampled weights show of a candidate, the strongest first."""

    MATERIAL_PARENT = "material_parent"
    COPY = "copy"
    DERIVED = "derived"
    MADE_FROM_SUSPECT = "made_from_suspect"
    LEAD = "lead"
    REDUNDANT = "redundant"
    SHARES_BASE = "shares_base"
    STRANGER = "stranger"
    NOT_COMPARABLE = "not_comparable"


@dataclass(frozen=True)
class CandidateResult:
    """`name` as given; `address`: what was read (a repository with its commit), "" if it could not be opened.
    `likeness`: cosine of raw weights with the suspect's, median over matrices; `cosine`: of the movements from the
    pivot, pooled; `coefficient` in the selection, or in the fit that shows the merge; `z_alone`, `z_beside`: standard
    errors beyond the best decoy by itself, and beside the selected ones. None where it was not measured.
    `group`: candidates whose movement is so like this one's that regression cannot tell them apart.
    """

    name: str
    kind: CandidateKind
    reason: str
    address: str = ""
    likeness: float | None = None
    cosine: float | None = None
    coefficient: float | None = None
    z_alone: float | None = None
    z_beside: float | None = None
    group: tuple[str, ...] = ()


@dataclass(frozen=True)
class FitSummary:
    """One fit on the sampled rows. `folder`: its run, within the scan's; `searched`: what shows a merge that was
    trained on, in standard errors, by the names of the thresholds.
    """

    parents: tuple[str, ...]
    verdict: str
    summary: str
    coefficients: dict[str, float]
    folder: str
    searched: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scan:
    """A finished scan. `pivot`: what movements were measured from; `matrices`, `elements`, `bytes`: read of each model;
    `unexplained`: share of the suspect's movement that the selection leaves; `command`: the fit to run next, as one
    shell line, None where there is nobody to fit; `folder`: where everything is kept; `trees`: what was listed for
    candidates given as "children:...".
    """

    suspect: str
    base: str | None
    pivot: str | None
    candidates: tuple[CandidateResult, ...]
    fits: tuple[FitSummary, ...]
    unexplained: float | None
    matrices: int
    elements: int
    bytes: int
    summary: str
    command: str | None
    notes: tuple[str, ...]
    folder: Path
    trees: tuple[TreeListing, ...] = ()

    def of_kind(self, kind: CandidateKind) -> list[str]:
        """Names of the candidates of one kind, in the order given."""
        return [c.name for c in self.candidates if c.kind is kind]

    @property
    def parents(self) -> list[str]:
        """The candidates that are shown to be material parents."""
        return self.of_kind(CandidateKind.MATERIAL_PARENT)

    def table(self) -> pd.DataFrame:
        """One row a candidate."""
        from reconstruct.report.scan import scan_table

        return scan_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the folder."""
        document = asdict(self)
        del document["folder"]
        for candidate in document["candidates"]:
            candidate["kind"] = candidate["kind"].value
        return document

    @classmethod
    def from_dict(cls, document: dict[str, Any], folder: Path) -> Scan:
        """The inverse of `to_dict`, by way of JSON."""
        candidates = tuple(
            CandidateResult(**c | {"kind": CandidateKind(c["kind"]), "group": tuple(c["group"])})
            for c in document["candidates"]
        )
        fits = tuple(FitSummary(**f | {"parents": tuple(f["parents"])}) for f in document["fits"])
        trees = tuple(map(TreeListing.from_dict, document["trees"]))
        lists = {"candidates": candidates, "fits": fits, "notes": tuple(document["notes"]), "trees": trees}
        return cls(**document | lists, folder=folder)
