"""The sampled matrices found in a candidate, by name and shape; or the reason why it cannot be compared."""

from __future__ import annotations

from dataclasses import replace

from reconstruct.checkpoints.alignment import AlignedTensor, align
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.errors import AlignmentError
from reconstruct.scanning.rows import ScanRows

__all__ = ["pair"]


def pair(rows: ScanRows, suspect: Catalog, candidate: Catalog) -> tuple[AlignedTensor, ...]:
    """The tensors of `rows`, in their order, each with the candidate's as its only source. Headers only.

    Names may differ by wrappers, and experts or q, k, v may be fused in one of the two. Raises AlignmentError where a
    sampled matrix is missing or has another shape.
    """
    alignment = align(suspect, [candidate])
    found = {tensor.name: tensor for tensor in alignment.tensors}
    reasons = {item.name: item.reason for item in alignment.left_out if item.model == suspect.reference.given}
    paired, missing = [], []
    for tensor in rows.tensors:
        partner = found.get(tensor.name)
        if partner is None or partner.shape != tensor.shape:
            missing.append(tensor.name)
        else:
            paired.append(replace(tensor, sources=partner.sources[1:], gapped=()))
    if missing:
        first = missing[0]
        raise AlignmentError(
            f"{len(missing):,} of {len(rows.tensors):,} sampled matrices have no counterpart, {first} among them "
            f"({reasons.get(first, 'another layout')})",
            subject=candidate.reference.given, remedy="Only models of the suspect's architecture can be compared",
        )  # fmt: skip
    return tuple(paired)
