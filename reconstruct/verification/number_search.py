"""Which other numbers would reproduce the suspect: a walk through the parameters of the claimed configuration.

The share of identical weights falls on both sides of the right number. So of all numbers that one is moved, by a
hundredth, a tenth, a thousandth, with which the share grows most, as long as it grows. A few tensors are enough to walk
on; the whole model is compared at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconstruct.checkpoints.catalog import Catalog
from reconstruct.claims.recipe_numbers import Place, numbers_of, with_number
from reconstruct.errors import ReconstructError
from reconstruct.replay.comparison import CheckState, compare
from reconstruct.replay.mergekit import MergekitReplay

__all__ = ["OtherNumbers", "search_numbers"]

_STEPS = (0.01, 0.1, 0.001)
_MOST = 200  # evaluations
_PROBES = 4  # tensors, spread over the model


@dataclass(frozen=True)
class OtherNumbers:
    """A configuration that reproduces the probed tensors, and what was changed: (place, claimed, found)."""

    document: dict[str, Any]
    changes: tuple[tuple[Place, float, float], ...]


def search_numbers(
    document: Mapping[str, Any], folders: Mapping[str, Path], catalog: Catalog, differing: Sequence[str],
    seed: int | None = None,
) -> OtherNumbers | None:  # fmt: skip
    """Walk from the claimed numbers to ones with which every probed tensor is identical; None if none are near."""
    names = [name for name in differing if len(catalog.tensors[name].shape) > 1] or list(differing)
    limit = sorted(catalog.tensors[name].elements for name in names)[len(names) // 2]
    small = [name for name in names if catalog.tensors[name].elements <= limit]
    probes = small[:: max(1, len(small) // _PROBES)][:_PROBES]
    walk = _Walk(dict(document), folders, catalog, probes, seed)
    claimed = dict(numbers_of(document))
    for step in _STEPS:
        while walk.share < 1.0 and walk.better(list(claimed), step):
            pass
    if walk.share < 1.0:
        return None
    found = dict(numbers_of(walk.document))
    changes = tuple((p, claimed[p], found[p]) for p in claimed if abs(claimed[p] - found[p]) > 1e-12)
    return OtherNumbers(walk.document, changes) if changes else None


class _Walk:
    """The best configuration so far and the share of identical weights that it reaches on the probes."""

    def __init__(
        self, document: dict[str, Any], folders: Mapping[str, Path], catalog: Catalog, probes: Sequence[str],
        seed: int | None,
    ) -> None:  # fmt: skip
        self.document, self._folders, self._catalog, self._probes, self._seed = document, folders, catalog, probes, seed
        self._left = _MOST
        self.share = self._evaluate(document)

    def better(self, places: Sequence[Place], step: float) -> bool:
        """Take the one move of all numbers, up or down by `step`, that helps most; False if none helps."""
        numbers = dict(numbers_of(self.document))
        best: tuple[float, dict[str, Any]] | None = None
        for place, direction in itertools.product(places, (step, -step)):
            if self._left <= 0 or (best is not None and best[0] == 1.0):
                break
            candidate = with_number(self.document, place, round(numbers[place] + direction, 6))
            share = self._evaluate(candidate)
            if share > (best[0] if best is not None else self.share):
                best = share, candidate
        if best is None:
            return False
        self.share, self.document = best
        return True

    def _evaluate(self, document: Mapping[str, Any]) -> float:
        self._left -= 1
        try:
            outputs = list(MergekitReplay(document, self._folders, seed=self._seed).tensors(self._probes))
        except ReconstructError:  # a number that the method does not take
            return 0.0
        checks = [compare(self._catalog, self._catalog.tensors[o.name], o.tensor) for o in outputs]
        if any(check.state is CheckState.CANNOT_SAY for check in checks):
            return 0.0
        return sum(check.identical for check in checks) / max(sum(check.total for check in checks), 1)
