"""Many small pieces of tensors at once: near ones of one file in one request, several requests at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import Catalog, DerivedTensor, DerivingSource, TensorInfo
from reconstruct.checkpoints.element_ranges import ElementRange, element_range

__all__ = ["RangeSource", "Request", "fetch_ranges"]

#: A tensor and the elements [start, stop) of it that are wanted.
Request = tuple[TensorInfo, int, int]


@runtime_checkable
class RangeSource(Protocol):
    """A byte source for which a request is dear, so that neighbours are worth fetching together."""

    def fetch(self, shard: str, begin: int, end: int) -> bytes | memoryview:
        """Bytes [begin, end) of a shard."""
        ...


def fetch_ranges(
    catalog: Catalog, requests: Sequence[Request], workers: int = 8, *, gap: int = 16384, largest: int = 8 << 20
) -> Iterator[tuple[Request, NDArray[np.generic]]]:
    """Each request with its elements in storage form (1-D, read-only), in the order of shards and positions in them.

    `gap`: bytes between two requests of one file up to which they are fetched as one range (these bytes count on the
    wire); `largest`: bytes from which a range grows no further. At most 2 x `workers` ranges are in memory. Where the
    source is no RangeSource (files on disk), every request is read by itself, and so are, at the end, derived tensors.

    Raises what the source raises, BudgetExhausted among it, after everything before it in the order was delivered and
    all that is under way has ended: nothing is sent afterwards. Raises ValueError for elements that a tensor has not.
    """
    source = catalog.source.stored if isinstance(catalog.source, DerivingSource) else catalog.source
    stored = [request for request in requests if not isinstance(request[0], DerivedTensor)]
    groups = _groups(stored, gap if isinstance(source, RangeSource) else None, largest)

    def read(group: _Group) -> list[tuple[Request, NDArray[np.generic]]]:
        if not isinstance(source, RangeSource):
            return [(request, source.read(*request)) for request, _ in group.members]
        data = source.fetch(group.shard, group.begin, group.end) if group.end > group.begin else b""
        found = [(request, place.view(data, group.begin)) for request, place in group.members]
        # A view would keep the whole range in memory for as long as its smallest piece is used.
        return found if len(found) == 1 else [(request, _copied(array)) for request, array in found]

    def compute(request: Request) -> list[tuple[Request, NDArray[np.generic]]]:
        return [(request, catalog.source.read(*request))]

    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[list[tuple[Request, NDArray[np.generic]]]]] = deque()
    try:
        tasks = [partial(read, group) for group in groups]
        tasks += [partial(compute, request) for request in requests if isinstance(request[0], DerivedTensor)]
        for task in tasks:
            pending.append(pool.submit(task))
            if len(pending) >= 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Group:
    """Requests that are met by one range of one shard."""

    shard: str
    begin: int
    end: int
    members: list[tuple[Request, ElementRange]] = field(default_factory=list)


def _groups(requests: Sequence[Request], gap: int | None, largest: int) -> list[_Group]:
    """`gap` None: every request by itself."""
    placed = [(request, element_range(*request)) for request in requests]
    placed.sort(key=lambda item: (item[0][0].shard, item[1].begin, item[1].end))
    groups: list[_Group] = []
    for request, place in placed:
        shard, last = request[0].shard, groups[-1] if groups else None
        if (
            last is None
            or gap is None
            or last.shard != shard
            or place.begin > last.end + gap
            or max(place.end, last.end) - last.begin > largest
        ):
            last = _Group(shard, place.begin, place.end)
            groups.append(last)
        last.end = max(last.end, place.end)
        last.members.append((request, place))
    return groups


def _copied(array: NDArray[np.generic]) -> NDArray[np.generic]:
    copy = array.copy()
    copy.flags.writeable = False
    return copy
