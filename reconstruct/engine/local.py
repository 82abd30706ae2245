"""The local engine: measures tensors on a thread pool, commits each one when it is finished, goes on where a killed
run stopped. Replays over every element are units too, kept under the digest of what was replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.engine.feed import Feeds
from reconstruct.engine.foresight import Foresight
from reconstruct.engine.measure import measure, replay_tensor
from reconstruct.engine.store import RunStore, replay_key
from reconstruct.errors import IncompleteRunError, ReconstructError, StoreError
from reconstruct.evidence import Measurement
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.results import ReplayResult
from reconstruct.kernels.select import Kernels
from reconstruct.sampling import SamplingPlan

__all__ = ["JournaledReplay", "StoredReplay", "load_all", "measure_all"]


def measure_all(
    tensors: Sequence[AlignedTensor],
    catalogs: Sequence[Catalog],
    plan: SamplingPlan,
    kernels: Kernels,
    store: RunStore,
    feeds: Feeds,
    threads: int,
    advance: Callable[[int], None],
    foresight: Foresight,
) -> tuple[Measurement, ...]:
    """Measure what is not in the store yet; `advance` is told the bytes of every finished tensor.

    Raises the error of a bad tensor at once and IncompleteRunError if units failed for other reasons (a disk that
    went away); what was finished stays in the store either way.
    """
    size = plan.sample_size(len(tensors))
    done = store.measured()
    failures: list[str] = []
    pending: dict[Future[Measurement], int] = {}

    def collect(futures: set[Future[Measurement]]) -> None:
        for future in futures:
            position = pending.pop(future)
            try:
                measurement = future.result()
                store.save_measurement(position, measurement)
                foresight.learn(measurement)
            except ReconstructError:
                raise
            except Exception as error:  # a unit must not take the others with it
                failures.append(f"{tensors[position].name} ({type(error).__name__}: {error})")
                store.event("failed", failures[-1])
            advance(_bytes(tensors[position]))

    def unit(tensor: AlignedTensor) -> Measurement:
        with feeds.borrow() as feed, feed.open(tensor, catalogs, plan) as resident:
            measurement = measure(tensor, catalogs, resident, plan, kernels, size)
            for ahead in foresight.replays_of(measurement):
                lattice = measurement.lattice.lattice
                result = replay_tensor(
                    resident, kernels, lattice, ahead.models, ahead.coefficients, ahead.divisors, ahead.formula
                )
                key = replay_key(tensor.name, ahead.models, ahead.coefficients, ahead.divisors, ahead.formula)
                store.save_replay(key, tensor.name, result)
            return measurement

    pool = ThreadPoolExecutor(threads)
    try:
        for position, tensor in enumerate(tensors):
            if position in done:
                advance(_bytes(tensor))
                continue
            if len(pending) >= 2 * threads:
                collect(wait(pending, return_when=FIRST_COMPLETED).done)
            pending[pool.submit(unit, tensor)] = position
        while pending:
            collect(wait(pending, return_when=FIRST_COMPLETED).done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if failures:
        raise IncompleteRunError(
            f"{len(failures)} of {len(tensors)} tensors failed, the first: {failures[0]}", subject=str(store.folder),
            remedy=f"When the cause is gone: reconstruct fit resume={store.folder}",
        )  # fmt: skip
    return load_all(store)


def load_all(store: RunStore) -> tuple[Measurement, ...]:
    """All measurements of a store, in order: results never depend on which of them this process made."""
    return tuple(store.load_measurement(position) for position in store.measured())


def _bytes(tensor: AlignedTensor) -> int:
    return sum((info.end - info.begin) for info in tensor.sources)


class JournaledReplay:
    """Replays over every element, each kept in the store and taken from there if it was done before."""

    def __init__(
        self, tensors: Sequence[AlignedTensor], catalogs: Sequence[Catalog], plan: SamplingPlan, kernels: Kernels,
        store: RunStore, feeds: Feeds,
    ) -> None:  # fmt: skip
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._catalogs, self._plan, self._kernels, self._store, self._feeds = catalogs, plan, kernels, store, feeds

    def __call__(
        self,
        measurement: Measurement,
        models: Sequence[int],
        coefficients: NDArray[np.float64],
        divisors: NDArray[np.float64],
        formula: Formula,
    ) -> ReplayResult:
        """Result over every element of the tensor; `models` in the formula's order, 0 is the suspect."""
        key = replay_key(measurement.name, models, coefficients, divisors, formula)
        found = self._store.load_replay(key)
        if found is None:
            tensor = self._tensors[measurement.name]
            with self._feeds.borrow() as feed, feed.open(tensor, self._catalogs, self._plan) as resident:
                found = replay_tensor(
                    resident, self._kernels, measurement.lattice.lattice, models, coefficients, divisors, formula
                )
            self._store.save_replay(key, measurement.name, found)
        return found


class StoredReplay:
    """Replays from the store alone. Raises StoreError for one that was never made."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    def __call__(
        self,
        measurement: Measurement,
        models: Sequence[int],
        coefficients: NDArray[np.float64],
        divisors: NDArray[np.float64],
        formula: Formula,
    ) -> ReplayResult:
        """Result over every element of the tensor, as the run computed it."""
        found = self._store.load_replay(replay_key(measurement.name, models, coefficients, divisors, formula))
        if found is None:
            raise StoreError(
                f"the replay of {measurement.name} is missing: the run was not finished, or by another version",
                subject=str(self._store.folder), remedy=f"reconstruct fit resume={self._store.folder}",
            )  # fmt: skip
        return found
