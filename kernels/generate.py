"""Source text of the processor kernels, generated for a fixed number of models and their dtypes, compiled by numba.

A loop over K models at run time keeps products in memory; a text in which every model is a local variable keeps them
in registers and vectorises (about five times as fast). The text is written to a cache folder and imported from there,
so that numba can keep the compiled code on disk between runs.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["CHUNK", "cache_folder", "compiled", "decode_expression", "finite_expression"]

#: Elements per chunk: sums within are float32, across chunks float64.
CHUNK = 4096

_PREAMBLE = '''\
"""Generated; do not edit."""
import numpy as np
from numba import njit, float32, float64, int64, uint32, int32
from reconstruct.kernels.intrinsics import bits_to_float, float_to_bits, fma32, half_to_float
from reconstruct.kernels.intrinsics import round_mantissa, trailing_zeros
from reconstruct.kernels.formats import FLOAT8_TABLES
from reconstruct.kernels.replay_careful import count_carefully, half_round, sum_of_squares, tally
E4M3 = FLOAT8_TABLES["F8_E4M3"]
E5M2 = FLOAT8_TABLES["F8_E5M2"]

'''
#: Kept code is valid only for the helper functions it was compiled with, which numba does not check.
_HELPERS = "".join(
    (Path(__file__).parent / name).read_text("utf-8") for name in ("intrinsics.py", "formats.py", "replay_careful.py")
)
_LOCK = threading.Lock()
_COMPILED: dict[str, Callable[..., Any]] = {}


def cache_folder() -> Path:
    """Where generated kernels and their compiled code are kept: $XDG_CACHE_HOME or ~/.cache, else a temporary one."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = root / "merge-reconstruct" / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # a read-only home, or none
        pass
    return _temporary_folder()


@functools.cache
def _temporary_folder() -> Path:
    """A folder of ours alone: what lies in it is executed, and anyone may write to the system's temporary folder."""
    folder = Path(tempfile.gettempdir()) / f"merge-reconstruct-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            return Path(tempfile.mkdtemp(prefix="merge-reconstruct-"))
    return folder


def decode_expression(dtype: str, value: str) -> str:
    """An expression that turns stored bits into float32."""
    return {
        "BF16": f"bits_to_float(uint32({value}) << uint32(16))",
        "F16": f"half_to_float(uint32({value}))",
        "F32": value,
        "F64": f"float32({value})",
        "F8_E4M3": f"E4M3[{value}]",
        "F8_E5M2": f"E5M2[{value}]",
    }[dtype]


def finite_expression(names: list[str]) -> str:
    """An expression that is true if all float32 variables are finite; by bits, so that fast math keeps it."""
    return " and ".join(f"(float_to_bits({n}) & uint32(0x7F800000)) != uint32(0x7F800000)" for n in names)


def compiled(name: str, body: str) -> Callable[..., Any]:
    """The function `name` of a generated text, compiled when first called. Thread-safe."""
    text = _PREAMBLE + body
    key = hashlib.sha256((_HELPERS + text).encode()).hexdigest()[:16]
    with _LOCK:
        if key not in _COMPILED:
            path = cache_folder() / f"{name}_{key}.py"
            if not path.is_file() or path.read_text() != text:
                with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
                    file.write(text)
                Path(file.name).replace(path)
            spec = importlib.util.spec_from_file_location(f"reconstruct_generated_{path.stem}", path)
            if spec is None or spec.loader is None:
                raise RuntimeError(f"cannot import the generated kernel {path}")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # numba looks there when it loads compiled code from disk
            spec.loader.exec_module(module)
            _COMPILED[key] = getattr(module, name)
        return _COMPILED[key]
