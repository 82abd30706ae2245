"""The numbers of a mergekit configuration: where they stand, and the same configuration with other ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Place", "numbers_of", "with_number"]

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


def with_number(document: Mapping[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A copy of the document with another number, or any other value, at that place."""
    changed = copy.deepcopy(dict(document))
    target: Any = changed
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    return changed
