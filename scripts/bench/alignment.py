"""Time and memory to pair three models of 60 layers with 512 experts each: one tensor an expert, stacked, or both.

Command: python scripts/bench/alignment.py      (needs no weights: the catalogs are made up)
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time
from pathlib import Path

from reconstruct.checkpoints.alignment import align
from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.local import MappedFiles
from reconstruct.checkpoints.reference import Reference, ReferenceKind

LAYERS, EXPERTS, HIDDEN, INNER = 60, 512, 2048, 512
CASES = {"separate": "ooo", "stacked": "sss", "stacked suspect": "soo"}


def catalog(given: str, *, stacked: bool) -> Catalog:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}."
        shapes |= {f"{block}self_attn.{p}_proj.weight": (HIDDEN, HIDDEN) for p in "qkvo"}
        shapes[f"{block}mlp.gate.weight"] = (EXPERTS, HIDDEN)
        if stacked:
            shapes[f"{block}mlp.experts.gate_up_proj"] = (EXPERTS, 2 * INNER, HIDDEN)
            shapes[f"{block}mlp.experts.down_proj"] = (EXPERTS, HIDDEN, INNER)
            continue
        for expert in range(EXPERTS):
            shapes |= {f"{block}mlp.experts.{expert}.{p}_proj.weight": (INNER, HIDDEN) for p in ("gate", "up")}
            shapes[f"{block}mlp.experts.{expert}.down_proj.weight"] = (HIDDEN, INNER)
    tensors, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + 2 * math.prod(shape)
        tensors[name] = TensorInfo(name, "BF16", shape, f"{given}/model.safetensors", begin, end)
        begin = end
    return Catalog(Reference(ReferenceKind.FOLDER, Path(given), given), tensors, MappedFiles(), ())


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(case: str) -> None:
    models = [catalog(str(i), stacked=kind == "s") for i, kind in enumerate(CASES[case])]
    before, start = peak(), time.perf_counter()
    result = align(models[0], models[1:])
    seconds = time.perf_counter() - start
    print(f"| {case} | {len(result.tensors):,} | {seconds:.1f} s | {before:.0f} MB | {peak():.0f} MB |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        print("| layout | tensors | time | memory with catalogs | peak |\n|---|---|---|---|---|", flush=True)
        for name in CASES:
            subprocess.run([sys.executable, __file__, name], check=True)
