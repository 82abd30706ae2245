"""The horizontal axis of plots over depth: layers in model order, parts outside the blocks set apart at both ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from reconstruct.report.plot_style import legible
from reconstruct.report.wording import layer_number, model_order, shorten

__all__ = ["LayerAxis"]

_TICKS = 18  # labelled layers at most
_NAMED = 12  # labels that are words, at most
_UPRIGHT = 9  # more layers than these, and words are written upwards


@dataclass(frozen=True)
class LayerAxis:
    """`labels` in model order; `edges` float64 [n+1]: each layer's slot. Parts with a name get slots wide enough for
    it; numbered layers get slots of width 1.
    """

    labels: tuple[str, ...]
    edges: NDArray[np.float64]

    @classmethod
    def of(cls, labels: Iterable[str]) -> LayerAxis:
        """Put the layers in order and give each its slot."""
        ordered = model_order(labels)
        numbered = sum(layer_number(label) is not None for label in ordered)
        wide = max(1.0, numbered / 20) if len(ordered) - numbered <= _NAMED else 1.0
        widths = [1.0 if layer_number(label) is not None else wide for label in ordered]
        return cls(tuple(ordered), np.concatenate([[0.0], np.cumsum(widths)]))

    @property
    def centres(self) -> NDArray[np.float64]:
        """Where each layer's points stand, float64 [n]."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)

    def position(self, label: str) -> float:
        """Where one layer's points stand."""
        return float(self.centres[self.labels.index(label)])

    def runs(self) -> list[list[int]]:
        """Layers that a line may join: consecutive blocks of one tower. A named part is a run of its own."""
        result: list[list[int]] = []
        for i, label in enumerate(self.labels):
            place, before = layer_number(label), layer_number(self.labels[i - 1]) if i else None
            if place is not None and before is not None and place[0] == before[0]:
                result[-1].append(i)
            else:
                result.append([i])
        return result

    def apply(self, axes: Axes, label: str = "layer") -> None:
        """Ticks, limits and axis label; thin lines set parts outside the blocks and towers apart."""
        shown = self._ticks()
        axes.set_xlim(self.edges[0], self.edges[-1])
        axes.set_xticks([float(self.centres[i]) for i in shown], [self._text(i) for i in shown])
        upright = len(self.labels) > _UPRIGHT
        for i, tick in zip(shown, axes.get_xticklabels(), strict=False):
            if upright and not self._text(i).isdecimal():
                tick.set_rotation(90)
        for run, following in pairwise(self.runs()):
            if len(run) > 1 or len(following) > 1:
                axes.axvline(float(self.edges[following[0]]), color="#9A9A9A", linewidth=0.8, zorder=0.5)
        axes.set_xlabel(label)

    def _ticks(self) -> list[int]:
        numbered = [i for i, label in enumerate(self.labels) if layer_number(label) is not None]
        named = [i for i in range(len(self.labels)) if i not in set(numbered)]
        step = next(s for s in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 10**9) if len(numbered) / s <= _TICKS)
        chosen = [i for i in numbered if self._index(i) % step == 0]
        return sorted([*named[:: -(-len(named) // _NAMED) or 1], *chosen])

    def _index(self, i: int) -> int:
        place = layer_number(self.labels[i])
        assert place is not None
        return place[1]

    def _text(self, i: int) -> str:
        place = layer_number(self.labels[i])
        if place is None:
            label = self.labels[i] if len(self.labels) <= _UPRIGHT else self.labels[i].replace("embedding", "embed")
            return legible(shorten(label, 14))
        first = any(run[0] == i for run in self.runs())
        return legible(shorten(self.labels[i], 14)) if place[0] and first else str(place[1])
