"""Text that every CPython installation carries, by subject: what the families are trained on."""

from __future__ import annotations

import sysconfig
import unicodedata
from functools import cache
from pathlib import Path

import torch

__all__ = ["SUBJECTS", "corpus"]

SUBJECTS = ("code", "docs", "names", "tables")


@cache
def corpus(subject: str) -> torch.Tensor:
    """Bytes of one subject: int64 [length]. Raises ValueError for an unknown one, FileNotFoundError where this Python
    was installed without it.

    code: packages of the standard library; docs: the language reference as `help()` shows it; names: those of Unicode
    characters; tables: character maps.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    if subject == "code":
        files = [path for package in ("email", "asyncio", "http", "json") for path in _sources(library / package)]
    elif subject == "docs":
        files = [library / "pydoc_data" / "topics.py"]
    elif subject == "tables":
        files = [path for path in _sources(library / "encodings") if path.name.startswith(("cp", "iso", "mac"))]
    elif subject == "names":
        lines = [f"{point:04X} {unicodedata.name(chr(point), '')}" for point in range(0x20, 0x2800)]
        return _tensor("\n".join(line for line in lines if " " in line.strip()).encode())
    else:
        raise ValueError(f"unknown subject {subject!r}; there are {', '.join(SUBJECTS)}")
    return _tensor(b"\n".join(path.read_bytes() for path in files))


def _sources(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.py"))


def _tensor(text: bytes) -> torch.Tensor:
    if len(text) < 10_000:
        raise FileNotFoundError("this Python was installed without parts of its standard library")
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).to(torch.int64)
