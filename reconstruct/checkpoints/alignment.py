"""Pairing of the suspect's tensors with the base's and the parents', and the list of what cannot be paired and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from reconstruct.checkpoints.catalog import Catalog, DerivedTensor, TensorInfo
from reconstruct.checkpoints.expert_order import ExpertOrders, find_expert_orders, reorder_experts
from reconstruct.checkpoints.fused_modules import experts_block, take_apart
from reconstruct.checkpoints.inventory import Inventory
from reconstruct.checkpoints.layouts import fused_entry
from reconstruct.checkpoints.matching import not_a_weight, shared_rows, tied_to
from reconstruct.checkpoints.module_names import ModuleName, describe, short_name
from reconstruct.errors import AlignmentError

__all__ = ["AlignedTensor", "Alignment", "LeftOut", "align", "align_models"]


@dataclass(frozen=True, slots=True)
class AlignedTensor:
    """One tensor present in all models. `sources[0]` is the suspect's, then the other models' in the given order.

    `shape` is what is compared: with different vocabulary sizes only the common first rows. `gapped`: positions of
    sources whose numbers are known to lie on a lattice with gaps.
    """

    name: str
    module: ModuleName
    shape: tuple[int, ...]
    sources: tuple[TensorInfo, ...]
    notes: tuple[str, ...] = ()
    gapped: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        """Number of compared elements."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Vectors (norms, biases) are reported apart and never vote."""
        return sum(1 for n in self.shape if n > 1) >= 2


@dataclass(frozen=True, slots=True)
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


def align_models(suspect: Catalog, others: list[Catalog]) -> Alignment:
    """`align`, after looking at a few weights of the experts: where they lie in another order, the order is undone.

    Raises AlignmentError, and CheckpointError if weights cannot be read.
    """
    search = find_expert_orders(suspect, others)
    alignment = align(suspect, others, search.orders)
    if not search.unclear:
        return alignment
    noted: dict[str, list[str]] = {}
    for block, given in search.unclear:
        noted.setdefault(block, []).append(
            f"the experts do not correlate with those of {given}, in this order or in one that the routers show"
        )
    tensors = (
        replace(t, notes=(*t.notes, *noted.get(experts_block(short_name(t.name)), ()))) for t in alignment.tensors
    )
    return replace(alignment, tensors=tuple(tensors))


def align(suspect: Catalog, others: list[Catalog], orders: ExpertOrders | None = None) -> Alignment:
    """Pair every tensor of the suspect with one of each other model (base or first parent first).

    `orders`: for each other model the blocks whose experts lie in another order there than in the suspect.
    Raises AlignmentError if no floating-point tensor can be paired.
    """
    ours, *theirs = inventories = [Inventory(catalog) for catalog in (suspect, *others)]
    orders = orders or [{} for _ in others]
    take_apart(inventories, {block for found in orders for block in found})
    for inventory, found in zip(theirs, orders, strict=True):
        reorder_experts(inventory, found)
    aligned: list[AlignedTensor] = []
    left_out = [LeftOut(*item) for item in _not_paired(ours)]
    compared: list[set[str]] = [set() for _ in theirs]
    refused: list[dict[str, str]] = [{} for _ in theirs]
    for info in sorted(ours.tensors.values(), key=lambda t: (t.shard, t.begin)):
        partners = [inventory.find(info.name, unique=ours.unique(info.name)) for inventory in theirs]
        result = _pair(info, partners, theirs)
        if isinstance(result, AlignedTensor):
            aligned.append(result)
            for names, source in zip(compared, result.sources[1:], strict=True):
                names.add(source.name)
        else:
            left_out.append(LeftOut(info.name, ours.given, info.elements, result))
            for reasons, (partner, _) in zip(refused, partners, strict=True):
                if partner is not None:
                    reasons.setdefault(partner.name, result)
    for inventory, names, reasons in zip(theirs, compared, refused, strict=True):
        left_out += [
            LeftOut(t.name, inventory.given, t.elements, reasons.get(t.name) or _unmatched(t, suspect))
            for t in inventory.tensors.values()
            if t.name not in names
        ]
        left_out += [LeftOut(*item) for item in _not_paired(inventory)]
    if not aligned:
        raise _nothing_in_common(suspect, left_out)
    return Alignment(tuple(aligned), tuple(left_out))


def _not_paired(inventory: Inventory) -> Iterator[tuple[str, str, int, str]]:
    for name, reason in inventory.left_out.items():
        yield name, inventory.given, inventory.catalog.tensors[name].elements, reason


def _pair(
    info: TensorInfo, found: list[tuple[TensorInfo | None, str | None]], others: list[Inventory]
) -> AlignedTensor | str:
    """The aligned tensor, or the reason why there is none."""
    if reason := not_a_weight(info):
        return reason
    absent = [other.given for other, (partner, _) in zip(others, found, strict=True) if partner is None]
    if absent:
        return f"not in {', '.join(absent)}"
    sources, notes = [info], []
    shape = info.shape
    for other, (partner, note) in zip(others, found, strict=True):
        assert partner is not None
        if reason := not_a_weight(partner):
            return f"in {other.given}: {reason}"
        if partner.shape != shape:
            rows = shared_rows(info.name, shape, partner.shape)
            if rows is None:
                return f"shape {list(info.shape)} here, {list(partner.shape)} in {other.given}"
            shape = (rows, *shape[1:])
        if note:
            notes.append(note)
        sources.append(partner)
    givens = ["the suspect", *(other.given for other in others)]
    notes += _notes(info.name, shape, list(zip(givens, sources, strict=True)))
    gapped = tuple(i for i, source in enumerate(sources) if isinstance(source, DerivedTensor) and source.gapped)
    return AlignedTensor(info.name, describe(info.name), shape, tuple(sources), tuple(notes), gapped)


def _notes(name: str, shape: tuple[int, ...], stored: list[tuple[str, TensorInfo]]) -> list[str]:
    sources = [source for _, source in stored]
    notes = [f"in {given}: {t.note}" for given, t in stored if isinstance(t, DerivedTensor) and t.note]
    if len(shape) == 3 and (entry := fused_entry(name)) and entry.of_experts:
        notes.append(f"{shape[0]} experts in one tensor")
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
