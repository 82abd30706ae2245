"""Which rows a scan reads: the same of every model, planned on the suspect's matrices alone."""

from __future__ import annotations

from dataclasses import dataclass

from reconstruct.checkpoints.alignment import AlignedTensor, align
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.errors import CheckpointError
from reconstruct.evidence import Coverage
from reconstruct.row_sampling import RowRange, coverage_of, may_vote, plan_rows

__all__ = ["ScanRows", "plan_scan"]


@dataclass(frozen=True)
class ScanRows:
    """`tensors`: the suspect's matrices that are read, each aligned with itself alone; `ranges`: rows of them, by
    position in `tensors`; `coverage`: how much of the suspect's weights that is.
    """

    tensors: tuple[AlignedTensor, ...]
    ranges: tuple[RowRange, ...]
    coverage: Coverage

    @property
    def bytes(self) -> int:
        """Read of the suspect."""
        return sum(self.tensors[r.tensor].sources[0].cost(r.start, r.stop) for r in self.ranges)


def plan_scan(suspect: Catalog, budget: int, requests: int, seed: int) -> ScanRows:
    """Rows for `budget` bytes of the suspect in so many requests, stratified over layers and module kinds.

    Only matrices, as norms, biases and buffers of unrelated models resemble one another; and only those of the layers
    where there are any, as a candidate may have another vocabulary. Raises CheckpointError for a suspect without
    matrices of 1024 elements, ConfigurationError for a budget below one range.
    """
    every = align(suspect, []).tensors
    voting = [tensor for tensor in every if may_vote(tensor)]
    chosen = [tensor for tensor in voting if tensor.module.layer is not None] or voting
    if not chosen:
        raise CheckpointError(
            "no matrix of 1,024 elements or more", subject=suspect.reference.given,
            remedy="Vectors and small matrices of unrelated models resemble one another: nothing can be told from them",
        )  # fmt: skip
    plan = plan_rows(chosen, budget, requests, seed)
    ranges = [item for stage in plan.stages for item in stage]
    used = sorted({item.tensor for item in ranges})
    position = {old: new for new, old in enumerate(used)}
    tensors = tuple(chosen[old] for old in used)
    moved = tuple(RowRange(position[item.tensor], item.start, item.stop) for item in ranges)
    return ScanRows(tensors, moved, coverage_of(tensors, every, moved))
