"""The runs behind the published numbers, in one file: every case, verdict, reason and answer, without the models."""

from __future__ import annotations

import lzma
from pathlib import Path

__all__ = ["ARCHIVE", "pack", "unpack"]

ARCHIVE = Path(__file__).parents[1] / "results" / "evidence-runs.xz"
_FILES = ("cases.jsonl", "results.jsonl", "modeldna.jsonl", "grid.json")
_MARK = "=== "


def pack(work: Path) -> None:
    """Write the archive from a work folder."""
    parts = [f"{_MARK}{name}\n{(work / name).read_text().strip()}\n" for name in _FILES if (work / name).exists()]
    ARCHIVE.write_bytes(lzma.compress("".join(parts).encode(), preset=9))
    print(ARCHIVE)


def unpack(work: Path) -> None:
    """Write the files of the archive into a work folder, from which `summary` and `plots` make the same numbers."""
    work.mkdir(parents=True, exist_ok=True)
    text = lzma.decompress(ARCHIVE.read_bytes()).decode()
    for part in text.split(_MARK)[1:]:
        name, _, content = part.partition("\n")
        (work / name).write_text(content)
        print(work / name)
