"""Catalogs without files: alignment reads names, dtypes and shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconstruct.checkpoints.alignment import Alignment
from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.local import MappedFiles
from reconstruct.checkpoints.reference import Reference, ReferenceKind

Shape = tuple[int, ...]


def catalog(
    given: str, tensors: Mapping[str, Shape | tuple[Shape, str]], configuration: dict[str, Any] | None = None
) -> Catalog:
    """A catalog of float32 tensors, or of (shape, dtype)."""
    infos = {}
    for position, (name, value) in enumerate(tensors.items()):
        shape, dtype = value if value and isinstance(value[0], tuple) else (value, "F32")
        infos[name] = TensorInfo(name, dtype, shape, f"{given}/model.safetensors", position, position)
    return Catalog(Reference(ReferenceKind.FOLDER, Path(given), given), infos, MappedFiles(), (), configuration or {})


def reasons(alignment: Alignment, model: str) -> dict[str, str]:
    """Why each tensor of a model is left out."""
    return {item.name: item.reason for item in alignment.left_out if item.model == model}


def assert_complete(alignment: Alignment, catalogs: list[Catalog]) -> None:
    """Every tensor of every model is compared or left out with a reason, and not both."""
    for position, model in enumerate(catalogs):
        compared = {tensor.sources[position].name for tensor in alignment.tensors}
        left = [item.name for item in alignment.left_out if item.model == model.reference.given]
        assert len(left) == len(set(left))
        assert compared | set(left) == set(model.tensors)
        assert not compared & set(left)
    assert all(item.reason for item in alignment.left_out)
