"""Checkpoints that torch pickled: unpickled with `weights_only=True`, which runs no code, and mapped where possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reconstruct.checkpoints.catalog import TensorInfo
from reconstruct.checkpoints.weight_files import readable
from reconstruct.errors import CheckpointError
from reconstruct.kernels.formats import FLOAT_FORMATS

__all__ = ["LoadedTensors", "open_pickle"]

_NAMES = {getattr(torch, f.torch_name): f.name for f in FLOAT_FORMATS.values()}
_NAMES |= {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.uint8: "U8", torch.int8: "I8"}
_NAMES |= {torch.bool: "BOOL"}
#: Where training programs put the weights inside what they pickle.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


class LoadedTensors:
    """Byte source over tensors that torch holds."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Elements [start, stop) in storage form."""
        stored = self._tensors[tensor.name if tensor.name in self._tensors else tensor.name.partition("[")[0]]
        first = tensor.begin // stored.element_size()  # 0 but for a part of the stored tensor
        flat = stored.detach().reshape(-1)[first + start : first + stop].contiguous()
        carrier = {torch.bfloat16: torch.uint16, torch.float16: torch.uint16}.get(flat.dtype)
        if flat.element_size() == 1:
            carrier = torch.uint8
        array: NDArray[np.generic] = (flat.view(carrier) if carrier is not None else flat).numpy()
        return array

    def ahead(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Nothing to do: the tensors are in memory."""

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Nothing to do: torch owns the mapping."""


def open_pickle(file: Path) -> tuple[dict[str, torch.Tensor], list[TensorInfo]]:
    """All tensors of one file, and what they are. Raises CheckpointError."""
    state = _unwrapped(_load(file))
    loaded: dict[str, torch.Tensor] = {}
    infos: list[TensorInfo] = []
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            continue  # step counters and the like: no weights
        if value.layout is not torch.strided or value.is_meta:
            raise CheckpointError(
                f"tensor {name!r} is sparse or has no data",
                subject=str(file),
                remedy="Convert the checkpoint to safetensors",
            )
        dtype = _NAMES.get(value.dtype, str(value.dtype).removeprefix("torch.").upper())
        size = value.numel() * value.element_size()
        loaded[str(name)] = value
        infos.append(TensorInfo(str(name), dtype, tuple(value.shape), str(file), 0, size))
    if not infos:
        raise CheckpointError(
            "holds no named tensors", subject=str(file), remedy="Give the file of the model's weights"
        )
    return loaded, infos


def _load(file: Path) -> Any:
    try:
        with readable(file):
            try:
                return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):
                    raise
                # Files from before torch 1.6 are no zip archives and cannot be mapped.
                return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises whatever its unpickler met
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"torch cannot load it safely ({reason[:120]})",
            subject=str(file),
            remedy="Convert the checkpoint to safetensors",
        ) from None


def _unwrapped(state: Any) -> dict[Any, Any]:
    """The mapping of names to tensors, out of what training programs wrap around it."""
    if not isinstance(state, dict):
        return {}
    if any(isinstance(value, torch.Tensor) for value in state.values()):
        return state
    for key in _WRAPPERS:
        if isinstance(state.get(key), dict):
            return _unwrapped(state[key])
    return state
