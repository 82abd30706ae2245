"""A claimed mergekit configuration: read from YAML, checked line by line, its models found on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconstruct.claims.mergekit_methods import MERGEKIT_METHODS, MERGEKIT_VERSION, MergeMethod
from reconstruct.claims.recipe_ambiguities import note_ambiguities, read_dtype
from reconstruct.claims.recipe_checks import check_against_method
from reconstruct.claims.recipe_findings import Finding, Notebook, suggestion
from reconstruct.claims.recipe_structure import read_structure
from reconstruct.claims.recipe_yaml import LARGEST_TEXT, load_located
from reconstruct.errors import ConfigurationError

__all__ = ["ClaimedRecipe", "Finding", "parse_recipe", "read_recipe", "resolve_models"]


@dataclass(frozen=True)
class ClaimedRecipe:
    """`models`: references as written, in the order of the text, the base among them, each once.

    `findings`: what mergekit accepts silently, or what leaves its output open.
    """

    location: str
    text: str
    document: dict[str, Any]
    method: str
    models: tuple[str, ...]
    base_model: str | None
    dtype: str | None
    out_dtype: str | None
    findings: tuple[Finding, ...]


def read_recipe(path: Path) -> ClaimedRecipe:
    """Read a configuration file."""
    location = str(path)
    try:
        if path.is_dir():
            raise ConfigurationError("a folder", subject=location, remedy="Name the YAML file in it")
        if not path.is_file():
            raise ConfigurationError("no such file", subject=location, remedy="Name the YAML file of the recipe")
        with path.open("rb") as file:
            content = file.read(4 * LARGEST_TEXT + 1)  # a character has at most four bytes; longer texts are refused
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        remedy = "Save it as UTF-8: mergekit reads nothing else"
        raise ConfigurationError(f"line {line}: not UTF-8", subject=location, remedy=remedy) from error
    except OSError as error:
        remedy = "Check the path and its permissions"
        raise ConfigurationError(f"cannot be read: {error.strerror}", subject=location, remedy=remedy) from error
    return parse_recipe(text, location)


def parse_recipe(text: str, location: str, *, first_line: int = 1) -> ClaimedRecipe:
    """Parse a configuration. `first_line`: where the text starts in the file named by `location`."""
    located = load_located(text, location, first_line)
    notebook = Notebook(located, location)
    document = located.value
    if document is None:
        notebook.fail("", "empty", "Give a mergekit configuration: merge_method, models, parameters")
    if not isinstance(document, dict):
        notebook.fail("", "not a mapping of keys", "Give a mergekit configuration: merge_method, models, parameters")
    method = _method(notebook, document)
    structure = read_structure(notebook, document)
    check_against_method(notebook, structure, method)
    dtype, out_dtype = (read_dtype(notebook, document, key) for key in ("dtype", "out_dtype"))
    note_ambiguities(notebook, structure, method, dtype, out_dtype)
    return ClaimedRecipe(
        location=location,
        text=text,
        document=document,
        method=method.name,
        models=structure.references,
        base_model=structure.base,
        dtype=dtype,
        out_dtype=out_dtype,
        findings=notebook.findings,
    )


def _method(notebook: Notebook, document: dict[str, Any]) -> MergeMethod:
    known = f"mergekit {MERGEKIT_VERSION} has {', '.join(MERGEKIT_METHODS)}"
    name = document.get("merge_method")
    if name is None:
        experts = "; this looks like a mixture of experts, which is no merge" if "experts" in document else ""
        near = next((s for key in document if (s := suggestion(key, ["merge_method"]))), "")
        notebook.fail("", f"no merge_method{near.rstrip('?')}{experts}", f"Add one: {known}", at="merge_method")
    if not isinstance(name, str) or name not in MERGEKIT_METHODS:
        near = suggestion(str(name), MERGEKIT_METHODS)
        notebook.fail("merge_method", f"no method {str(name)[:80]!r}{near.rstrip('?')}", known)
    return MERGEKIT_METHODS[name]


def resolve_models(recipe: ClaimedRecipe, paths: Mapping[str, str], beside: Path) -> dict[str, Path]:
    """The local folder of each model: by `paths`, with or without "@revision", else its name as a path.

    Relative paths start at the working directory, else at `beside`, the recipe's folder.
    """
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for reference in recipe.models:
        short = reference.partition("@")[0] if "+" not in reference else reference
        named = paths.get(reference, paths.get(short))
        candidates = [reference, short] if named is None else [named]
        folder = next((f for name in candidates if (f := _folder(name, beside)) is not None), None)
        if folder is not None:
            found[reference] = folder
        else:
            missing[reference] = reference if named is None else f"{reference} (not at {named!r})"
    if missing:
        example = ", ".join(f"{name}: ./folder" for name in missing)
        raise ConfigurationError(
            f"no local folder for {', '.join(missing.values())}",
            subject=recipe.location,
            remedy=f"Say where they are: recipe.paths={{{example}}}; mergekit needs whole models on this machine",
        )
    return found


def _folder(name: str, beside: Path) -> Path | None:
    """The folder of that name, relative to the working directory or to `beside`."""
    try:
        path = Path(name).expanduser()
        return next((p for p in (path, beside / path) if name and p.is_dir()), None)
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user's home, a NUL
        return None
