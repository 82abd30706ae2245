"""Pairing of the suspect's tensors with the base's and the parents', and the list of what cannot be paired and why."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.matching import TensorFinder, not_a_weight, shared_rows, tied_to
from reconstruct.checkpoints.module_names import ModuleName, canonical_name, describe
from reconstruct.errors import AlignmentError

__all__ = ["AlignedTensor", "Alignment", "LeftOut", "align"]


@dataclass(frozen=True)
class AlignedTensor:
    """One tensor present in all models. `sources[0]` is the suspect's, then the other models' in the given order.

    `shape` is what is compared: with different vocabulary sizes only the common first rows.
    """

    name: str
    module: ModuleName
    shape: tuple[int, ...]
    sources: tuple[TensorInfo, ...]
    notes: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """Number of compared elements."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Vectors (norms, biases) are reported apart and never vote."""
        return sum(1 for n in self.shape if n > 1) >= 2


@dataclass(frozen=True)
class LeftOut:
    """A tensor that is not compared, in which model it was found, and why."""

    name: str
    model: str
    elements: int
    reason: str


@dataclass(frozen=True)
class Alignment:
    """What is compared and what is not: every tensor of every model is in one of the two."""

    tensors: tuple[AlignedTensor, ...]
    left_out: tuple[LeftOut, ...]


def align(suspect: Catalog, others: list[Catalog]) -> Alignment:
    """Pair every tensor of the suspect with one of each other model (base or first parent first).

    Raises AlignmentError if no floating-point tensor can be paired.
    """
    finders = [TensorFinder(catalog) for catalog in others]
    short_names = Counter(canonical_name(name) for name in suspect.tensors)
    aligned: list[AlignedTensor] = []
    left_out: list[LeftOut] = []
    compared: list[set[str]] = [set() for _ in others]
    refused: list[dict[str, str]] = [{} for _ in others]
    for info in sorted(suspect.tensors.values(), key=lambda t: (t.shard, t.begin)):
        found = [finder.find(info.name, unique=short_names[canonical_name(info.name)] == 1) for finder in finders]
        result = _pair(info, suspect, found, others)
        if isinstance(result, AlignedTensor):
            aligned.append(result)
            for names, source in zip(compared, result.sources[1:], strict=True):
                names.add(source.name)
        else:
            left_out.append(LeftOut(info.name, suspect.reference.given, info.elements, result))
            for reasons, (partner, _) in zip(refused, found, strict=True):
                if partner is not None:
                    reasons.setdefault(partner.name, result)
    for catalog, names, reasons in zip(others, compared, refused, strict=True):
        left_out += [
            LeftOut(t.name, catalog.reference.given, t.elements, reasons.get(t.name) or _unmatched(t, suspect))
            for t in catalog.tensors.values()
            if t.name not in names
        ]
    if not aligned:
        raise _nothing_in_common(suspect, left_out)
    return Alignment(tuple(aligned), tuple(left_out))


def _pair(
    info: TensorInfo, suspect: Catalog, found: list[tuple[TensorInfo | None, str | None]], others: list[Catalog]
) -> AlignedTensor | str:
    """The aligned tensor, or the reason why there is none."""
    if reason := not_a_weight(info, suspect):
        return reason
    absent = [c.reference.given for c, (partner, _) in zip(others, found, strict=True) if partner is None]
    if absent:
        return f"not in {', '.join(absent)}"
    sources, notes = [info], []
    shape = info.shape
    for catalog, (partner, note) in zip(others, found, strict=True):
        assert partner is not None
        given = catalog.reference.given
        if reason := not_a_weight(partner, catalog):
            return f"in {given}: {reason}"
        if partner.shape != shape:
            rows = shared_rows(info.name, shape, partner.shape)
            if rows is None:
                return f"shape {list(info.shape)} here, {list(partner.shape)} in {given}"
            shape = (rows, *shape[1:])
        if note:
            notes.append(note)
        sources.append(partner)
    notes += _notes(shape, sources)
    return AlignedTensor(info.name, describe(info.name), shape, tuple(sources), tuple(notes))


def _notes(shape: tuple[int, ...], sources: list[TensorInfo]) -> list[str]:
    notes = []
    if any(source.shape != shape for source in sources):
        sizes = ", ".join(str(source.shape[0]) for source in sources)
        notes.append(f"vocabulary sizes differ: the first {shape[0]} rows are compared ({sizes} in the models)")
    dtypes = [source.dtype for source in sources]
    if len(set(dtypes)) > 1:
        notes.append("stored as " + ", ".join(dtypes))
    if "F64" in dtypes:
        notes.append("float64 weights are examined at float32 precision")
    return notes


def _unmatched(info: TensorInfo, suspect: Catalog) -> str:
    """Why no tensor of the suspect asked for this one."""
    twin = tied_to(info.name, suspect)
    return f"not in the suspect, which uses {twin} in its place" if twin else "not in the suspect"


def _nothing_in_common(suspect: Catalog, left_out: list[LeftOut]) -> AlignmentError:
    reasons = Counter(item.reason for item in left_out if item.model == suspect.reference.given)
    listed = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3)) or "it has no tensors"
    return AlignmentError(
        f"no floating-point tensor in common with every candidate: {listed}",
        subject=suspect.reference.given,
        remedy="Check that all models have the same architecture",
    )
