"""Arrays in a GPU's memory, in the storage form that `View` has on the host. This file needs torch, not Triton."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reconstruct.kernels.formats import FLOAT_FORMATS
from reconstruct.kernels.results import View

__all__ = [
    "DeviceView", "device_of", "devices_at_hand", "host_copy", "interpreted", "memory_for", "on_device", "storage_type",
]  # fmt: skip

#: torch's dtype of the carrier, by bytes a weight; floats of 4 and 8 bytes are held as what they are.
_CARRIERS = {1: torch.uint8, 2: torch.int16}


def storage_type(dtype: str) -> torch.dtype:
    """The torch dtype that carries the bits of a safetensors dtype: int16, uint8, float32 or float64."""
    own: torch.dtype = getattr(torch, FLOAT_FORMATS[dtype].torch_name)
    return _CARRIERS.get(own.itemsize, own)


@dataclass(frozen=True)
class DeviceView:
    """A contiguous 1-D tensor in storage form (see `storage_type`), on any device, and the name of its dtype."""

    bits: torch.Tensor
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in FLOAT_FORMATS:
            raise ValueError(f"{self.dtype} is not read by the kernels; they read {', '.join(FLOAT_FORMATS)}")
        if self.bits.ndim != 1 or self.bits.dtype != storage_type(self.dtype) or not self.bits.is_contiguous():
            found = f"{self.bits.ndim}-D {self.bits.dtype}"
            raise ValueError(f"{self.dtype} is held as a contiguous 1-D {storage_type(self.dtype)}, not as {found}")

    def __len__(self) -> int:
        return len(self.bits)

    def first(self, count: int) -> DeviceView:
        """The first `count` elements, in place."""
        return DeviceView(self.bits[:count], self.dtype)


def interpreted() -> bool:
    """Whether Triton runs its kernels on the processor, element by element (TRITON_INTERPRET=1): tests do."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def device_of(models: Sequence[View | DeviceView]) -> torch.device:
    """Where the kernels will run: where the first device view lies, else the current GPU (interpreted: the CPU)."""
    for model in models:
        if isinstance(model, DeviceView):
            return model.bits.device
    return torch.device("cpu") if interpreted() else torch.device("cuda", torch.cuda.current_device())


def devices_at_hand() -> list[torch.device]:
    """Every visible GPU; the CPU where kernels are interpreted."""
    if interpreted():
        return [torch.device("cpu")]
    return [torch.device("cuda", i) for i in range(torch.cuda.device_count())]


def memory_for(device: torch.device, workers: int) -> int:
    """Bytes of one tensor's models that each of so many workers may keep on a device: half of what is free, shared."""
    if device.type != "cuda":
        return 1 << 28
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) // (2 * max(workers, 1))


def on_device(models: Sequence[View | DeviceView], device: torch.device | None = None) -> list[DeviceView]:
    """The models in the memory of one device; views that lie there already are taken as they are."""
    target = device if device is not None else device_of(models)
    return [
        m if isinstance(m, DeviceView) and m.bits.device == target
        else DeviceView((m.bits if isinstance(m, DeviceView) else host_copy(m)).to(target), m.dtype)
        for m in models
    ]  # fmt: skip


def host_copy(model: View, buffer: torch.Tensor | None = None) -> torch.Tensor:
    """The bits of a host view as a tensor in `storage_type`: a copy, in `buffer` (uint8, long enough) if given."""
    carrier = storage_type(model.dtype)
    if buffer is None:
        buffer = torch.empty(model.bits.nbytes, dtype=torch.uint8)
    copy = buffer[: model.bits.nbytes].view(carrier)
    # numpy copies: torch warns of arrays that are read-only, as mapped files are.
    np.copyto(copy.numpy(), model.bits.view(copy.numpy().dtype))
    return copy
