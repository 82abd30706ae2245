"""Sizes in bytes as people write them: 200MB, 1.5 GiB, 4096."""

from __future__ import annotations

import re
from fractions import Fraction

from reconstruct.errors import ConfigurationError

__all__ = ["byte_text", "parse_bytes"]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_bytes(value: int | str | None, option: str) -> int | None:
    """Bytes of "200MB", "1.5 GiB" or 4096; None stays None. Raises ConfigurationError naming `option`."""
    if value is None:
        return None
    match = _SIZE.fullmatch(str(value).strip())
    if isinstance(value, bool) or match is None or match[2].upper() not in _UNITS:
        raise ConfigurationError(
            f"{value!r} is no size", subject=option, remedy="Say a number of bytes, or one with a unit, such as 200MB"
        )
    size = int(Fraction(match[1]) * _UNITS[match[2].upper()])
    if size < 1:
        raise ConfigurationError("must be at least one byte", subject=option, remedy="Leave it out to read everything")
    return size


def byte_text(size: int) -> str:
    """Decimal units, three digits: "812 B", "4.2 KB", "212 MB"."""
    value, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"
