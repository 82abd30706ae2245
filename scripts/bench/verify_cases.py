"""Every deterministic method of mergekit: made by `mergekit-yaml`, verified, verified with a wrong number, fitted.

Command: python scripts/bench/verify_cases.py [--write docs/verified-recipes.md] [--only WORD]

Merges of the tiny trained family, by mergekit's own program in another process: each method in bfloat16, in float32,
and in float32 saved as bfloat16; constant, with a gradient, with a filter where the method takes numbers. For each: the
true recipe, the recipe with one number off by .01 (in bfloat16), a suspect with one layer of another model (in
bfloat16), and what `fit hypotheses=all` makes of the same models: the recipe that it writes is run through mergekit, as
part of the run, and every bit is compared.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from tiled import FAMILY

import reconstruct
from reconstruct.schema import FAMILIES
from reconstruct.verification.conclusion import ConclusionKind
from reconstruct.verification.run import Verification

A, B, BASE, OTHER = (str(FAMILY / name) for name in ("ft-code", "ft-docs", "base", "ft-code-seed2"))
DTYPES = {
    "bf16": {"dtype": "bfloat16"},
    "f32": {"dtype": "float32"},
    "f32 to bf16": {"dtype": "float32", "out_dtype": "bfloat16"},
}
#: Method -> base model, parameters of the first and second model, parameters of the whole.
METHODS: dict[str, tuple[str | None, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "linear": (None, {"weight": 0.6}, {"weight": 0.4}, {}),
    "passthrough": (None, {"scale": 0.9}, {}, {}),
    "slerp": (A, {}, {}, {"t": 0.3}),
    "nuslerp": (None, {"weight": 0.6}, {"weight": 0.4}, {}),
    "multislerp": (None, {"weight": 0.6}, {"weight": 0.4}, {}),
    "karcher": (None, {}, {}, {}),
    "task_arithmetic": (BASE, {"weight": 0.5}, {"weight": 0.3}, {}),
    "model_stock": (BASE, {}, {}, {}),
    "ties": (BASE, {"weight": 0.6, "density": 0.5}, {"weight": 0.4, "density": 0.7}, {}),
    "breadcrumbs": (BASE, {"weight": 0.6, "density": 0.8}, {"weight": 0.4, "density": 0.8}, {"gamma": 0.02}),
    "breadcrumbs_ties": (BASE, {"weight": 0.6, "density": 0.8}, {"weight": 0.4, "density": 0.8}, {"gamma": 0.02}),
    "sce": (BASE, {}, {}, {"select_topk": 0.5}),
    "nearswap": (A, {}, {}, {"t": 0.002}),
    "ram": (BASE, {}, {}, {"epsilon": 0.00001}),
    "ramplus_tl": (BASE, {}, {}, {"r": 0.15, "alpha": 0.25}),
    "arcee_fusion": (A, {}, {}, {}),
}
#: Where a gradient or a filter stands instead of the number.
VARIED = {"linear": "weight", "slerp": "t", "task_arithmetic": "weight", "nuslerp": "weight", "ties": "weight"}
SHAPES = {
    "constant": lambda number: number,
    "gradient": lambda number: [number, 0.8, 0.2],
    "filter": lambda number: [{"filter": "mlp", "value": 0.8}, {"value": number}],
}
MERGE = """
import json, sys
from mergekit.scripts.run_yaml import main
for recipe, target in json.load(open(sys.argv[1])):
    main([recipe, target, "--allow-crimes", "--quiet"], standalone_mode=False)
"""


@dataclass(frozen=True)
class Case:
    method: str
    shape: str
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.method}-{self.shape}-{self.dtype}".replace(" ", "-")

    def document(self) -> dict[str, Any]:
        base, first, second, whole = copy.deepcopy(METHODS[self.method])
        key = VARIED.get(self.method)
        for parameters in (first, whole):
            if key in parameters:
                parameters[key] = SHAPES[self.shape](parameters[key])
        chosen = [(A, first)] if self.method == "passthrough" else [(A, first), (B, second)]
        models = [{"model": m, **({"parameters": p} if p else {})} for m, p in chosen]
        document = {"merge_method": self.method, "models": models, **DTYPES[self.dtype]}
        return document | ({"base_model": base} if base else {}) | ({"parameters": whole} if whole else {})


def cases() -> list[Case]:
    return [
        Case(method, shape, dtype)
        for method in METHODS
        for shape in SHAPES
        if shape == "constant" or method in VARIED
        for dtype in DTYPES
    ]


def wrong_number(document: dict[str, Any]) -> tuple[dict[str, Any], float] | None:
    """The recipe with its first number off by .01, and the right number."""
    from reconstruct.claims.recipe_numbers import numbers_of, with_number

    numbers = [(place, value) for place, value in numbers_of(document) if 0.02 <= value < 0.99]
    if not numbers:
        return None
    place, value = numbers[0]
    return with_number(document, place, round(value + 0.01, 6)), value


def verified(folder: Path, suspect: Path, document: dict[str, Any], name: str) -> Verification:
    claimed = folder / f"{name}.yml"
    claimed.write_text(yaml.safe_dump(document))
    return reconstruct.verify(suspect, claimed, folder=folder / f"run-{name}")


def recovered(folder: Path, suspect: Path, case: Case) -> str:
    """What `fit` says, and whether mergekit turns the recipe it writes into the same bytes."""
    base = METHODS[case.method][0]
    parents = [m for m in (A, B) if m != base]
    run = reconstruct.fit(suspect, parents, base, folder=folder / f"fit-{case.name}", families=FAMILIES)
    said = run.verdict.kind.value
    if run.recipe is None or said != "reproduced":
        return said
    proof = run.evidence.proof
    assert proof is not None
    made = "the same bytes" if proof.complete else f"{proof.identical:.3%} of the weights"
    return f"{said}, {run.recipe.to_mergekit()['merge_method']}: {made}"


def row(folder: Path, case: Case) -> tuple[list[str], bool]:
    suspect, document = folder / case.name, case.document()
    true = verified(folder, suspect, document, f"{case.name}-true")
    good = true.conclusion.kind is ConclusionKind.CONFIRMED
    cells = [case.method, case.shape, case.dtype, true.conclusion.kind.value, "", ""]
    if case.dtype == "bf16":
        off = wrong_number(document)
        if off is not None:
            found = verified(folder, suspect, off[0], f"{case.name}-wrong")
            named = f"{off[1]:g} reproduces" in found.conclusion.reasons[0]
            cells[4] = f"{found.conclusion.kind.value}{', names the number' if named else ''}"
            good &= found.conclusion.kind is ConclusionKind.REFUTED and named
        tensors, other = load_file(suspect / "model.safetensors"), load_file(Path(OTHER) / "model.safetensors")
        strange = {k: v for k, v in other.items() if ".layers.1." in k and v.ndim == 2}
        replaced = folder / f"{case.name}-replaced"
        replaced.mkdir()
        save_file(tensors | strange, replaced / "model.safetensors")
        found = verified(folder, replaced, document, f"{case.name}-layer")
        named = set(found.conclusion.tensors) == set(strange)
        cells[5] = f"{found.conclusion.kind.value}{', names the layer' if named else ''}"
        good &= named
    return [*cells, recovered(folder, suspect, case)], good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, default=None, help="Markdown file for the table")
    parser.add_argument("--only", default="", help="only cases whose name holds this word")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    lines = [
        "| method | numbers | dtype | true recipe | one number off by .01 | one layer replaced | `fit` of its models |",
        "|---|---|---|---|---|---|---|",
    ]
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = [case for case in cases() if arguments.only in case.name]
        jobs = []
        for case in chosen:
            recipe = folder / f"{case.name}-made.yml"
            recipe.write_text(yaml.safe_dump(case.document()))
            jobs.append((str(recipe), str(folder / case.name)))
        (folder / "jobs.json").write_text(json.dumps(jobs))
        subprocess.run([sys.executable, "-c", MERGE, folder / "jobs.json"], check=True, capture_output=True)
        for case in chosen:
            cells, good = row(folder, case)
            wrong += not good
            lines.append(f"| {' | '.join(cells)} |")
            print(f"{'ok   ' if good else 'WRONG'} {lines[-1]}", flush=True)
    print(f"{wrong} of {len(chosen)} cases not as they should be")
    if arguments.write is not None:
        about = (__doc__ or "").split("\n\n")
        made = "Made by `python scripts/bench/verify_cases.py --write docs/verified-recipes.md`."
        head = f"# Verified recipes\n\n{about[2].strip()}\n\n{made}\n\n"
        arguments.write.write_text(head + "\n".join(lines) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
