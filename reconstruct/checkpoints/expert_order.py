"""Experts in another order: the same model with its experts renumbered computes the same, but compares as unrelated.

A permutation is looked for only where experts of one number do not correlate. Router rows propose it (each expert has
one, in every block), sampled expert weights confirm it; where they do not, nothing is changed and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.fused_modules import expert_parts, experts_block, fused_tensors
from reconstruct.checkpoints.inventory import Inventory
from reconstruct.checkpoints.layouts import ROUTERS
from reconstruct.checkpoints.matching import not_a_weight
from reconstruct.checkpoints.module_names import short_name
from reconstruct.checkpoints.views import reordered
from reconstruct.kernels.formats import decode

__all__ = ["ExpertOrders", "Search", "find_expert_orders", "reorder_experts"]

#: Block of experts ("layers.0.mlp.experts.") -> for each expert of the suspect its number in the other model. One
#: mapping for every other model.
ExpertOrders = Sequence[Mapping[str, tuple[int, ...]]]

_CHECKED, _CONFIRMED = 4, 16  # experts looked at, in every block; where these do not correlate
_RUN = 2048  # weights of an expert that are read
_UNRELATED = 0.2  # cosine below which experts of one number are not the same expert
_SAME = 0.5  # cosine from which they are
_MARGIN = 0.1  # by which the router rows of the same expert are closer than any others
_CLEAR = 0.95  # share of the experts for which they must be


@dataclass(frozen=True)
class Search:
    """`orders`: what was found; `unclear`: (block, model as given) whose experts correlate in no order."""

    orders: ExpertOrders
    unclear: tuple[tuple[str, str], ...] = field(default=())


def find_expert_orders(suspect: Catalog, others: Sequence[Catalog]) -> Search:
    """Compare a few experts of every block; where they do not correlate, look for the order in which they do."""
    ours = _Experts(suspect)
    orders: list[dict[str, tuple[int, ...]]] = []
    unclear: list[tuple[str, str]] = []
    for theirs in map(_Experts, others):
        found: dict[str, tuple[int, ...]] = {}
        for block, experts in ours.blocks.items():
            partners = theirs.blocks.get(block, [])
            if len(experts) < 2 or [e.shape for e in experts] != [e.shape for e in partners]:
                continue
            order = _order(ours, theirs, block)
            if order is None:
                unclear.append((block, theirs.inventory.given))
            elif order != tuple(range(len(order))):
                found[block] = order
        orders.append(found)
    return Search(orders, tuple(unclear))


def reorder_experts(inventory: Inventory, orders: Mapping[str, tuple[int, ...]]) -> None:
    """Answer for expert n with expert `order[n]`, and for the router with its rows in that order."""
    for block, order in orders.items():
        note = f"the experts of {inventory.given} lie in another order: expert {{}} there is compared"
        for short, _ in inventory.under(block):
            number, _, rest = short.removeprefix(block).partition(".")
            if not number.isdecimal() or int(number) >= len(order):
                continue
            theirs = order[int(number)]
            if (partner := inventory.named(f"{block}{theirs}.{rest}")) is not None:
                inventory.give_instead(short, partner, note.format(theirs))
        for short, info in _routers(inventory, block):
            if info.shape[:1] == (len(order),):
                rows = f"rows in the order of the experts, which is another in {inventory.given}"
                inventory.give_instead(short, reordered(info, order), rows)


def _routers(inventory: Inventory, block: str) -> list[tuple[str, TensorInfo]]:
    shorts = [block.removesuffix("experts.") + ending for ending in ROUTERS]
    return [(short, info) for short in shorts if (info := inventory.named(short)) is not None]


class _Experts:
    """One matrix of every expert of every block of a checkpoint, in whatever way they are stored."""

    def __init__(self, catalog: Catalog) -> None:
        self.inventory = Inventory(catalog)
        self._samples: dict[tuple[str, int], NDArray[np.float64]] = {}  # the suspect's are asked for by every model
        numbered: dict[str, dict[int, TensorInfo]] = {}
        for info in self._matrices():
            short = short_name(info.name)
            block = experts_block(short)
            number, _, kind = short.removeprefix(block).partition(".")
            if number.isdecimal() and kind == "up_proj.weight" and not_a_weight(info) is None:
                numbered.setdefault(block, {})[int(number)] = info
        self.blocks = {
            block: [experts[n] for n in range(len(experts))]
            for block, experts in numbered.items()
            if block and sorted(experts) == list(range(len(experts)))
        }

    def _matrices(self) -> list[TensorInfo]:
        found = [info for name, info in self.inventory.tensors.items() if "experts." in name]
        for info, entry in fused_tensors(self.inventory):
            if entry.of_experts and "up" in entry.labels and len(info.shape) == 3:
                parts = expert_parts(self.inventory, info, entry, [self.inventory])
                found += parts if not isinstance(parts, str) else []
        return found

    def values(self, info: TensorInfo, start: int, stop: int) -> NDArray[np.float64]:
        """Elements [start, stop), as float64."""
        return decode(self.inventory.catalog.source.read(info, start, stop), info.dtype).astype(np.float64)

    def sample(self, block: str, expert: int) -> NDArray[np.float64]:
        """A run from the middle of an expert's matrix, float64 [n]."""
        if (block, expert) not in self._samples:
            info = self.blocks[block][expert]
            start = max((info.elements - _RUN) // 2, 0)
            self._samples[block, expert] = self.values(info, start, min(start + _RUN, info.elements))
        return self._samples[block, expert]

    def router(self, block: str) -> NDArray[np.float64] | None:
        """Its router's rows, float64 [experts, hidden], without what all have in common."""
        for _, info in _routers(self.inventory, block):
            if len(info.shape) == 2 and info.shape[0] == len(self.blocks[block]) and not_a_weight(info) is None:
                rows = self.values(info, 0, info.elements).reshape(info.shape)
                return np.asarray(rows - rows.mean(axis=0))
        return None


def _order(ours: _Experts, theirs: _Experts, block: str) -> tuple[int, ...] | None:
    """For each expert of ours its number in theirs; None if they correlate in no order."""
    count = len(ours.blocks[block])
    same = tuple(range(count))
    if _least_cosine(ours, theirs, block, same, _CHECKED) >= _UNRELATED:
        return same
    one, other = ours.router(block), theirs.router(block)
    if one is None or other is None or one.shape != other.shape:
        return None
    from scipy.optimize import linear_sum_assignment  # here: most models never need it

    cosines = _cosines(one, other)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    order = tuple(int(column) for column in columns)
    matched = cosines[rows, columns]
    rest = cosines.copy()
    rest[rows, columns] = -1
    clear = (matched >= _SAME) & (matched - np.maximum(rest.max(axis=0)[columns], rest.max(axis=1)) >= _MARGIN)
    if order == same or clear.mean() < _CLEAR:
        return None
    return order if _least_cosine(ours, theirs, block, order, _CONFIRMED) >= _SAME else None


def _least_cosine(ours: _Experts, theirs: _Experts, block: str, order: Sequence[int], experts: int) -> float:
    """Of the sampled weights of some experts, evenly spread, with their partners."""
    chosen = np.unique(np.linspace(0, len(order) - 1, experts).astype(int)).tolist()
    pairs = [(ours.sample(block, n)[None], theirs.sample(block, order[n])[None]) for n in chosen]
    return min(float(_cosines(one, other)[0, 0]) for one, other in pairs)


def _cosines(rows: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every row with every other: float64 [rows, others]; 0 where a row has no direction."""

    def directions(of: NDArray[np.float64]) -> NDArray[np.float64]:
        finite = np.nan_to_num(of, nan=0.0, posinf=0.0, neginf=0.0)
        return np.asarray(finite / np.maximum(np.linalg.norm(finite, axis=1, keepdims=True), 1e-300))

    return directions(rows) @ directions(others).T
