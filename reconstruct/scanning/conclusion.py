"""From the sampled rows of all models to what is said of each candidate. Reads the run folder, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reconstruct.api import fit_sampled
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.reconstruction import Reconstruction
from reconstruct.scanning.classes import classify
from reconstruct.scanning.command import fit_command
from reconstruct.scanning.inner_products import Likeness, compare_raw, inner_products
from reconstruct.scanning.listing import Listing
from reconstruct.scanning.proof import Proof, prove, prove_exact
from reconstruct.scanning.reading import open_rows
from reconstruct.scanning.result import CandidateKind, CandidateResult, FitSummary, Scan
from reconstruct.scanning.rows import ScanRows
from reconstruct.scanning.selection import Selection, continued, select_candidates

__all__ = ["SAMPLED", "CandidateRecord", "candidate_file", "conclude"]

#: Folder of the sampled rows.
SAMPLED = "sampled"
#: Median cosine of raw matrices below which two models have no common origin; independent ones are within .1 of 0.
_STRANGER = 0.3
_SHARE = 0.02  # of a pivot that is a candidate: from there on it is fitted too
_ROUNDS = 4  # selections, each without the products found by then
_PARENTS = 8  # what a fit compares beside suspect and base, at most
_LIMITS = (
    "Only the rows read are spoken of; the fit below, on every weight, decides.",
    "Merges that keep or drop single elements (TIES, DARE) and slerps of wide angles may leave mere leads here.",
)
_CARDS = (
    "Cards are claims: a parent whose card does not name this base model is not in its tree, and children of children "
    "are not either."
)
_NO_BASE = (
    "No base was given: movements are measured from the nearest candidate, and what its own has in common with the "
    "others' makes innocent relatives resemble the suspect. A single parent cannot be fitted without base=."
)


@dataclass(frozen=True)
class CandidateRecord:
    """What is on record of a candidate. `address`: "" if it could not be opened; `refused`: why it cannot be compared,
    else empty; `again`: whether a later attempt may succeed.
    """

    address: str
    refused: str
    likeness: Likeness | None
    bytes: int
    again: bool = False


@dataclass(frozen=True)
class _Relatives:
    """The candidates that are compared by movements: their positions in the list, their rows, and for each the others
    whose rows are the same. `pivot`: position among them of the one that stands for a base, None if there is a base.
    """

    positions: tuple[int, ...]
    catalogs: tuple[Catalog, ...]
    twins: tuple[tuple[int, ...], ...]
    pivot: int | None


def candidate_file(folder: Path, number: int) -> Path:
    """Where the rows of a candidate lie, by its position in the list."""
    return folder / SAMPLED / f"candidate-{number}.safetensors"


def conclude(
    folder: Path, config: dict[str, Any], listing: Listing, records: Sequence[CandidateRecord], rows: ScanRows,
    threads: int,
) -> Scan:  # fmt: skip
    """Set aside what is no relative, select, prove, classify. `config`: see `run.scan`. Raises ReconstructError."""
    names = listing.names
    suspect = open_rows(folder / SAMPLED / "suspect.safetensors", config["scan"])
    base = open_rows(folder / SAMPLED / "base.safetensors", config["base"]) if config["base"] is not None else None
    least = 1 if base is not None else 2  # candidates that a fit needs
    results = {n: _set_aside(name, record) for n, (name, record) in enumerate(zip(names, records, strict=True))}
    origin = compare_raw(suspect, base) if base is not None else None
    relatives = _relatives(folder, records, results, origin.digest if origin is not None else None)
    given = [catalog.reference.given for catalog in relatives.catalogs]
    pivot = base if relatives.pivot is None else relatives.catalogs[relatives.pivot]
    leads: dict[int, float] = {}
    proof, unexplained = Proof(), None
    if pivot is not None and relatives.catalogs:
        products = inner_products(suspect, pivot, relatives.catalogs, config["seed"])
        selection = select_candidates(products)
        leads, unexplained = _leads(selection, relatives.pivot), selection.chosen.residual

        def fit_subset(members: tuple[int, ...]) -> Reconstruction:
            chosen = [relatives.catalogs[m] for m in members]
            numbers = "+".join(str(relatives.positions[m] + 1) for m in members)
            return fit_sampled(
                [suspect, *([base] if base is not None else []), *chosen], rows.coverage, has_base=base is not None,
                folder=folder / "fits" / numbers, seed=config["seed"], threads=threads,
            )  # fmt: skip

        for _ in range(_ROUNDS):
            known = proof.products
            if len(leads) >= least:
                proof = prove(selection, sorted(leads), products.similarity, given, fit_subset, least, proof)
            if proof.products == known:
                break
            # What is made from the suspect resembles it more than a parent does, and stood in their place.
            selection = select_candidates(products, proof.products)
            leads, unexplained = _leads(selection, relatives.pivot), selection.chosen.residual
        if proof.best is None and (near := continued(products)):
            # The suspect's own continuations explain it better than what it was merged from.
            other = select_candidates(products, (*proof.products, *near))
            others = _leads(other, relatives.pivot)
            if len(others) >= least:
                proof = prove_exact(
                    other, sorted(others), products.similarity, given, fit_subset, least, proof
                )  # fmt: skip
            if proof.best is not None:
                selection, leads, unexplained = other, others, other.chosen.residual
        classes = classify(leads, selection, products.similarity, proof, given)
        cosines = products.cosines
        for j, n in enumerate(relatives.positions):
            results[n] = replace(
                results[n], kind=classes.kinds[j], reason=classes.reasons[j], cosine=float(cosines[j]),
                coefficient=classes.coefficients[j], z_alone=selection.alone[j], z_beside=selection.beside[j],
                group=tuple(given[k] for k in classes.groups[j]),
            )  # fmt: skip
            if twins := relatives.twins[j]:
                alike = _with_twins(results[n], [results[k] for k in twins])
                results |= zip((n, *twins), alike, strict=True)
    parents = _to_fit(results, relatives, proof, leads, least)
    listed = tuple(results[n] for n in range(len(names)))
    fits = tuple(
        FitSummary(
            tuple(given[m] for m in t.members), t.verdict.value, t.summary,
            {given[m]: value for m, value in t.coefficients.items()}, f"fits/{t.folder}", t.searched,
        )
        for t in proof.trials
    )  # fmt: skip
    return Scan(
        config["scan"], config["base"], pivot.reference.given if pivot is not None else None, listed, fits, unexplained,
        len(rows.tensors), rows.coverage.elements, rows.bytes, _summary(listed, proof),
        fit_command(config["scan"], [listing.to_fit(name) for name in parents], config["base"]) if parents else None,
        (*_notes(origin), *_tree_notes(listing)), folder, listing.trees,
    )  # fmt: skip


def _notes(origin: Likeness | None) -> tuple[str, ...]:
    """`origin`: the base beside the suspect, None without a base."""
    if origin is None:
        return (*_LIMITS, _NO_BASE)
    if origin.identical:
        return (*_LIMITS, "Every weight read of the suspect is the base's: there is no movement to explain.")
    if origin.cosine < _STRANGER:
        return (*_LIMITS, f"The base does not resemble the suspect (cosine {origin.cosine:.2f}): is it the right one?")
    return _LIMITS


def _tree_notes(listing: Listing) -> tuple[str, ...]:
    sentences = tuple(tree.sentence() for tree in listing.trees)
    return (*sentences, _CARDS) if sentences else ()


def _blank(name: str, record: CandidateRecord) -> CandidateResult:
    likeness = record.likeness.cosine if record.likeness is not None else None
    return CandidateResult(name, CandidateKind.SHARES_BASE, "", record.address, likeness)


def _set_aside(name: str, record: CandidateRecord) -> CandidateResult:
    """The result of what needs no comparison of movements; a relative's is blank."""
    blank = _blank(name, record)
    if record.likeness is None:
        return replace(blank, kind=CandidateKind.NOT_COMPARABLE, reason=record.refused)
    if record.likeness.identical:
        return replace(blank, kind=CandidateKind.COPY, reason="every weight read is the suspect's")
    if record.likeness.cosine < _STRANGER:
        words = "its matrices resemble the suspect's no more than those of an independent training would"
        return replace(blank, kind=CandidateKind.STRANGER, reason=words)
    return blank


def _relatives(
    folder: Path, records: Sequence[CandidateRecord], results: dict[int, CandidateResult], base: str | None
) -> _Relatives:
    """Those that were not set aside, each set of rows once. `base`: digest of its rows."""
    groups: dict[str, list[int]] = {}
    distances: dict[int, float] = {}
    for n, record in enumerate(records):
        if record.likeness is None or results[n].reason:
            continue
        if record.likeness.digest == base:
            results[n] = replace(results[n], reason="every weight read is the base's")
            continue
        groups.setdefault(record.likeness.digest, []).append(n)
        distances[n] = record.likeness.distance
    positions = [members[0] for members in groups.values()]
    catalogs = [open_rows(candidate_file(folder, n), results[n].name) for n in positions]
    nearest = min(range(len(positions)), key=lambda j: distances[positions[j]], default=None)
    twins = tuple(tuple(members[1:]) for members in groups.values())
    return _Relatives(tuple(positions), tuple(catalogs), twins, nearest if base is None else None)


def _leads(selection: Selection, pivot: int | None) -> dict[int, float]:
    """What is selected with its weights; and the candidate in the base's place, if the others leave it a share."""
    found = dict(zip(selection.chosen.members, selection.chosen.weights, strict=True))
    rest = 1 - sum(found.values())
    return found | ({pivot: rest} if pivot is not None and found and rest >= _SHARE else {})


def _with_twins(result: CandidateResult, twins: Sequence[CandidateResult]) -> list[CandidateResult]:
    """The result for each of several candidates with the same rows: whose they were first, weights cannot tell."""
    names = (result.name, *(twin.name for twin in twins))
    kind = CandidateKind.LEAD if result.kind is CandidateKind.MATERIAL_PARENT else result.kind
    found = []
    for one in (result, *twins):
        others = tuple(name for name in names if name != one.name)
        group = (*others, *result.group)
        reason = f"{result.reason}; the rows read of {', '.join(others)} are the same: weights cannot tell which it was"
        found.append(replace(result, name=one.name, address=one.address, kind=kind, reason=reason, group=group))
    return found


def _to_fit(
    results: dict[int, CandidateResult], relatives: _Relatives, proof: Proof, leads: dict[int, float], least: int
) -> list[str]:
    """Parents of the fit to run next: those of the merge that is shown, else the leads, else nobody."""
    names = [results[n].name for n in relatives.positions]
    if proof.best is not None:
        return [names[j] for j in proof.best.material]
    wanted = [j for j in sorted(leads, key=lambda j: -leads[j]) if j not in proof.products]
    near = [j for j, n in enumerate(relatives.positions) if results[n].kind is CandidateKind.LEAD and j not in wanted]
    chosen = [*wanted, *near][:_PARENTS]
    return [names[j] for j in chosen] if len(chosen) >= least else []


def _summary(results: Sequence[CandidateResult], proof: Proof) -> str:
    shown = [r.name for r in results if r.kind is CandidateKind.MATERIAL_PARENT]
    leads = sum(r.kind in {CandidateKind.LEAD, CandidateKind.DERIVED} for r in results)
    if shown:
        verb = "is a material parent" if len(shown) == 1 else "are material parents"
        return f"{' and '.join(shown)} {verb} of the suspect, as far as it was read."
    if proof.best is not None:
        return "The rows read show a merge, but not of which candidates alone: several do as well."
    if leads:
        return f"No parent is shown. {leads} of {len(results)} candidates are leads, to be fitted."
    return "No candidate explains more of the suspect's movement than decoys do."
