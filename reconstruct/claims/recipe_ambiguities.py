"""Where a configuration leaves mergekit's output open: its types, the donor of its files, and its random numbers."""

from __future__ import annotations

from typing import Any

from reconstruct.claims.mergekit_methods import DTYPES, MergeMethod, Randomness
from reconstruct.claims.recipe_findings import Notebook, suggestion
from reconstruct.claims.recipe_settings import ever_below
from reconstruct.claims.recipe_structure import SEEDS, Structure

__all__ = ["note_ambiguities", "read_dtype"]

_HALVES = (None, "bfloat16", "float16")


def read_dtype(notebook: Notebook, document: dict[str, Any], key: str) -> str | None:
    """The type under `key` as written; None if there is none."""
    name = document.get(key)
    if name is None or name == "":
        return None
    if not isinstance(name, str) or name.removeprefix("torch.") not in DTYPES:
        near = suggestion(str(name), DTYPES).rstrip("?")
        notebook.fail(key, f"no type {str(name)[:40]!r}{near}", f"mergekit has {', '.join(DTYPES)}")
    return name


def note_ambiguities(
    notebook: Notebook, structure: Structure, method: MergeMethod, dtype: str | None, out_dtype: str | None
) -> None:
    """Findings about things that are absent; their line is that of merge_method."""
    several = len(structure.references) > 1
    if dtype is None and several:
        message = "absent: each tensor is merged in the type its inputs promote to, so how they are stored decides"
        notebook.note("dtype", message, at="merge_method")
    if out_dtype is None and method.writes_float32 and (dtype and dtype.removeprefix("torch.")) in _HALVES:
        stored = dtype or "16-bit inputs"
        message = f"absent: {method.name} computes float32 from {stored}, and mergekit writes it so"
        notebook.note("out_dtype", message, at="dtype" if dtype else "merge_method")
    if structure.base is None and several:
        message = "absent: mergekit copies config and tokenizer from the first model of a set, whose order changes with"
        notebook.note("base_model", f"{message} PYTHONHASHSEED", at="merge_method")
    if _draws(structure, method) and not any(key in notebook.document.lines for key in SEEDS):
        message = f"absent: {method.name} draws random numbers {method.randomness}"
        notebook.note("random_seed", f"{message}, and cannot be replayed without its seed", at="merge_method")


def _draws(structure: Structure, method: MergeMethod) -> bool:
    if method.randomness is not Randomness.BELOW_FULL_DENSITY:
        return method.randomness is Randomness.LARGE_TENSORS
    settings = [s.values for g in structure.groups for s in (*(i.settings for i in g.inputs), *g.outer)]
    return any(ever_below(values["density"], 1) for values in settings if "density" in values)
