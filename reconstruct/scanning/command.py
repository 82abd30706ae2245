"""The `reconstruct fit` that a scan ends with: quoted for Hydra's grammar, then for the shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

__all__ = ["fit_command", "fit_overrides"]

#: A letter, a slash or a dot in front keeps Hydra from reading a number or null; the rest means nothing in its grammar.
_PLAIN = re.compile(r"[A-Za-z_./~-]*[A-Za-z_/][A-Za-z0-9_./@+-]*")
_WORDS = {"null", "true", "false", "inf", "nan"}


def fit_overrides(suspect: str, parents: Sequence[str], base: str | None) -> list[str]:
    """The arguments of `reconstruct fit`, as Hydra takes them."""
    chosen = [f"suspect={_value(suspect)}", f"parents=[{','.join(map(_value, parents))}]"]
    return chosen if base is None else [*chosen, f"base={_value(base)}"]


def fit_command(suspect: str, parents: Sequence[str], base: str | None) -> str:
    """One line for a POSIX shell."""
    words = (word if word.endswith("]") and not re.search(r"[\s'\"\\]", word) else shlex.quote(word)
             for word in fit_overrides(suspect, parents, base))  # fmt: skip
    return " ".join(["reconstruct fit", *words])


def _value(text: str) -> str:
    plain = "/" in text or re.fullmatch(r"[A-Za-z][A-Za-z_-]*", text)
    if _PLAIN.fullmatch(text) and plain and not text.startswith("~") and text.lower() not in _WORDS:
        return text
    escaped = re.sub(r"(\\*)'", lambda m: m[1] * 2 + r"\'", text)
    escaped = re.sub(r"(\\+)$", lambda m: m[1] * 2, escaped)
    return f"'{escaped}'"
