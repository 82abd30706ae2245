"""Catalogs without files: alignment reads names, dtypes and shapes only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconstruct.checkpoints.alignment import Alignment
from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.header import SAFETENSORS_BITS
from reconstruct.checkpoints.local import MappedFiles
from reconstruct.checkpoints.reference import Reference, ReferenceKind

Shape = tuple[int, ...]


def catalog(
    given: str, tensors: Mapping[str, Shape | tuple[Shape, str]], configuration: dict[str, Any] | None = None
) -> Catalog:
    """A catalog of float32 tensors, or of (shape, dtype)."""
    infos, begin = {}, 0
    for name, value in tensors.items():
        shape, dtype = value if value and isinstance(value[0], tuple) else (value, "F32")
        end = begin + math.prod(shape) * SAFETENSORS_BITS[dtype] // 8
        infos[name] = TensorInfo(name, dtype, shape, f"{given}/model.safetensors", begin, end)
        begin = end
    return Catalog(Reference(ReferenceKind.FOLDER, Path(given), given), infos, MappedFiles(), (), configuration or {})


def reasons(alignment: Alignment, model: str) -> dict[str, str]:
    """Why each tensor of a model is left out."""
    return {item.name: item.reason for item in alignment.left_out if item.model == model}


def assert_complete(alignment: Alignment, catalogs: list[Catalog]) -> None:
    """Every tensor of every model, or every part of it, is compared or left out with a reason, and not both."""
    for position, model in enumerate(catalogs):
        compared = {tensor.sources[position].name: tensor.sources[position].elements for tensor in alignment.tensors}
        items = [item for item in alignment.left_out if item.model == model.reference.given]
        left = {item.name: item.elements for item in items}
        assert len(left) == len(items)
        assert not compared.keys() & left.keys()
        elements: dict[str, int] = {}
        for name, count in (compared | left).items():
            stored = name if name in model.tensors else name.partition("[")[0]
            elements[stored] = elements.get(stored, 0) + count
        assert elements == {name: info.elements for name, info in model.tensors.items()}
    assert all(item.reason for item in alignment.left_out)
