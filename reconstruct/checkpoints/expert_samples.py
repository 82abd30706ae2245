"""A few weights of the experts of a checkpoint, however it stores them, fetched together: each by itself is a request.

Where two experts lie side by side in a file, one read across the seam between them has weights of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import Catalog, DerivedTensor, TensorInfo
from reconstruct.checkpoints.fetch import Request, fetch_ranges
from reconstruct.checkpoints.fused_modules import expert_parts, experts_block, fused_tensors
from reconstruct.checkpoints.inventory import Inventory
from reconstruct.checkpoints.layouts import ROUTERS
from reconstruct.checkpoints.matching import not_a_weight
from reconstruct.checkpoints.module_names import short_name
from reconstruct.kernels.formats import decode

__all__ = ["ExpertSamples", "Spot", "routers"]

_RUN = 2048  # weights of an expert that are read
_KINDS = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
_MIDDLE = "up_proj.weight"  # the matrix that is looked at in its middle
_WORKERS = 16  # requests under way at once, where they are requests


@dataclass(frozen=True)
class Spot:
    """Elements [start, stop) of one matrix (`kind`: "up_proj.weight") of one expert of a block."""

    block: str
    expert: int
    kind: str
    start: int
    stop: int

    def of(self, expert: int) -> Spot:
        """The same place in another expert."""
        return Spot(self.block, expert, self.kind, self.start, self.stop)


def routers(inventory: Inventory, block: str) -> list[tuple[str, TensorInfo]]:
    """Short names and tensors of what may be the router of a block of experts."""
    shorts = [block.removesuffix("experts.") + ending for ending in ROUTERS]
    return [(short, info) for short in shorts if (info := inventory.named(short)) is not None]


class ExpertSamples:
    """The matrices of every expert of every block of a checkpoint. `blocks`: short name ("layers.0.mlp.experts.") ->
    for each expert its matrices by kind.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.inventory = Inventory(catalog)
        self._read: dict[Spot, NDArray[np.float64]] = {}  # the suspect's are asked for by every model
        numbered: dict[str, dict[int, dict[str, TensorInfo]]] = {}
        for info in self._matrices():
            short = short_name(info.name)
            block = experts_block(short)
            number, _, kind = short.removeprefix(block).partition(".")
            if number.isdecimal() and kind in _KINDS and not_a_weight(info) is None:
                numbered.setdefault(block, {}).setdefault(int(number), {})[kind] = info
        self.blocks = {
            block: [experts[n] for n in range(len(experts))]
            for block, experts in numbered.items()
            if block and sorted(experts) == list(range(len(experts))) and all(_MIDDLE in e for e in experts.values())
        }

    def _matrices(self) -> list[TensorInfo]:
        found = [info for name, info in self.inventory.tensors.items() if "experts." in name]
        for info, entry in fused_tensors(self.inventory):
            if entry.of_experts and len(info.shape) == 3:
                parts = expert_parts(self.inventory, info, entry, [self.inventory])
                found += parts if not isinstance(parts, str) else []
        return found

    def compares(self, other: ExpertSamples, spots: Sequence[Spot]) -> bool:
        """Whether the other checkpoint has as many experts in the block of these, of the same shapes where they are."""
        block, kinds = spots[0].block, {_MIDDLE, *(spot.kind for spot in spots)}
        ours, theirs = self.blocks[block], other.blocks.get(block, [])
        return len(ours) == len(theirs) and all(
            kind in partner and one[kind].shape == partner[kind].shape
            for one, partner in zip(ours, theirs, strict=True)
            for kind in kinds & one.keys()
        )

    def middles(self, block: str, count: int) -> list[Spot]:
        """The middle of one matrix of some experts, evenly spread."""
        chosen = np.unique(np.linspace(0, len(self.blocks[block]) - 1, count).astype(int)).tolist()
        found = []
        for expert in chosen:
            elements = self.blocks[block][expert][_MIDDLE].elements
            start = max((elements - _RUN) // 2, 0)
            found.append(Spot(block, expert, _MIDDLE, start, min(start + _RUN, elements)))
        return found

    def seams(self, block: str, count: int) -> list[Spot]:
        """Both sides of some places where one expert ends and another begins in the same file, evenly spread over the
        block; the middles of so many experts where there are too few.
        """
        stored = [
            (info.shard, info.begin, info.end, expert, kind, info.elements)
            for expert, kinds in enumerate(self.blocks[block])
            for kind, info in kinds.items()
            if not isinstance(info, DerivedTensor)
        ]
        stored.sort()
        by_expert = {
            before[3]: (before, after)
            for before, after in pairwise(stored)
            if before[0] == after[0] and before[2] == after[1] and before[3] != after[3]
        }
        touching = [by_expert[expert] for expert in sorted(by_expert)]
        wanted = count // 2
        chosen = [touching[(2 * k + 1) * len(touching) // (2 * wanted)] for k in range(wanted)] if touching else []
        if len({side[3] for seam in chosen for side in seam}) < count:
            return self.middles(block, count)
        found = []
        for (*_, expert, kind, elements), (*_, following, other, others) in chosen:
            found.append(Spot(block, expert, kind, max(elements - _RUN, 0), elements))
            found.append(Spot(block, following, other, 0, min(_RUN, others)))
        return found

    def fetch(self, spots: Iterable[Spot]) -> None:
        """Read all of these that are not there yet, together."""
        places: dict[Request, list[Spot]] = {}
        for spot in spots:
            if spot not in self._read:
                info = self.blocks[spot.block][spot.expert][spot.kind]
                places.setdefault((info, spot.start, spot.stop), []).append(spot)
        for request, values in self._values(list(places)):
            self._read |= dict.fromkeys(places[request], values)

    def sample(self, spot: Spot) -> NDArray[np.float64]:
        """The weights of a spot that was fetched, float64 [n]."""
        return self._read[spot]

    def router_rows(self, blocks: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Block -> its router's rows, float64 [experts, hidden], without what all have in common; where there is one.
        Read together.
        """
        wanted: dict[Request, str] = {}
        for block in blocks:
            for _, info in routers(self.inventory, block):
                if len(info.shape) == 2 and info.shape[0] == len(self.blocks[block]) and not_a_weight(info) is None:
                    wanted[info, 0, info.elements] = block
                    break
        found = {}
        for request, values in self._values(list(wanted)):
            rows = values.reshape(request[0].shape)
            found[wanted[request]] = np.asarray(rows - rows.mean(axis=0))
        return found

    def _values(self, requests: list[Request]) -> Iterable[tuple[Request, NDArray[np.float64]]]:
        if not requests:
            return
        for request, stored in fetch_ranges(self.inventory.catalog, requests, _WORKERS):
            yield request, decode(stored, request[0].dtype).astype(np.float64)
