"""Which rows are read under a byte budget: chosen from names, shapes and dtypes alone, the same in all models.

A draw is a run of neighbouring rows of one tensor, one range of each model's file. Draws go round all cells (a layer's
module of one kind); within a kind the layers are visited in steps of the golden ratio, so that any beginning of the
sequence is spread over depth and over module kinds. Each visit takes another expert, and once all were seen another
part of it. Norms and biases never vote: a small share of the budget reads some of them whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reconstruct.byte_size import byte_text
from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.errors import ConfigurationError
from reconstruct.evidence import Coverage
from reconstruct.kernels.formats import FLOAT_FORMATS

__all__ = ["ROW_PLAN", "RowPlan", "RowRange", "coverage_of", "may_vote", "plan_rows", "row_length"]

#: Name of this way to choose rows; what it draws must never change under the same name.
ROW_PLAN = "stratified rows, version 1"
_STAGES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the budget
_FIRST_STAGE = 16  # matrices drawn: with fewer nothing is decided
_VECTORS = 0.05  # share of bytes and requests for tensors that never vote
_VOTE = 1024  # elements below which a matrix never votes
_LEAST = 2048  # elements of a draw: room for the 500 in which sources must differ
_PREFERRED = 1 << 16  # bytes of a range: below, a request costs more than what it brings
_DRAWS = 64  # wanted before ranges grow to that
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class RowRange:
    """Elements [start, stop) of the flattened tensor at position `tensor` of the alignment; whole rows."""

    tensor: int
    start: int
    stop: int


@dataclass(frozen=True)
class RowPlan:
    """`stages`: what each stage reads beyond those before it. `bytes`, `requests`: of all stages and models, where no
    two ranges touch.
    """

    stages: tuple[tuple[RowRange, ...], ...]
    bytes: int
    requests: int


@dataclass(frozen=True)
class _Slot:
    """A tensor, or one expert of a fused tensor: rows [first, first + rows) of so many elements, in so many parts."""

    tensor: int
    first: int
    rows: int
    length: int
    parts: int

    def part(self, visit: int) -> RowRange:
        """The part that is read at a visit: all of them once, far apart."""
        k = visit * _coprime_step(self.parts) % self.parts
        begin, end = k * self.rows // self.parts, (k + 1) * self.rows // self.parts
        return RowRange(self.tensor, (self.first + begin) * self.length, (self.first + end) * self.length)


def row_length(tensor: AlignedTensor) -> int:
    """Elements of a row: along the last axis of more than one element; of a vector, all."""
    if not tensor.is_matrix:
        return tensor.elements
    return next(n for n in reversed(tensor.shape) if n > 1)


def may_vote(tensor: AlignedTensor) -> bool:
    """Whether the tensor is a matrix large enough to testify, if its sources differ."""
    return tensor.is_matrix and tensor.elements >= _VOTE


def coverage_of(read: Sequence[AlignedTensor], every: Sequence[AlignedTensor], ranges: Sequence[RowRange]) -> Coverage:
    """What `ranges`, of the tensors `read`, are of all tensors."""
    some, all_of = ([t for t in tensors if may_vote(t)] for tensors in (read, every))
    return Coverage(
        tensors=len(read), all_tensors=len(every),
        elements=sum(r.stop - r.start for r in ranges), all_elements=sum(t.elements for t in every),
        matrices=len(some), all_matrices=len(all_of),
        kinds=len({t.module.kind for t in some}), all_kinds=len({t.module.kind for t in all_of}),
        layers=len({t.module.layer_label for t in some}), all_layers=len({t.module.layer_label for t in all_of}),
    )  # fmt: skip


def plan_rows(tensors: Sequence[AlignedTensor], budget: int, requests: int, seed: int) -> RowPlan:
    """Plan for `budget` bytes in so many `requests`, both of all models together; a seeded sequence cut into stages.

    Raises ConfigurationError if the budget does not allow for a single range of each model.
    """
    widths = [sum(_itemsize(info.dtype) for info in tensor.sources) for tensor in tensors]
    models = len(tensors[0].sources)
    block = _range_bytes(budget // models, max(requests // models, 1)) * models
    voting = [(position, tensor) for position, tensor in enumerate(tensors) if may_vote(tensor)]
    others = [(position, tensor) for position, tensor in enumerate(tensors) if not may_vote(tensor)]
    generator = np.random.default_rng(seed)
    few = _Draws(_sequence(_cells(others, None), generator), tensors)
    cells = _cells(voting, block, widths)
    many = _Draws(_sequence(cells, generator), tensors)
    least = max(_FIRST_STAGE, len(cells))  # of every kind one: they come first
    stages: list[tuple[RowRange, ...]] = []
    waiting: list[RowRange] = []
    for share in _STAGES:
        waiting += few.take(int(_VECTORS * share * budget), int(_VECTORS * share * requests))
        waiting += many.take(int(share * budget) - few.bytes, int(share * requests) - few.requests)
        if waiting and (many.count >= least or share == 1.0 or many.exhausted):
            stages.append(tuple(waiting))
            waiting = []
    if not stages:
        size = least * min(_LEAST * widths[position] for position, _ in voting or others)
        raise ConfigurationError(
            f"{byte_text(budget)} in {requests} requests do not reach for one range of each of {models} models",
            subject="sampling.bytes", remedy=f"Allow for {byte_text(size)} or more",
        )  # fmt: skip
    return RowPlan(tuple(stages), few.bytes + many.bytes, few.requests + many.requests)


class _Draws:
    """A sequence of ranges, taken as far as bytes and requests allow. `bytes`, `requests`: taken so far."""

    def __init__(self, sequence: Iterator[RowRange], tensors: Sequence[AlignedTensor]) -> None:
        self._sequence, self._tensors, self._models = sequence, tensors, len(tensors[0].sources)
        self._next = next(sequence, None)
        self.bytes = self.requests = self.count = 0

    @property
    def exhausted(self) -> bool:
        """Whether all there is was taken."""
        return self._next is None

    def take(self, budget: int, requests: int) -> list[RowRange]:
        """Until the totals reach these limits."""
        taken = []
        while self._next is not None:
            sources = self._tensors[self._next.tensor].sources
            size = sum(info.cost(self._next.start, self._next.stop) for info in sources)
            if self.bytes + size > budget or self.requests + self._models > requests:
                break
            taken.append(self._next)
            self.bytes, self.requests, self.count = self.bytes + size, self.requests + self._models, self.count + 1
            self._next = next(self._sequence, None)
        return taken


def _itemsize(dtype: str) -> int:
    return np.dtype(FLOAT_FORMATS[dtype].storage).itemsize


def _range_bytes(budget: int, requests: int) -> int:
    """Bytes of a range of one model, whose share of the budget and of the requests is given: as many as spend the
    budget, and no fewer than a request is worth, unless that leaves too few draws.
    """
    return max(budget // requests, min(_PREFERRED, budget // _DRAWS))


_Cells = dict[str, list[list[_Slot]]]


def _cells(
    tensors: Sequence[tuple[int, AlignedTensor]], block: int | None, widths: Sequence[int] | None = None
) -> _Cells:
    """Module kind -> its layers in order -> slots. `block`: bytes of a draw from all models, None for whole tensors."""
    found: dict[str, dict[str, list[_Slot]]] = {}
    for position, tensor in tensors:
        layers = found.setdefault(tensor.module.kind, {})
        slots = layers.setdefault(tensor.module.layer_label, [])
        length = row_length(tensor)
        rows = tensor.elements // length
        if block is None or widths is None:
            slots.append(_Slot(position, 0, rows, length, 1))
            continue
        experts = _fused_experts(tensor, rows)
        rows //= experts
        wanted = max(block / (length * widths[position]), _LEAST / length, 2)
        # Parts differ from what is wanted by half of it at most, and none is too small to vote.
        parts = max(1, min(round(rows / wanted), rows * length // (_VOTE + length), rows // 2))
        slots += [_Slot(position, expert * rows, rows, length, parts) for expert in range(experts)]
    return {kind: list(layers.values()) for kind, layers in found.items()}


def _fused_experts(tensor: AlignedTensor, rows: int) -> int:
    """How many experts' matrices, two rows or more each, lie one after the other in a tensor [experts, ...]."""
    fused = len(tensor.shape) == 3 and "experts" in tensor.module.kind.split(".")
    return tensor.shape[0] if fused and rows >= 2 * tensor.shape[0] else 1


def _sequence(cells: _Cells, generator: np.random.Generator) -> Iterator[RowRange]:
    """All ranges, each once, round after round over the cells."""
    ordered: list[tuple[float, Iterator[RowRange]]] = []
    deepest = max(map(len, cells.values()), default=1)
    for layers in cells.values():
        count = len(layers)
        # Every kind's first layer comes before any kind's second.
        offset, jitter = int(generator.integers(count)), float(generator.random()) * count / deepest
        for i in range(count):
            layer = layers[(offset + i * _coprime_step(count)) % count]
            start = int(generator.integers(1 << 30))
            ordered.append(((i + jitter) / count, _visits(layer, generator.permutation(len(layer)), start)))
    waiting = [visits for _, visits in sorted(ordered, key=lambda item: item[0])]
    while waiting:
        left = []
        for visits in waiting:
            found = next(visits, None)
            if found is not None:
                yield found
                left.append(visits)
        waiting = left


def _visits(slots: list[_Slot], order: np.ndarray[tuple[int], np.dtype[np.int64]], start: int) -> Iterator[RowRange]:
    """Every part of every slot once: all slots before any slot again."""
    for visit in itertools.count():
        some = False
        for k in order.tolist():
            slot = slots[k]
            if visit < slot.parts:
                some = True
                yield slot.part(visit + start + k)
        if not some:
            return


def _coprime_step(count: int) -> int:
    """A step that visits all of `count` places in a circle, any few of them far apart."""
    step = max(1, round(_GOLDEN * count))
    while math.gcd(step, count) != 1:
        step += 1
    return step
