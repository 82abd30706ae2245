"""LoRA adapters as models: a base checkpoint with the low-rank updates of an adapter folder, computed when read.

What peft's merge_and_unload writes for the same pair. Variants that change the base otherwise (DoRA, PiSSA and its
like, activated or block-diagonal adapters, adapters on whole parameters) are refused with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import ByteSource, Catalog, TensorInfo
from reconstruct.checkpoints.header import read_header
from reconstruct.checkpoints.inventory import Inventory
from reconstruct.checkpoints.local import MappedFiles, file_state
from reconstruct.checkpoints.low_rank import LowRankUpdate
from reconstruct.checkpoints.matching import not_a_weight
from reconstruct.checkpoints.pickles import LoadedTensors, open_pickle
from reconstruct.checkpoints.reference import Reference
from reconstruct.checkpoints.scaled_float8 import Dequantised
from reconstruct.checkpoints.views import rounded
from reconstruct.checkpoints.weight_files import read_json, readable
from reconstruct.errors import CheckpointError

__all__ = ["adapter_files", "base_of", "with_adapter"]

_CONFIGURATION = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MERGE_FIRST = "Merge the adapter into its base model first (merge_and_unload in peft)"
#: Options that make it more than W + scale * B @ A.
_VARIANTS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "trainable_token_indices",
    "target_parameters", "alora_invocation_tokens", "arrow_config", "megatron_config",
)  # fmt: skip
#: Starting points for which training also replaced the base's weights.
_RESIDUAL_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga", "lora-ga")
_WRAPPER = re.compile(r"^base_model\.model\.")
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?:embedding_)?(?P<factor>[AB])(?:\.weight)?$")
_SAVED = re.compile(r"\.(?:modules_to_save(?:\.default)?|base_layer)(?=\.)")


def adapter_files(location: Path) -> tuple[Path, Path] | None:
    """Configuration and weights of an adapter, if that is all the folder holds; None for anything else."""
    if location.is_file() and location.name in _WEIGHTS:
        location = location.parent
    elif not location.is_dir() or {*location.glob("*.safetensors"), *location.glob("pytorch_model*.bin")} - {
        location / name for name in _WEIGHTS
    }:
        return None
    weights = next((location / name for name in _WEIGHTS if (location / name).is_file()), None)
    return (location / _CONFIGURATION, weights) if weights is not None else None


def base_of(configuration: Path) -> str | None:
    """What an adapter says its base is: a path, or a repository's name."""
    if not configuration.is_file():
        raise CheckpointError(
            f"an adapter without {_CONFIGURATION}: rank and scale are not known", subject=str(configuration.parent),
            remedy="Download the whole folder",
        )  # fmt: skip
    named = read_json(configuration).get("base_model_name_or_path")
    return named if isinstance(named, str) and named else None


def with_adapter(given: str, base: Catalog, base_name: str) -> Catalog:
    """The model that an adapter folder makes of `base`, which notes call `base_name`. Raises CheckpointError."""
    reference = Reference.parse(given)
    files = adapter_files(reference.path)
    assert files is not None
    configuration_file, weights_file = files
    configuration = read_json(configuration_file)
    _refuse_variants(configuration, configuration_file)
    source, stored = _open(weights_file)
    merge = _Merge(base, base_name, configuration, weights_file)
    updates = merge.updates(stored)
    joined = _Joined(str(weights_file), source, base.source)
    return replace(
        base, reference=reference, tensors=base.tensors | updates, source=joined,
        files=(*base.files, file_state(configuration_file), file_state(weights_file)),
    )  # fmt: skip


def _refuse_variants(configuration: Mapping[str, Any], file: Path) -> None:
    said = configuration.get("peft_type")
    if said != "LORA":
        raise CheckpointError(f"an adapter of type {said}, not LORA", subject=str(file), remedy=_MERGE_FIRST)
    if variant := next((name for name in _VARIANTS if configuration.get(name)), None):
        raise CheckpointError(
            f"{variant} makes it more than a low-rank sum, which is not recomputed", subject=str(file),
            remedy=_MERGE_FIRST,
        )  # fmt: skip
    start = configuration.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_RESIDUAL_STARTS):
        raise CheckpointError(
            f"init_lora_weights={start} changes the base as well, which is not recomputed", subject=str(file),
            remedy=_MERGE_FIRST,
        )  # fmt: skip


def _open(file: Path) -> tuple[ByteSource, dict[str, TensorInfo]]:
    if file.suffix != ".safetensors":
        loaded, infos = open_pickle(file)
        return LoadedTensors(loaded), {info.name: info for info in infos}
    with readable(file):
        entries = read_header(file)
    return MappedFiles(), {e.name: TensorInfo(e.name, e.dtype, e.shape, str(file), e.begin, e.end) for e in entries}


class _Joined:
    """Byte source of a base and an adapter, told apart by the file."""

    def __init__(self, shard: str, adapter: ByteSource, base: ByteSource) -> None:
        self._shard, self._adapter, self._base = shard, adapter, base

    def _of(self, tensor: TensorInfo) -> ByteSource:
        return self._adapter if tensor.shard == self._shard else self._base

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Elements [start, stop) in storage form."""
        return self._of(tensor).read(tensor, start, stop)

    def ahead(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Elements [start, stop) will be read soon."""
        self._of(tensor).ahead(tensor, start, stop)

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Let go of the memory behind elements [start, stop)."""
        self._of(tensor).release(tensor, start, stop)


class _Merge:
    """Which tensors of the base an adapter changes, and into what."""

    def __init__(self, base: Catalog, base_name: str, configuration: Mapping[str, Any], file: Path) -> None:
        self._inventory, self._base_name = Inventory(base), base_name
        self._configuration, self._file = configuration, file

    def updates(self, stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        """Base name -> the tensor in its place. Raises CheckpointError for what does not fit the base."""
        factors: dict[str, dict[str, TensorInfo]] = {}
        found: dict[str, TensorInfo] = {}
        for name, info in stored.items():
            inner = _WRAPPER.sub("", name)
            if match := _FACTOR.match(inner):
                factors.setdefault(match["module"], {})[match["factor"]] = info
            elif "lora_" in inner:
                raise self._error(f"tensor {name!r} is no factor of a plain low-rank sum")
            else:
                whole = self._target(_SAVED.sub("", inner), name)
                if not_a_weight(info):
                    raise self._error(f"tensor {name!r} is stored as {info.dtype}")
                if whole.shape != info.shape:
                    raise self._error(f"tensor {name!r} is {list(info.shape)}, the base's {list(whole.shape)}")
                found[whole.name] = rounded(info, whole.dtype, whole.name)
        if not factors and not found:
            raise self._error("holds no adapter weights")
        for module, pair in factors.items():
            if missing := {"A", "B"} - pair.keys():
                raise self._error(f"lora_{missing.pop()} of {module} is missing")
            base = self._target(f"{module}.weight", f"{module}.lora_A")
            # A base layer that is saved with the adapter (a resized embedding) takes the base's place.
            found[base.name] = self._sum(module, found.get(base.name, base), pair["A"], pair["B"])
        return found

    def _target(self, name: str, asked_by: str) -> TensorInfo:
        found, _ = self._inventory.find(name)
        if found is None:
            raise self._error(f"{asked_by!r} changes {name}, which the base {self._inventory.given} does not store")
        if isinstance(found, Dequantised) or not_a_weight(found):
            raise self._error(f"{asked_by!r} changes {name}, which the base {self._inventory.given} stores quantised")
        return found

    def _sum(self, module: str, base: TensorInfo, down: TensorInfo, up: TensorInfo) -> TensorInfo:
        embedding = "lora_embedding_" in down.name
        transposed = embedding or bool(self._configuration.get("fan_in_fan_out"))
        shapes = (down.shape, up.shape, base.shape)
        if any(len(shape) != 2 for shape in shapes) or any(not_a_weight(info) for info in (down, up)):
            raise self._error(f"{module} is no matrix with two factors, but {', '.join(map(str, map(list, shapes)))}")
        product = (up.shape[0], down.shape[1])
        if up.shape[1] != down.shape[0] or (product[::-1] if transposed else product) != base.shape:
            factors = f"{list(up.shape)} x {list(down.shape)}"
            raise self._error(f"factors {factors} of {module} do not fit {list(base.shape)}")
        size = base.end - base.begin
        scale = self._scale(module, down.shape[0])
        return LowRankUpdate(
            base.name, base.dtype, base.shape, LowRankUpdate.place(base), 0, size, base, down, up, scale, transposed,
            embedding, self._base_name,
        )  # fmt: skip

    def _scale(self, module: str, rank: int) -> float:
        alpha = self._configuration.get("lora_alpha", 8)
        for pattern, own in (self._configuration.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = own
                break
        if not isinstance(alpha, int | float):
            raise self._error(f"lora_alpha is {alpha!r}, no number")
        return alpha / math.sqrt(rank) if self._configuration.get("use_rslora") else alpha / rank

    def _error(self, message: str) -> CheckpointError:
        return CheckpointError(message, subject=str(self._file), remedy="Check that this is the adapter's base model")
