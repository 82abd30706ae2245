"""The candidates of a scan as a list of references and model trees: given as one, or one a line in a text file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reconstruct.checkpoints.tree_query import PREFIX
from reconstruct.errors import ConfigurationError

__all__ = ["list_candidates"]

_OPTION = "candidates"


def list_candidates(given: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """References, and model trees as "children:org/base", in the order given, each once. Any other string or path is a
    text file: one of them a line, taken as on the command line (relative paths start at the working directory); what
    follows a `#` at the line's start or after a space is a comment.

    Raises ConfigurationError for a file that cannot be read as text, and where nothing is left.
    """
    if isinstance(given, str) and given.startswith(PREFIX):
        listed = [given.strip()]
    elif isinstance(given, str | Path):
        listed = _in_file(Path(given).expanduser())
    else:
        listed = [str(item).strip() for item in given]
    found = tuple(dict.fromkeys(item for item in listed if item))
    if not found:
        raise ConfigurationError(
            "no candidates", subject=_OPTION, remedy="Say candidates=[A,B,...], or a file with one reference a line"
        )
    return found


def _in_file(path: Path) -> list[str]:
    if path.is_dir():
        raise ConfigurationError(
            f"{path} is a folder, not a list", subject=_OPTION, remedy=f"Say candidates=[{path}] if it is a candidate"
        )
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror or error})", subject=_OPTION,
            remedy="Give a text file with one reference a line, or candidates=[A,B,...]",
        ) from None  # fmt: skip
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{path} is no text", subject=_OPTION, remedy=f"Say candidates=[{path}] if it is a candidate"
        ) from None
    return [_without_comment(line) for line in text.splitlines()]


def _without_comment(line: str) -> str:
    line = line.strip()
    return "" if line.startswith("#") else line.partition(" #")[0].strip()
