"""Experts in another order: the same model with its experts renumbered computes the same, but compares as unrelated.

A permutation is looked for only where experts of one number do not correlate. Router rows propose it (each expert has
one, in every block), sampled expert weights confirm it; where they do not, nothing is changed and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.expert_samples import ExpertSamples, Spot, routers
from reconstruct.checkpoints.inventory import Inventory
from reconstruct.checkpoints.views import reordered

__all__ = ["ExpertOrders", "Search", "find_expert_orders", "reorder_experts"]

#: Block of experts ("layers.0.mlp.experts.") -> for each expert of the suspect its number in the other model. One
#: mapping for every other model.
ExpertOrders = Sequence[Mapping[str, tuple[int, ...]]]

_CHECKED, _CONFIRMED = 4, 16  # experts looked at, in every block; where these do not correlate
_TOGETHER = 8  # blocks whose routers are in memory at once
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
    ours = ExpertSamples(suspect)
    looked_at = {block: ours.seams(block, _CHECKED) for block, experts in ours.blocks.items() if len(experts) > 1}
    orders: list[dict[str, tuple[int, ...]]] = []
    unclear: list[tuple[str, str]] = []
    for theirs in map(ExpertSamples, others):
        spots = _comparable(ours, theirs, looked_at)
        same = {block: range(len(ours.blocks[block])) for block in spots}
        cosines = _least_cosines(ours, theirs, same, spots)
        differing = [block for block, cosine in cosines.items() if cosine < _UNRELATED]
        found: dict[str, tuple[int, ...]] = {}
        for some in (differing[k : k + _TOGETHER] for k in range(0, len(differing), _TOGETHER)):
            proposed = _proposed(ours, theirs, some)
            more = {block: ours.middles(block, _CONFIRMED) for block in proposed}
            confirmed = _least_cosines(ours, theirs, proposed, more)
            found |= {block: order for block, order in proposed.items() if confirmed[block] >= _SAME}
        unclear += [(block, theirs.inventory.given) for block in differing if block not in found]
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
        for short, info in routers(inventory, block):
            if info.shape[:1] == (len(order),):
                rows = f"rows in the order of the experts, which is another in {inventory.given}"
                inventory.give_instead(short, reordered(info, order), rows)


def _comparable(
    ours: ExpertSamples, theirs: ExpertSamples, looked_at: Mapping[str, Sequence[Spot]]
) -> dict[str, Sequence[Spot]]:
    """The spots of the blocks that can be compared; other ones where a matrix is not to be had in both."""
    found = {}
    for block, spots in looked_at.items():
        for these in (spots, ours.middles(block, _CHECKED)):
            if ours.compares(theirs, these):
                found[block] = these
                break
    return found


def _least_cosines(
    ours: ExpertSamples, theirs: ExpertSamples, orders: Mapping[str, Sequence[int]], spots: Mapping[str, Sequence[Spot]]
) -> dict[str, float]:
    """Of each block, the least cosine of sampled weights with those of the partner in the given order."""
    ours.fetch(spot for block in orders for spot in spots[block])
    theirs.fetch(spot.of(orders[block][spot.expert]) for block in orders for spot in spots[block])
    return {
        block: min(_cosine(ours.sample(s), theirs.sample(s.of(order[s.expert]))) for s in spots[block])
        for block, order in orders.items()
    }


def _proposed(ours: ExpertSamples, theirs: ExpertSamples, blocks: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """For each expert of ours its number in theirs, by the rows of the routers, in the blocks where they say so."""
    one, other = ours.router_rows(blocks), theirs.router_rows(blocks)
    found = {}
    for block in blocks:
        rows, others = one.get(block), other.get(block)
        if rows is None or others is None or rows.shape != others.shape:
            continue
        if (order := _matched(rows, others)) is not None:
            found[block] = order
    return found


def _matched(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[int, ...] | None:
    from scipy.optimize import linear_sum_assignment  # here: most models never need it

    cosines = _cosines(one, other)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    order = tuple(int(column) for column in columns)
    matched = cosines[rows, columns]
    rest = cosines.copy()
    rest[rows, columns] = -1
    clear = (matched >= _SAME) & (matched - np.maximum(rest.max(axis=0)[columns], rest.max(axis=1)) >= _MARGIN)
    return order if order != tuple(range(len(order))) and clear.mean() >= _CLEAR else None


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return 1.0 if np.array_equal(one, other) else float(_cosines(one[None], other[None])[0, 0])


def _cosines(rows: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every row with every other: float64 [rows, others]; 0 where a row has no direction."""

    def directions(of: NDArray[np.float64]) -> NDArray[np.float64]:
        finite = np.nan_to_num(of, nan=0.0, posinf=0.0, neginf=0.0)
        return np.asarray(finite / np.maximum(np.linalg.norm(finite, axis=1, keepdims=True), 1e-300))

    return directions(rows) @ directions(others).T
