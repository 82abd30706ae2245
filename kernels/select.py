"""Which implementation runs: the fused one where it can, the reference where asked.

`RECONSTRUCT_KERNELS=reference|processor` forces one. A further implementation (for a GPU) takes its place here: a
module per operation with the same signature, and one line in `_MODULES`.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from reconstruct.kernels.results import GramResult, PickResult, ReplayResult

__all__ = ["IMPLEMENTATIONS", "Kernels", "select"]

IMPLEMENTATIONS = ("processor", "reference")


@dataclass(frozen=True)
class Kernels:
    """The three operations of one implementation, and why it was chosen."""

    name: str
    reason: str
    gram: Callable[..., GramResult]
    pick: Callable[..., PickResult]
    replay: Callable[..., ReplayResult]


def select(wanted: str = "auto") -> Kernels:
    """Choose by the environment, then by `wanted` ("auto" or a name). Raises ValueError for an unknown name."""
    forced = os.environ.get("RECONSTRUCT_KERNELS")
    name, reason = (forced, "RECONSTRUCT_KERNELS") if forced else (wanted, "asked for")
    if name == "auto":
        name, reason = "processor", "the only fused implementation for this machine"
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"no kernels called {name!r} ({reason}); there are {', '.join(IMPLEMENTATIONS)}")
    return _load(name, reason)


@functools.cache
def _load(name: str, reason: str) -> Kernels:
    parts = {
        operation: getattr(importlib.import_module(f"reconstruct.kernels.{operation}_{name}"), operation)
        for operation in ("gram", "pick", "replay")
    }
    return Kernels(name, reason, **parts)
