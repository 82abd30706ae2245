"""A recipe: one merge family with its parameters for every tensor. Evaluated per tensor, written as mergekit YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from reconstruct.checkpoints.module_names import ModuleName
from reconstruct.hypotheses.slerp import slerp_coefficients
from reconstruct.mergekit_parameters import setting_for
from reconstruct.statistics.moments import Moments
from reconstruct.statistics.simple_numbers import is_simple

__all__ = ["PARTITIONS", "Cell", "Recipe", "WholeRecipe", "partition_key", "with_bases"]

#: How parameters may differ over the model, the simplest first.
PARTITIONS = ("constant", "filter", "layer", "layer and filter", "tensor")


def partition_key(partition: str, name: str, module: ModuleName) -> tuple[str, ...]:
    """The cell a tensor belongs to. Outside the blocks each part (embedding, head) is a cell of its own."""
    if partition == "constant":
        return ()
    if partition == "tensor":
        return (name,)
    if module.layer is None:
        return (module.layer_label, module.kind)
    if partition == "filter":
        return ("blocks", module.group)
    if partition == "layer":
        return (module.layer_label,)
    return (module.layer_label, module.group)


@dataclass(frozen=True)
class Cell:
    """Tensors that share parameters. `parameters`: weights of the non-pivot sources (affine), or (t,) (slerp).
    `low`, `high`: their bounds; `certified` if linear programmes gave them. `layer` is None outside the blocks.
    """

    key: tuple[str, ...]
    layer: int | None
    group: str
    parameters: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    certified: bool

    @property
    def simple(self) -> bool:
        """Whether all parameters are numbers a person would write."""
        return all(is_simple(p) for p in self.parameters)


@dataclass(frozen=True)
class Recipe:
    """`sources`: model names, pivot first. `pair`: the two sources of a slerp. `keys`: tensor name -> cell key.
    `bits`: coefficients of each tensor to the last bit, where a program's own rounding of them shows. `scales`: cell
    key -> sum of the weights that the program divided by, where whole numbers do not reproduce as much. `adapted`: how
    mergekit names those sources that are adapters, with their base.
    """

    hypothesis: str
    sources: tuple[str, ...]
    has_base: bool
    pair: tuple[int, int] | None
    partition: str
    cells: tuple[Cell, ...]
    keys: dict[str, tuple[str, ...]]
    dtype: str | None = None
    out_dtype: str | None = None
    order: tuple[int, ...] | None = None
    bits: dict[str, tuple[float, ...]] | None = None
    scales: dict[tuple[str, ...], float] | None = None
    adapted: Mapping[str, str] = field(default_factory=dict)

    def cell(self, tensor: str) -> Cell:
        """The cell of a tensor; tensors outside every cell take the nearest: same layer, else same group, else any."""
        key = self.keys.get(tensor, ())
        by_key = {c.key: c for c in self.cells}
        if key in by_key:
            return by_key[key]
        tests: tuple[Callable[[Cell], bool], ...] = (
            lambda c: bool(key) and c.key[:1] == key[:1],
            lambda c: len(key) > 1 and c.group == key[-1],
        )
        for test in tests:
            for cell in self.cells:
                if test(cell):
                    return cell
        return self.cells[0]

    def coefficients(self, tensor: str, moments: Moments) -> NDArray[np.float64]:
        """One coefficient per source, float64 [K+1], pivot first."""
        if self.bits is not None:
            return np.array(self.bits[tensor])
        return self.evaluate(self.cell(tensor).parameters, moments)

    def evaluate(self, parameters: tuple[float, ...], moments: Moments) -> NDArray[np.float64]:
        """Coefficients for given parameters on a tensor with these moments."""
        if self.pair is None:
            w = np.array(parameters)
            pivot = 1 - w.sum()
            return np.concatenate([[0.0 if abs(pivot) < 1e-9 else pivot], w])
        result = np.zeros(len(self.sources))
        first, second = self.pair
        result[first], result[second] = slerp_coefficients(parameters[0], moments.cosine(first, second))
        return result

    def scale(self, tensor: str) -> float | None:
        """The sum that the weights of this tensor were divided by, where it is known."""
        return (self.scales or {}).get(self.cell(tensor).key)

    def with_cells(self, cells: tuple[Cell, ...]) -> Recipe:
        """The same recipe with other parameters."""
        return replace(self, cells=cells)

    @property
    def material(self) -> tuple[int, ...]:
        """Sources with weight at least 0.005 in some cell."""
        if self.pair is not None:
            return self.pair
        weights = np.array([c.parameters for c in self.cells])
        shares = np.column_stack([1 - weights.sum(axis=1), weights])
        return tuple(int(j) for j in np.flatnonzero(np.abs(shares).max(axis=0) >= 0.005))

    def as_slerps(self) -> list[Recipe]:
        """The slerps that this recipe is nearly the same as, from either source to the other; none if it has more than
        two sources. A blend of models at a small angle differs from a slerp in the fourth digit.
        """
        material = self.pair or self.material
        if len(material) != 2:
            return []
        first, second = material
        # A slerp computes in float32 whatever it is told: 16 bits for the models are those that they are stored in.
        dtypes = (self.dtype, self.out_dtype) if self.dtype == "float32" else (self.out_dtype or self.dtype, None)
        found = []
        for start, end in ((first, second), (second, first)):
            cells = []
            for cell in self.cells:
                if self.pair is not None:
                    t = cell.parameters[0] if end == second else 1 - cell.parameters[0]
                else:
                    shares = np.concatenate([[1 - sum(cell.parameters)], cell.parameters])
                    t = shares[end] / max(shares[start] + shares[end], 1e-9)
                low, high, parameters = (0.0,), (1.0,), (round(float(t), 3),)
                cells.append(replace(cell, parameters=parameters, low=low, high=high, certified=False))
            slerp = replace(self, hypothesis="slerp", pair=(start, end), cells=tuple(cells), bits=None, scales=None)
            found.append(replace(slerp, dtype=dtypes[0], out_dtype=dtypes[1]))
        return found

    def to_mergekit(self) -> dict[str, Any]:
        """The configuration that mergekit takes. Parents whose weight is 0 everywhere are dropped."""
        return with_bases(self._configuration(), self.adapted)

    def _configuration(self) -> dict[str, Any]:
        if self.pair is not None:
            first, second = self.pair
            models: list[dict[str, Any]] = [{"model": self.sources[first]}, {"model": self.sources[second]}]
            shared = {"t": self._setting(lambda c: c.parameters[0])}
            return self._document("slerp", models, base=self.sources[first], shared=shared)
        delta = self.hypothesis == "task_arithmetic" and self.has_base
        chosen = [j for j in self.material if not (delta and j == 0)]
        if self.order:
            chosen = [j for j in self.order if j in chosen]
        models = []
        for j in chosen:
            models.append({
                "model": self.sources[j],
                "parameters": {"weight": self._setting(partial(self._weight, source=j))},
            })  # fmt: skip
        base = self.sources[0] if delta else None
        return self._document("task_arithmetic" if delta else "linear", models, base=base, shared={})

    def _document(
        self, method: str, models: list[dict[str, Any]], *, base: str | None, shared: dict[str, Any]
    ) -> dict[str, Any]:
        document: dict[str, Any] = {"merge_method": method, "models": models}
        if base is not None:
            document["base_model"] = base
        if shared:
            document["parameters"] = shared
        document["dtype"] = self.dtype or "float32"
        if self.out_dtype and self.out_dtype != document["dtype"]:
            document["out_dtype"] = self.out_dtype
        return document

    def to_yaml(self) -> str:
        """Write the configuration as YAML text."""
        return _as_yaml(self.to_mergekit())

    def _weight(self, cell: Cell, source: int) -> float:
        share = 1 - sum(cell.parameters) if source == 0 else cell.parameters[source - 1]
        return share * (self.scales or {}).get(cell.key, 1.0)

    def _setting(self, value: Callable[[Cell], float]) -> Any:
        """The value of every tensor's cell in mergekit's language."""
        if self.partition == "constant" or not self.keys:
            return setting_for({"": value(self.cells[0])})
        return setting_for({name: value(self.cell(name)) for name in self.keys})


@dataclass(frozen=True)
class WholeRecipe:
    """A recipe of a family that is no fixed blend of its sources, as mergekit's configuration. `families`: those that
    make the same bits.
    """

    document: dict[str, Any]
    families: tuple[str, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that take part, the base last."""
        named = [str(model["model"]) for model in self.document["models"]]
        base = self.document.get("base_model")
        return tuple(dict.fromkeys([*named, *([base] if base is not None else [])]))

    def to_mergekit(self) -> dict[str, Any]:
        """The configuration that mergekit takes."""
        return self.document

    def to_yaml(self) -> str:
        """Write the configuration as YAML text."""
        return _as_yaml(self.document)


def with_bases(document: dict[str, Any], adapted: Mapping[str, str]) -> dict[str, Any]:
    """A configuration with adapters named as "base+adapter". `adapted`: name of an adapter -> name of the pair."""
    models = [model | {"model": adapted.get(model["model"], model["model"])} for model in document["models"]]
    renamed = document | {"models": models}
    if (base := document.get("base_model")) is not None:
        renamed["base_model"] = adapted.get(base, base)
    return renamed


def _as_yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None)
