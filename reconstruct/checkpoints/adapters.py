"""LoRA adapters as models: a base checkpoint with the low-rank updates of an adapter folder, computed when read.

What peft's merge_and_unload writes for the same pair. Variants that change the base otherwise (DoRA, PiSSA and its
like, activated or block-diagonal adapters, adapters on whole parameters) are refused with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import ByteSource, Catalog, DerivingSource, FileState, TensorInfo
from reconstruct.checkpoints.fetch import RangeSource
from reconstruct.checkpoints.header import read_header
from reconstruct.checkpoints.inventory import Inventory
from reconstruct.checkpoints.local import MappedFiles, file_state
from reconstruct.checkpoints.low_rank import LowRankUpdate
from reconstruct.checkpoints.matching import not_a_weight
from reconstruct.checkpoints.pickles import LoadedTensors, open_pickle
from reconstruct.checkpoints.reference import Reference, repository_named
from reconstruct.checkpoints.scaled_float8 import Dequantised
from reconstruct.checkpoints.views import rounded
from reconstruct.checkpoints.weight_files import read_json, readable
from reconstruct.errors import CheckpointError

__all__ = [
    "CONFIGURATION", "Adapter", "adapter_folder", "adapter_weights", "read_adapter", "undescribed", "with_adapter",
]  # fmt: skip

CONFIGURATION = "adapter_config.json"
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


@dataclass(frozen=True)
class Adapter:
    """An adapter that was opened and waits for its base. `described`, `weights`: how errors name its two files, the
    latter as the catalog's shard; `folder`: where it lies, if it does on this machine.
    """

    reference: Reference
    configuration: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    source: ByteSource
    files: tuple[FileState, ...]
    described: str
    weights: str
    folder: Path | None = None

    def __post_init__(self) -> None:
        _refuse_variants(self.configuration, self.described)

    @property
    def base(self) -> str | None:
        """What it says its base is: a path, or a repository's name."""
        named = self.configuration.get("base_model_name_or_path")
        return named if isinstance(named, str) and named else None

    @property
    def repository(self) -> Reference | None:
        """The base as a repository of a Hub, at the revision that the adapter names; None if it can be none."""
        revision = self.configuration.get("revision")
        name = f"{self.base}@{revision}" if isinstance(revision, str) and revision else self.base
        return repository_named(name) if name is not None else None


def adapter_weights(names: Collection[str]) -> str | None:
    """The file that holds an adapter's weights, if there are no others among files of these names."""
    full = (n for n in names if n.endswith(".safetensors") or (n.startswith("pytorch_model") and n.endswith(".bin")))
    if {*full} - {*_WEIGHTS}:
        return None
    return next((name for name in _WEIGHTS if name in names), None)


def adapter_folder(location: Path) -> Path | None:
    """Where an adapter lies, if the folder (or the folder of that file) holds no more than one; None for others."""
    if location.is_file() and location.name in _WEIGHTS:
        return location.parent
    if location.is_dir() and adapter_weights({file.name for file in location.iterdir() if file.is_file()}):
        return location
    return None


def read_adapter(reference: Reference) -> Adapter | None:
    """The adapter at a path; None if something else is there. Raises CheckpointError (HeaderError)."""
    folder = adapter_folder(reference.path)
    if folder is None:
        return None
    described, named = folder / CONFIGURATION, reference.path.name if reference.path.is_file() else None
    weights = folder / (named or next(name for name in _WEIGHTS if (folder / name).is_file()))
    if not described.is_file():
        raise undescribed(str(folder))
    configuration = read_json(described)
    source, tensors = _open(weights)
    files = (file_state(described), file_state(weights))
    return Adapter(reference, configuration, tensors, source, files, str(described), str(weights), folder)


def undescribed(location: str) -> CheckpointError:
    """The error for an adapter without its configuration."""
    return CheckpointError(
        f"an adapter without {CONFIGURATION}: rank and scale are not known", subject=location,
        remedy="Download the whole folder",
    )  # fmt: skip


def with_adapter(adapter: Adapter, base: Catalog, base_name: str, remark: str = "") -> Catalog:
    """The model that an adapter makes of `base`, which notes call `base_name` and `remark`. Raises CheckpointError."""
    merge = _Merge(base, base_name + remark, adapter.configuration, adapter.weights)
    updates = merge.updates(adapter.tensors)
    stored = base.source.stored if isinstance(base.source, DerivingSource) else base.source
    joined = _JoinedRanges if isinstance(stored, RangeSource) else _Joined
    return replace(
        base, reference=adapter.reference, tensors=base.tensors | updates,
        source=joined(adapter.weights, adapter.source, stored), files=(*base.files, *adapter.files),
        adapted=replace(base.reference, given=base_name),
    )  # fmt: skip


def _refuse_variants(configuration: Mapping[str, Any], file: str) -> None:
    said = configuration.get("peft_type")
    if said != "LORA":
        raise CheckpointError(f"an adapter of type {said}, not LORA", subject=file, remedy=_MERGE_FIRST)
    if variant := next((name for name in _VARIANTS if configuration.get(name)), None):
        raise CheckpointError(
            f"{variant} makes it more than a low-rank sum, which is not recomputed", subject=file, remedy=_MERGE_FIRST
        )
    start = configuration.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_RESIDUAL_STARTS):
        raise CheckpointError(
            f"init_lora_weights={start} changes the base as well, which is not recomputed", subject=file,
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


class _JoinedRanges(_Joined):
    """The same where a request for the base is dear."""

    def __init__(self, shard: str, adapter: ByteSource, base: ByteSource) -> None:
        super().__init__(shard, adapter, base)
        assert isinstance(base, RangeSource)
        self._ranges = base

    def fetch(self, shard: str, begin: int, end: int) -> bytes | memoryview:
        """Bytes [begin, end) of one of the base's shards: of the adapter's tensors none is served as it is stored."""
        return self._ranges.fetch(shard, begin, end)


class _Merge:
    """Which tensors of the base an adapter changes, and into what."""

    def __init__(self, base: Catalog, base_name: str, configuration: Mapping[str, Any], file: str) -> None:
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
        return CheckpointError(message, subject=self._file, remedy="Check that this is the adapter's base model")
