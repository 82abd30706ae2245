"""The merges of a family, made by mergekit itself: never by the code that is judged here."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from families import Family
from safetensors.torch import load_file, save_file

__all__ = ["MERGES", "Merge", "make_merge", "possible"]


@dataclass(frozen=True)
class Merge:
    """A mergekit recipe. `models`: member -> its parameters; `parameters`: of the whole merge; `slices`: (member, part
    of the layers) in output order. `dtype`: "float32" computes and stores in it; None: computes in float32 and stores
    as the family does; "storage": computes in the storage dtype, as most published recipes do.
    """

    method: str
    models: dict[str, dict[str, Any]]
    base: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    slices: tuple[tuple[str, int], ...] = ()
    dtype: str | None = None


def _linear(dtype: str | None = None, **weights: float) -> Merge:
    models = {name.replace("_", "-"): {"weight": weight} for name, weight in weights.items()}
    return Merge("linear", models, dtype=dtype, parameters={"normalize": False})


def _deltas(method: str, weights: dict[str, float], dtype: str | None = "storage", **parameters: Any) -> Merge:
    return Merge(
        method, {name: {"weight": weight} for name, weight in weights.items()}, "base", parameters, dtype=dtype
    )


MERGES = {
    "merge": _linear(code=0.6, docs=0.4),
    "half-half": _linear(code=0.5, docs=0.5),
    "names-tables": _linear(names=0.537, tables=0.463),
    "uneven": _linear(docs=0.9, tables=0.1),
    "light": _linear(code_light=0.7, docs_light=0.3),
    "toward-base": _linear(base=0.435, code=0.565),
    "three": _linear(code=0.5, docs=0.3, names=0.2),
    "four": _linear(code=0.4, docs=0.3, names=0.2, tables=0.1),
    "in-float32": _linear("float32", code=0.35, docs=0.65),
    "in-storage": _linear("storage", code=0.6, docs=0.4),
    "second": _linear(code=0.3, docs=0.7),
    "task": _deltas("task_arithmetic", {"code": 0.5, "docs": 0.3}),
    "task-float32": _deltas("task_arithmetic", dict.fromkeys(("code", "docs", "names", "tables"), 0.3), None),
    "slerp": Merge("slerp", {"base": {}, "code": {}}, "base", {"t": 0.3}, dtype="storage"),
    "slerp-parents": Merge("slerp", {"code": {}, "docs": {}}, "code", {"t": 0.45}, dtype="storage"),
    "slerp-gradient": Merge("slerp", {"base": {}, "code": {}}, "base", dtype="storage", parameters={
        "t": [{"filter": "attn", "value": [0.2, 0.5, 0.8]}, {"filter": "mlp", "value": [0.7, 0.4]}, {"value": 0.5}]}),
    "linear-gradient": Merge("linear", {"code": {"weight": [0.2, 0.8]}, "docs": {"weight": [0.8, 0.2]}},
                             parameters={"normalize": False}),
    "model-stock": Merge("model_stock", {"code": {}, "docs": {}, "names": {}}, "base", dtype="storage"),
    "ties": _deltas("ties", {"code": 0.5, "docs": 0.5}, density=0.6),
    "dare": _deltas("dare_linear", {"code": 0.6, "docs": 0.4}, density=0.5),
    "slices": Merge("passthrough", {}, slices=(("code", 0), ("docs", 1)), dtype="storage"),
}  # fmt: skip


def possible(family: Family, merge: Merge) -> bool:
    """Gradients and slices need layers that the program knows of."""
    gradients = any(isinstance(value, list) for value in [*merge.parameters.values(), *_values(merge)])
    return _known(family) or not (gradients or merge.slices)


def make_merge(family: Family, folder: Path, name: str, merge: Merge) -> None:
    """Write the merge of members in `folder` beside them."""
    target, partial_target = folder / name, folder / f"{name}.partial"
    shutil.rmtree(partial_target, ignore_errors=True)
    (_run_program if _known(family) else _merge_states)(family, folder, partial_target, merge)
    partial_target.rename(target)


def _known(family: Family) -> bool:
    """Whether mergekit merges folders of this architecture: no plain LSTM, and of BERT only models with a pooler."""
    return family.architecture not in {"lstm", "bert"}


def _values(merge: Merge) -> list[Any]:
    return [value for parameters in merge.models.values() for value in parameters.values()]


def _output(family: Family, merge: Merge) -> tuple[str, str]:
    """The dtypes of computation and of storage."""
    if merge.dtype == "storage":
        return family.storage, family.storage
    return "float32", merge.dtype or family.storage


def _run_program(family: Family, folder: Path, target: Path, merge: Merge) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    logging.disable(logging.WARNING)
    computed, stored = _output(family, merge)
    document: dict[str, Any] = {
        "merge_method": merge.method, "dtype": computed, "out_dtype": stored, "parameters": merge.parameters,
    }  # fmt: skip
    if merge.base:
        document["base_model"] = str(folder / merge.base)
    if merge.slices:
        half = family.layers // 2
        ranges = ([0, half], [half, family.layers])
        document["slices"] = [
            {"sources": [{"model": str(folder / member), "layer_range": ranges[part]}]} for member, part in merge.slices
        ]
    else:
        document["models"] = [
            {"model": str(folder / member), "parameters": parameters} for member, parameters in merge.models.items()
        ]
    options = MergeOptions(
        allow_crimes=True, quiet=True, random_seed=family.seed, device="cpu", write_model_card=False,
        copy_tokenizer=False,
    )  # fmt: skip
    run_merge(MergeConfiguration.model_validate(document), str(target), options)


def _merge_states(family: Family, folder: Path, target: Path, merge: Merge) -> None:
    from mergekit.merge_methods.api import merge_state_dicts

    torch.manual_seed(family.seed)
    computed, stored = _output(family, merge)
    names = [*merge.models]
    if merge.base and merge.base not in names:
        names = [merge.base, *names]
    states = {name: load_file(folder / name / "model.safetensors") for name in names}
    own = {key for parameters in merge.models.values() for key in parameters}
    per_model = {key: {name: merge.models[name][key] for name in merge.models} for key in own}
    merged = merge_state_dicts(
        states, merge.method, parameters={**per_model, **merge.parameters}, base=merge.base,
        dtype=getattr(torch, computed), out_dtype=getattr(torch, stored),
    )  # fmt: skip
    target.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in merged.items()}, target / "model.safetensors")
    shutil.copyfile(folder / names[0] / "config.json", target / "config.json")
