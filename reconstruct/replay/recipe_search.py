"""Recipes that only the program itself can compute: mergekit runs them on a few tensors while their numbers move.

The mean distance between what it makes and the suspect is 0 at the right numbers and grows away from them, in every
storage dtype; the share of identical bits, in float32, is 0 everywhere else. So the walk goes down that distance, by
ever smaller steps, and what arrives at 0 is proved on the whole model by `proof`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.claims.mergekit_methods import MERGEKIT_METHODS
from reconstruct.claims.recipe_numbers import numbers_of, with_number
from reconstruct.errors import ReconstructError
from reconstruct.kernels.formats import decode
from reconstruct.mergekit_parameters import setting_for
from reconstruct.replay.comparison import as_stored
from reconstruct.replay.mergekit import Folders, MergekitReplay
from reconstruct.replay.recipe_templates import Numbers, Template

__all__ = ["RecipeSearch"]

_STEPS = (0.1, 0.03, 0.01, 0.001)
_MOST = 400  # evaluations of one template
_PROBES = 3  # tensors, spread over the model
_VARIED = 2  # templates that are tried with numbers that differ over the model
_MOST_TENSORS = 400  # that each may have its own
_LARGEST = 1 << 22  # elements of a probe
_PROMISING = 0.5  # of the distance of the nearest source: a template that gets no nearer is left
_SCALES = tuple(k / 20 for k in range(1, 41))  # sums of weights of which only the ratio is known
_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True)
class _Probe:
    """One tensor of the suspect: float64 [n]."""

    name: str
    dtype: str
    values: np.ndarray[tuple[int], np.dtype[np.float64]]


class RecipeSearch:
    """Over templates, for one suspect. `catalogs`: suspect first; `tensors`: voting matrices; `folders`: by the names
    that the templates use.
    """

    def __init__(
        self,
        templates: Sequence[Template],
        folders: Folders,
        catalogs: Sequence[Catalog],
        tensors: Sequence[AlignedTensor],
    ) -> None:
        self._folders, self._suspect = folders, catalogs[0]
        self._tensors = [t for t in tensors if t.shape == t.sources[0].shape and t.elements <= _LARGEST]
        smaller = sorted(self._tensors, key=lambda t: t.elements)[: max(_PROBES, len(self._tensors) // 2)]
        smaller.sort(key=lambda t: t.name)
        chosen = smaller[:: max(1, len(smaller) // _PROBES)][:_PROBES]
        probes = [_probe(catalogs[0], t) for t in chosen]
        source_distances = [
            sum(float(np.abs(p.values - _values(catalog, t, k)).mean()) for p, t in zip(probes, chosen, strict=True))
            for k, catalog in enumerate(catalogs[1:], 1)
        ]
        self._promising = _PROMISING * min(source_distances)
        self._walks = [_Walk(t, folders, probes, _dtypes(probes, t.family)) for t in templates] if probes else []

    def uniform(self) -> list[tuple[str, dict[str, Any]]]:
        """(family, configuration) of the templates that reproduce a few tensors to the last bit with the same numbers,
        in their order: those with the fewest open numbers that do, others with more are not run.
        """
        found: list[tuple[str, dict[str, Any]]] = []
        most = 0
        for walk in self._walks:
            if found and len(walk.template.bounds) > most:
                break
            document = walk.run(self._promising)
            if document is not None and walk.needs_every_model(document):
                found.append((walk.template.family, document))
                most = len(walk.template.bounds)
        return found

    def varied(self) -> list[tuple[str, dict[str, Any]]]:
        """The same with numbers that differ over the model (gradients, filters), of the templates that came nearest."""
        near = [w for w in self._walks if w.template.bounds and w.nearest < self._promising]
        found = []
        for walk in sorted(near, key=lambda w: w.nearest)[:_VARIED]:
            document = self._by_tensor(walk)
            if document is not None:
                found.append((walk.template.family, document))
        return found

    def _by_tensor(self, walk: _Walk) -> dict[str, Any] | None:
        """The template with every tensor's own numbers; None where a tensor has none."""
        documents: dict[str, dict[str, Any]] = {}
        known: list[dict[str, Any]] = []
        single_walks = {
            t.name: _Walk(walk.template, self._folders, [_probe(self._suspect, t)], walk.dtypes)
            for t in self._tensors[:_MOST_TENSORS]
        }
        for name, single in single_walks.items():
            # What another tensor was made with is most likely what this one was made with.
            document = next((d for d in known if single.measured(d) == 0.0), None)
            if document is None:
                document = single.run(np.inf)
                if document is None or not single.needs_every_model(document):
                    return None
                known.append(document)
                if all(other.measured(document) == 0.0 for other in single_walks.values()):
                    return document
            documents[name] = document
        merged = next(iter(documents.values()), None)
        if merged is None or any(d.get(k) != merged.get(k) for d in known for k in ("dtype", "out_dtype")):
            return None
        for place, _ in numbers_of(merged):
            values = {name: dict(numbers_of(d))[place] for name, d in documents.items()}
            merged = with_number(merged, place, setting_for(values))
        return merged


def _probe(catalog: Catalog, tensor: AlignedTensor) -> _Probe:
    return _Probe(tensor.name, tensor.sources[0].dtype, _values(catalog, tensor, 0))


def _values(catalog: Catalog, tensor: AlignedTensor, model: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    info = tensor.sources[model]
    return decode(catalog.source.read(info, 0, tensor.elements), info.dtype).astype(np.float64)


def _dtypes(probes: Sequence[_Probe], family: str) -> list[dict[str, str]]:
    """How a program may have been told to compute: in the dtype that it saves, or in float32; and in 16 bits where a
    method writes float32 whatever it was told.
    """
    stored = _NAMES.get(probes[0].dtype, "float32")
    options = [{"dtype": stored}]
    if stored in {"bfloat16", "float16"}:
        options.append({"dtype": "float32", "out_dtype": stored})
    elif MERGEKIT_METHODS[family].writes_float32:
        options += [{"dtype": "bfloat16"}, {"dtype": "float16"}]
    return options


class _Walk:
    """The numbers of one template, downhill."""

    def __init__(
        self, template: Template, folders: Folders, probes: Sequence[_Probe], dtypes: list[dict[str, str]]
    ) -> None:
        self.template, self.dtypes, self.nearest = template, dtypes, np.inf
        self._folders, self._probes = folders, probes
        self._left = _MOST
        self._seen: dict[tuple[int, Numbers], float] = {}

    def run(self, promising: float) -> dict[str, Any] | None:
        """The configuration at distance 0, or None."""
        starts = [s if self.template.relative else tuple(round(n, 2) for n in s) for s in self.template.starts]
        options = [(self._distance(s, d), d, s) for d in range(len(self.dtypes)) for s in starts]
        _, first, numbers = min(options, key=lambda option: option[0])  # the first of equals: a default
        for step in _STEPS:
            numbers, distance = self._downhill(numbers, first, step)
            self.nearest = distance
            if distance == 0.0:
                return self._document(numbers, first)
            if distance > promising and step <= 0.03:  # after the two coarsest
                return None
        # So near that the other working dtype, or other weights in the same ratio, may be all that is missing.
        for dtype in range(len(self.dtypes)):
            for candidate in [numbers, *self._rescaled(numbers)]:
                near, distance = self._downhill(candidate, dtype, 0.01)
                if distance == 0.0:
                    return self._document(near, dtype)
        return None

    def needs_every_model(self, document: dict[str, Any]) -> bool:
        """Whether none of its models can be left out: one that can is not shown to have had a part in it."""
        models = document["models"]
        for left in range(len(models)):
            without = {**document, "models": [m for j, m in enumerate(models) if j != left]}
            if self.measured(without) == 0.0:
                return False
        return True

    def _downhill(self, numbers: Numbers, dtype: int, step: float) -> tuple[Numbers, float]:
        """Move one number at a time, or two weights against one another, as long as the distance falls."""
        distance = self._distance(numbers, dtype)
        while distance > 0.0:
            moves = self._moves(numbers, step)
            best = min(((self._distance(m, dtype), m) for m in moves), default=(np.inf, numbers))
            if best[0] >= distance:
                break
            distance, numbers = best
        return numbers, distance

    def _moves(self, numbers: Numbers, step: float) -> list[Numbers]:
        if self.template.relative:
            step *= 10.0 ** np.floor(np.log10(numbers[0]))
        changes = [{i: sign * step} for i in range(len(numbers)) for sign in (1, -1)]
        pairs = itertools.permutations(self.template.weights or range(len(numbers)), 2)
        changes += [{i: step, j: -step} for i, j in pairs]
        moved = []
        for change in changes:
            candidate = tuple(float(f"{n + change.get(i, 0.0):.6g}") for i, n in enumerate(numbers))
            if all(low <= c <= high for c, (low, high) in zip(candidate, self.template.bounds, strict=True)):
                moved.append(candidate)
        return moved

    def _rescaled(self, numbers: Numbers) -> list[Numbers]:
        """The same ratio of weights with sums and weights that a person would write."""
        at = self.template.weights
        total = sum(numbers[i] for i in at)
        if not at or total <= 0:
            return []
        found = []
        for scale in _SCALES:
            weights = {i: numbers[i] / total * scale for i in at}
            if all(abs(w - round(w, 2)) < 1e-3 for w in weights.values()):  # what the walk may be off by
                found.append(tuple(round(weights.get(i, n), 2) if i in weights else n for i, n in enumerate(numbers)))
        return sorted(found, key=lambda f: abs(sum(f[i] for i in at) - 1))

    def _document(self, numbers: Numbers, dtype: int) -> dict[str, Any]:
        return self.template.document(numbers) | self.dtypes[dtype]

    def _distance(self, numbers: Numbers, dtype: int) -> float:
        """Mean distance to the suspect, summed over the probes; infinite where the program cannot compute this, and
        when all evaluations are spent.
        """
        if (dtype, numbers) in self._seen:
            return self._seen[dtype, numbers]
        if self._left <= 0:
            return np.inf
        self._left -= 1
        self._seen[dtype, numbers] = self.measured(self._document(numbers, dtype))
        return self._seen[dtype, numbers]

    def measured(self, document: dict[str, Any]) -> float:
        """Mean distance of what this configuration makes."""
        try:
            replay = MergekitReplay(document, self._folders)
            made = {output.name: output.tensor for output in replay.tensors([p.name for p in self._probes])}
        except ReconstructError:
            made = {}
        total = 0.0
        for probe in self._probes:
            tensor = made.get(probe.name)
            if tensor is None or tensor.numel() != len(probe.values):
                return np.inf
            total += float(np.abs(as_stored(tensor.reshape(-1), probe.dtype) - probe.values).mean())
        return total
