"""Writes what was measured into docs/evidence.md and README.md, between markers; or checks that it stands there.

The source is the summary beside the code, so that the check needs no run and no models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from page_tables import evidence_page, readme_table
from summary import read_summary

__all__ = ["PAGES", "check", "main", "placed"]

_ROOT = Path(__file__).parents[3]
_BEGIN, _END = "<!-- evidence:begin -->", "<!-- evidence:end -->"

#: Pages with the markers, and what stands between them.
PAGES: dict[Path, Callable[[Mapping[str, Any]], str]] = {
    _ROOT / "docs" / "evidence.md": evidence_page,
    _ROOT / "README.md": readme_table,
}


def placed(page: str, text: str, name: str) -> str:
    """The page with the text between its markers. Raises ValueError unless it has each marker once, in order."""
    before, begin, rest = page.partition(_BEGIN)
    inside, end, after = rest.partition(_END)
    if not begin or not end or _BEGIN in inside + after or _END in before + after:
        raise ValueError(f"{name}: needs the markers {_BEGIN} and {_END}, once and in this order")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    """Write both pages from the summary."""
    summary = read_summary()
    for path, render in PAGES.items():
        path.write_text(placed(path.read_text(), render(summary), path.name))
        print(path)


def check() -> None:
    """Raise SystemExit, naming the pages, if one does not say what the summary says."""
    summary = read_summary()
    stale = [path.name for path, render in PAGES.items()
             if path.read_text() != placed(path.read_text(), render(summary), path.name)]  # fmt: skip
    if stale:
        raise SystemExit(f"{', '.join(stale)}: not what the results say; write them anew with the command `page`")
