"""The coefficients that the numbers of a claimed configuration mean for one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.mergekit_parameters import evaluate

__all__ = ["claimed_coefficients"]


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
