"""Which implementation runs: on a GPU where there is one, else on the processor; the reference where asked.

`RECONSTRUCT_KERNELS=triton|processor|reference` forces one. A further implementation takes its place here: a module per
operation with the same signature, and its name in `IMPLEMENTATIONS`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.kernels.results import GramResult, ReplayResult

__all__ = ["IMPLEMENTATIONS", "Kernels", "select"]

IMPLEMENTATIONS = ("triton", "processor", "reference")
_CAPABILITY = (8, 0)  # of the oldest GPUs that the kernels are compiled for in tests


@dataclass(frozen=True)
class Kernels:
    """The three operations of one implementation, and why it was chosen."""

    name: str
    reason: str
    gram: Callable[..., GramResult]
    pick: Callable[..., NDArray[np.int64]]
    replay: Callable[..., ReplayResult]


def select(wanted: str = "auto") -> Kernels:
    """Choose by the environment, then by `wanted` ("auto" or a name).

    Raises ValueError for an unknown name, and for "triton" where it cannot run.
    """
    forced = os.environ.get("RECONSTRUCT_KERNELS")
    name, reason = (forced, "RECONSTRUCT_KERNELS") if forced else (wanted, "asked for")
    if name == "auto":
        missing = _what_triton_lacks()
        name, reason = ("processor", missing) if missing else ("triton", "a GPU is at hand")
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"no kernels called {name!r} ({reason}); there are {', '.join(IMPLEMENTATIONS)}")
    if name == "triton" and (missing := _what_triton_lacks()) and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"the triton kernels cannot run here ({reason}): {missing}")
    return _load(name, reason)


@functools.cache
def _what_triton_lacks() -> str:
    """Why no GPU kernels can run, or nothing. torch, which takes a second to import, is asked last."""
    devices = Path("/dev")
    if not any(devices.glob("nvidia[0-9]*")) and not (devices / "dxg").exists():
        return "no NVIDIA GPU"
    if importlib.util.find_spec("triton") is None:
        return "an NVIDIA GPU, but no triton: pip install triton"
    import torch

    if not torch.cuda.is_available():
        return "an NVIDIA GPU, but torch cannot use it (a CPU build, or no driver)"
    oldest = min(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
    if oldest < _CAPABILITY:
        return f"a GPU of compute capability {oldest[0]}.{oldest[1]}; 8.0 is needed"
    return ""


@functools.cache
def _load(name: str, reason: str) -> Kernels:
    parts = {
        operation: getattr(importlib.import_module(f"reconstruct.kernels.{operation}_{name}"), operation)
        for operation in ("gram", "pick", "replay")
    }
    if name == "triton" and os.environ.get("TRITON_INTERPRET") == "1":
        lock = threading.Lock()  # the interpreter changes its own modules while a kernel runs
        parts = {operation: functools.partial(_alone, lock, function) for operation, function in parts.items()}
    return Kernels(name, reason, **parts)


def _alone(lock: threading.Lock, function: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    with lock:
        return function(*positional, **named)
