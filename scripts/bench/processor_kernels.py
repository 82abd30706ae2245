"""Bytes per second of the processor kernels as a ratio to a plain vectorised read of the same bytes in the same run.

Command: python scripts/bench/processor_kernels.py [--elements 64] [--repeats 9]      (millions of elements a model)

bfloat16, suspect + base + 2 parents: the trained test family, tiled, and a merge of it. All cores; every repetition
measures the read and each kernel once, in turn, so that a busy machine slows them alike. Baselines: torch in float32
chunks, and torch.linalg.lstsq in float64 (what one writes first), on a part of the elements. Three kinds of replay: in
the merge's own arithmetic, in another (one element in ten thousand differs), with wrong coefficients (most differ).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from tiled import blended, family_member

from reconstruct.kernels import gram_processor, pick_processor, replay_processor
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import View

Arrays = list[NDArray[np.uint16]]
BLOCK = 1 << 20
BFLOAT16 = Lattice.of_dtype("BF16")
OWN, OTHER = Formula("sum", "float32"), Formula("delta", "float32")
VECTORS = np.array([[0.0, 0.6, 0.4], [0.0, 0.4, 0.6], [0.3, 0.3, 0.4], [1.2, -0.6, 0.4]])
GOALS = {"gram": 0.8, "replay, 1 vector": 0.6, "replay, 4 vectors": 0.2}


def models(elements: int) -> Arrays:
    """Suspect, base and two fine-tunes: uint16 [elements] each."""
    states = [blended((0.6, 0.4), ("ft-code", "ft-docs")), *map(family_member, ("base", "ft-code", "ft-docs"))]
    flat = [torch.cat([v.reshape(-1) for v in s.values()]).view(torch.uint16).numpy() for s in states]
    return [np.resize(v, elements) for v in flat]


def over_blocks(arrays: Arrays, pool: ThreadPoolExecutor, work: Callable[[list[View]], object]) -> None:
    """`work` on every block of all models, on all threads."""
    starts = range(0, len(arrays[0]), BLOCK)
    list(pool.map(lambda s: work([View(a[s : s + BLOCK], "BF16") for a in arrays]), starts))


def read(arrays: Arrays, pool: ThreadPoolExecutor) -> None:
    """The largest of all 64-bit words, block by block: as fast as numpy reads."""
    over_blocks(arrays, pool, lambda views: [int(v.bits.view(np.uint64).max()) for v in views])


def torch_chunked(arrays: Arrays) -> torch.Tensor:
    total = torch.zeros(4, 4, dtype=torch.float64)
    tensors = [torch.from_numpy(a).view(torch.bfloat16) for a in arrays]
    for start in range(0, len(arrays[0]), 1 << 18):
        s, b, x, y = (t[start : start + (1 << 18)].float() for t in tensors)
        d = torch.stack([s - b, x - b, y - b, b])
        total += (d @ d.T).double()
    return total


def torch_naive(arrays: Arrays) -> torch.Tensor:
    s, b, x, y = (torch.from_numpy(a).view(torch.bfloat16).double() for a in arrays)
    return torch.linalg.lstsq(torch.stack([x - b, y - b], dim=1), s - b).solution


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=64, metavar="MILLIONS", help="per model")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    arrays = models((arguments.elements << 20) // BLOCK * BLOCK)
    gigabytes = sum(a.nbytes for a in arrays) / 1e9
    part = [a[: 1 << 23] for a in arrays]

    def replay(first: int, last: int, formula: Formula = OWN) -> Callable[[list[View]], object]:
        chosen = VECTORS[first:last]
        return lambda v: replay_processor.replay(v, chosen, np.ones(len(chosen)), formula, BFLOAT16)

    with ThreadPoolExecutor(threads) as pool:
        work: dict[str, Callable[[], object]] = {
            "read": lambda: read(arrays, pool),
            "gram": lambda: over_blocks(arrays, pool, lambda v: gram_processor.gram(v, BFLOAT16)),
            "pick, 1 in 100": lambda: over_blocks(
                arrays, pool, lambda v: pick_processor.pick(v, seed=0, below=0xFFFFFFFF // 100)
            ),
            "replay, 1 vector": lambda: over_blocks(arrays, pool, replay(0, 1)),
            "  other arithmetic": lambda: over_blocks(arrays, pool, replay(0, 1, OTHER)),
            "  wrong coefficients": lambda: over_blocks(arrays, pool, replay(1, 2)),
            "replay, 4 vectors": lambda: over_blocks(arrays, pool, replay(0, 4)),
        }
        for function in work.values():  # compiled, and pages touched
            function()
        times = {name: [] for name in work}  # type: dict[str, list[float]]
        for _ in range(arguments.repeats):
            for name, function in work.items():
                times[name].append(seconds(function))
    scale = part[0].nbytes * 4 / 1e9
    chunked = scale / np.median([seconds(lambda: torch_chunked(part)) for _ in range(3)])
    naive = scale / np.median([seconds(lambda: torch_naive(part)) for _ in range(3)])
    print(f"{gigabytes:.2f} GB in four models, {threads} threads, torch {torch.__version__}, {arguments.repeats} times")
    print(f"{'':20}  GB/s: p20    p50    p80   ratio to the read (median of the repeats)")
    for name, values in times.items():
        slow, middle, fast = gigabytes / np.quantile(values, [0.8, 0.5, 0.2])
        ratio = float(np.median(np.array(times["read"]) / np.array(values)))
        goal = GOALS.get(name)
        verdict = "" if goal is None else f"   goal {goal}: {'met' if ratio >= goal else 'missed'}"
        print(f"{name:20}  {slow:9.1f} {middle:6.1f} {fast:6.1f}   {ratio:5.2f}{verdict}")
    gram = gigabytes / float(np.median(times["gram"]))
    for name, speed, goal in (("torch, float32 chunks", chunked, 5), ("torch lstsq, float64", naive, 100)):
        print(f"{name:22} {speed:6.2f} GB/s: gram is {gram / speed:.0f} x as fast   goal {goal} x: "
              f"{'met' if gram / speed >= goal else 'missed'}")  # fmt: skip


if __name__ == "__main__":
    main()
