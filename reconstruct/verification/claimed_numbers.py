"""The numbers of a claimed configuration: where they stand, and the coefficients they mean for one tensor."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.mergekit_parameters import evaluate

__all__ = ["Place", "claimed_coefficients", "numbers_of", "with_number"]

#: Keys and list positions from the top of the document to a number.
Place = tuple[str | int, ...]


def numbers_of(document: Mapping[str, Any]) -> list[tuple[Place, float]]:
    """Every number below a `parameters` key, in the order of the text: weights, densities, gradients."""
    return list(_numbers(document, (), inside=False))


def _numbers(value: Any, place: Place, *, inside: bool) -> Iterator[tuple[Place, float]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, (*place, key), inside=inside or key == "parameters")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _numbers(item, (*place, position), inside=inside)
    elif inside and isinstance(value, int | float) and not isinstance(value, bool):
        yield place, float(value)


def with_number(document: Mapping[str, Any], place: Place, value: float) -> dict[str, Any]:
    """A copy of the document with another number at that place."""
    changed = copy.deepcopy(dict(document))
    target: Any = changed
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    return changed


def claimed_coefficients(
    document: Mapping[str, Any], sources: tuple[str, ...], tensor: str, position: float
) -> NDArray[np.float64] | None:
    """Coefficients of the sources (references as the document writes them, base first if it is one), float64 [K+1].

    `position`: the tensor's place among the layers, 0 to 1. None for methods whose output is no fixed blend, for
    slices, and where a parameter has no value for this tensor.
    """
    method, models = document.get("merge_method"), document.get("models")
    if method not in {"linear", "task_arithmetic"} or not isinstance(models, list):
        return None
    shared = document.get("parameters") or {}
    normalize, scale = shared.get("normalize", method == "linear"), shared.get("lambda", 1.0)
    if not isinstance(normalize, bool) or isinstance(scale, bool) or not isinstance(scale, int | float):
        return None
    weights = dict.fromkeys(sources, 0.0)
    for model in models:
        own = model.get("parameters") or {}
        setting = own.get("weight", shared.get("weight", 1.0))
        # A model that the fit set aside, as a twin of another, has no place here.
        if not isinstance(model.get("model"), str) or model["model"] not in weights:
            return None
        try:
            weights[model["model"]] += evaluate(setting, tensor, position)
        except (StopIteration, KeyError, TypeError, ValueError):
            return None
    vector = np.array(list(weights.values()))
    if method == "linear":
        return vector / vector.sum() if normalize and vector.sum() else vector
    if document.get("base_model") not in weights:
        return None
    base = list(weights).index(document["base_model"])
    vector[base] = 0.0
    if normalize and vector.sum():
        vector = vector / vector.sum()
    vector = vector * scale
    vector[base] = 1 - vector.sum()
    return vector
