"""Bytes per second of the Triton kernels, as a ratio to a copy in the GPU's memory, and three torch baselines.

Command: python scripts/bench/gpu_kernels.py [--largest 1024] [--repeats 20]      (millions of elements a model)
         python scripts/bench/gpu_kernels.py --dry-run       every measured function once, interpreted; no numbers

Suspect, base and K parents in bfloat16, made on the GPU; the suspect is a merge of the others, so that replay meets
what it meets in use. A kernel's bytes are those of all models, each read once. The copy reads half as many and writes
as many, so that it moves the same bytes; its bandwidth counts both. Times are between CUDA events around the whole call
(launches, sums over programs, transfer of the result), after three calls to warm up, the L2 cache overwritten before
each. Results are checked against the reference on a slice before anything is timed. Exit code 2 without a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reconstruct.kernels import gram_reference, pick_reference, replay_reference
from reconstruct.kernels.device import DeviceView
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.pick_reference import EVERY_HASH
from reconstruct.kernels.results import View

DRY = "--dry-run" in sys.argv
PARENTS = (1, 2, 4, 8)
MILLIONS = (1, 16, 64, 256, 1024)
BFLOAT16 = Lattice.of_dtype("BF16")
DELTA = Formula("delta", "float32")
SAMPLE = 1 << 20
SPARE = 1 << 30  # bytes left to torch, partial sums and the buffer that overwrites the cache


@dataclass(frozen=True)
class Row:
    """One line of the table. `times`: seconds, p20, p50, p80; `copy`: seconds of the copy; `baselines`: seconds."""

    kernel: str
    parents: int
    elements: int
    size: int
    times: tuple[float, float, float]
    copy: float
    baselines: dict[str, float]

    @property
    def share(self) -> float:
        """Bandwidth as a fraction of the copy's: both move the same bytes."""
        return self.copy / self.times[1]


def percentiles(times: list[float]) -> tuple[float, float, float]:
    """p20, p50, p80."""
    low, middle, high = np.percentile(times, [20, 50, 80])
    return float(low), float(middle), float(high)


def table(rows: list[Row]) -> str:
    """Markdown; the last columns say how many times faster than a baseline, or "-" if that did not fit into memory."""
    names = ("naive", "chunked", "compiled")
    lines = [
        "| kernel | K | M elements | GB | p20 ms | p50 ms | p80 ms | GB/s | of copy | naive | chunked | compiled |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        factors = [f"{row.baselines[n] / row.times[1]:.1f}" if n in row.baselines else "-" for n in names]
        cells = [
            row.kernel, str(row.parents), f"{row.elements / 2**20:.0f}", f"{row.size / 1e9:.2f}",
            *(f"{t * 1e3:.3f}" for t in row.times), f"{row.size / row.times[1] / 1e9:.0f}", f"{row.share:.0%}",
            *factors,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def goals(rows: list[Row]) -> list[str]:
    """Each goal, the worst case that counts for it, and whether it was met; "not measured" without such a case."""
    large = [row for row in rows if row.elements >= 64 << 20]
    gram = [row for row in large if row.kernel == "gram"]
    return [
        _goal("gram >= 90 % of the copy, K <= 4, from 64 M elements", [r.share for r in gram if r.parents <= 4], 0.9),
        _goal("gram >= 75 % of the copy, K = 8, from 64 M elements", [r.share for r in gram if r.parents == 8], 0.75),
        _goal(
            "replay of 4 vectors >= 80 % of the copy, from 64 M elements",
            [r.share for r in large if r.kernel == "replay, 4 vectors"],
            0.8,
        ),
        _goal(
            "gram >= 10 x naive torch, from 64 M elements",
            [r.baselines["naive"] / r.times[1] for r in gram if "naive" in r.baselines],
            10.0,
        ),
    ]


def _goal(text: str, values: list[float], least: float) -> str:
    if not values:
        return f"- {text}: not measured"
    return f"- {text}: {'met' if min(values) >= least else 'missed'} (lowest of {len(values)}: {min(values):.2f})"


def slug(name: str) -> str:
    """A device's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def header(device: str) -> str:
    """What the numbers depend on."""
    triton = importlib.import_module("triton")
    driver = "none"
    if torch.cuda.is_available():
        found = Path("/proc/driver/nvidia/version")
        driver = found.read_text().splitlines()[0] if found.exists() else "unknown"
    return (
        f"# {device}, {datetime.now(tz=UTC).date()}\n\n"
        f"Driver: {driver}. CUDA {torch.version.cuda}, torch {torch.__version__}, triton {triton.__version__}.\n\n"
        "Ratio to a copy: a copy that reads half of the bytes and writes as many, measured beside it."
    )


def recipe(parents: int) -> NDArray[np.float64]:
    """The merge that made the suspect: coefficients [1, K + 1]."""
    share = 0.9 / parents
    return np.array([[0.1] + [share] * parents])


def neighbours(parents: int, vectors: int) -> NDArray[np.float64]:
    """The true recipe and others near it, as a search's last candidates are: coefficients [V, K + 1]."""
    random = np.random.default_rng(0)
    near = recipe(parents) + 1e-3 * random.standard_normal((vectors, parents + 1))
    near[0] = recipe(parents)
    return near


def make_models(parents: int, elements: int, device: torch.device) -> list[DeviceView]:
    """Suspect, base and K parents: one allocation each, filled in parts."""
    bits = [torch.empty(elements, dtype=torch.bfloat16, device=device) for _ in range(parents + 2)]
    generator = torch.Generator(device).manual_seed(parents)
    weights = torch.tensor(recipe(parents)[0], dtype=torch.float32)
    for start in range(0, elements, 1 << 24):
        base, *others = [tensor[start : start + (1 << 24)] for tensor in bits[1:]]
        base.copy_(0.02 * torch.randn(base.shape, generator=generator, device=device))
        merged = base.float()
        for j, other in enumerate(others):
            moved = 0.002 * torch.randn(base.shape, generator=generator, device=device)
            other.copy_(base.float() + moved)
            merged += weights[j + 1].item() * (other.float() - base.float())
        bits[0][start : start + (1 << 24)].copy_(merged)
    return [DeviceView(tensor.view(torch.int16), "BF16") for tensor in bits]


def naive(models: list[DeviceView]) -> torch.Tensor:
    """What one writes first: everything in float64."""
    values = torch.stack([m.bits.view(torch.bfloat16).double() for m in models])
    d = torch.cat([values[:1] - values[1], values[2:] - values[1], values[1:2]])
    return d @ d.T


def one_chunk(*values: torch.Tensor) -> torch.Tensor:
    """Float32 products of a chunk, in float64."""
    suspect, base, *parents = (v.float() for v in values)
    d = torch.stack([suspect - base, *(p - base for p in parents), base])
    return (d @ d.T).double()


def chunked(models: list[DeviceView], one: Callable[..., torch.Tensor] = one_chunk) -> torch.Tensor:
    """What one writes next: float32 in chunks, sums in float64."""
    tensors = [m.bits.view(torch.bfloat16) for m in models]
    total = torch.zeros(len(models), len(models), dtype=torch.float64, device=tensors[0].device)
    for start in range(0, len(tensors[0]), 1 << 22):
        total += one(*(t[start : start + (1 << 22)] for t in tensors))
    return total


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Time of each call on the GPU, the cache overwritten before it; the shape of a time without a GPU."""
    if DRY:
        work()
        return [1.0]
    flush = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
        if sum(times) > 2 and len(times) >= 5:
            break
    return times


def check(models: list[DeviceView]) -> None:
    """Equal counts and equal sums on a slice, for every kernel; raises AssertionError."""
    gram, pick, replay = kernels()
    length = 300 if DRY else 200_003
    device_part = [DeviceView(m.bits[1 : 1 + length], m.dtype) for m in models]
    part = [View(m.bits.cpu().numpy().view(np.uint16), m.dtype) for m in device_part]
    found, expected = gram(device_part, BFLOAT16), gram_reference.gram(part, BFLOAT16)
    np.testing.assert_array_equal(found.identical, expected.identical)
    scale = np.sqrt(np.diag(expected.gram))
    np.testing.assert_allclose(found.gram / np.outer(scale, scale), expected.gram / np.outer(scale, scale), atol=1e-5)
    vectors = neighbours(len(models) - 2, 1 if DRY else 4)
    arguments = (vectors, np.ones(len(vectors)), DELTA, BFLOAT16)
    fast, slow = replay(device_part, *arguments), replay_reference.replay(part, *arguments)
    for name in ("total", "exact", "close", "inside_box", "novel", "steps"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), err_msg=name)
    np.testing.assert_allclose(fast.energy, slow.energy, rtol=1e-6)
    np.testing.assert_array_equal(pick(device_part, seed=1), pick_reference.pick(part, seed=1))


def kernels() -> tuple[Callable[..., object], ...]:
    """gram, pick, replay. Imported late: whether Triton interprets them is read when they are declared."""
    names = ("gram", "pick", "replay")
    return tuple(getattr(importlib.import_module(f"reconstruct.kernels.{n}_triton"), n) for n in names)


def measure(parents: int, elements: int, repeats: int, *, sample: bool) -> list[Row]:
    """Every kernel and baseline on models of one size; with `sample`, also 32 vectors."""
    device = torch.device("cpu" if DRY else "cuda")
    models = make_models(parents, elements, device)
    check(models)
    gram, pick, replay = kernels()
    size = 2 * elements * len(models)
    copy = copy_time(size, repeats, device)
    compiled = torch.compile(one_chunk, backend="eager" if DRY else "inductor")
    baselines: dict[str, float] = {}
    for name, work, needed in (
        ("naive", lambda: naive(models), 24 * elements * len(models)),
        ("chunked", lambda: chunked(models), 0),
        ("compiled", lambda: chunked(models, compiled), 0),
    ):
        if fits(needed):
            baselines[name] = percentiles(seconds(work, min(repeats, 10)))[1]
        else:
            print(f"  {name}: {needed / 1e9:.0f} GB do not fit", flush=True)
    counts = (1, 4, 32) if sample else (1, 4)
    works: dict[str, Callable[[], object]] = {
        "gram": lambda: gram(models, BFLOAT16),
        "pick": lambda: pick(models, seed=1, below=EVERY_HASH // 100),
    }
    for vectors in counts:
        name = f"replay, {vectors} vector{'s' if vectors > 1 else ''}"
        arguments = (neighbours(parents, vectors), np.ones(vectors), DELTA, BFLOAT16)
        works[name] = lambda arguments=arguments: replay(models, *arguments)
    return [
        Row(
            name, parents, elements, size, percentiles(seconds(work, repeats)), copy,
            baselines if name == "gram" else {},
        )
        for name, work in works.items()
    ]  # fmt: skip


def copy_time(size: int, repeats: int, device: torch.device) -> float:
    """Median seconds to read size / 2 bytes and to write as many."""
    source = torch.zeros(size // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return percentiles(seconds(lambda: target.copy_(source), repeats))[1]


def fits(needed: int) -> bool:
    """Whether so many bytes are free on the GPU."""
    if DRY:
        return True
    torch.cuda.empty_cache()
    return needed + SPARE < torch.cuda.mem_get_info()[0]


def dry_run() -> None:
    """Every function that is measured, once, on few elements; and the tables, of made-up times that are not shown."""
    os.environ["TRITON_INTERPRET"] = "1"
    started = time.perf_counter()
    rows = [row for parents in (1, 2) for row in measure(parents, 600, 1, sample=parents == 1)]
    text = table(rows) + "\n".join(goals(rows)) + header("dry run")
    names = sorted({row.kernel for row in rows})
    print(f"dry run: {', '.join(names)} and the baselines ran and agree with the reference;", end=" ")
    print(f"{len(text.splitlines())} lines of tables; {time.perf_counter() - started:.0f} s; nothing was measured")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=MILLIONS[-1], metavar="M", help="elements a model, in millions")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    if arguments.dry_run:
        dry_run()
        return 0
    if not torch.cuda.is_available():
        print("gpu_kernels: torch finds no NVIDIA GPU; --dry-run runs everything interpreted", file=sys.stderr)
        return 2
    device = torch.cuda.get_device_name()
    rows: list[Row] = []
    notes: list[str] = []
    for parents in PARENTS:
        for millions in (m for m in MILLIONS if m <= arguments.largest):
            elements = millions << 20
            needed = 2 * 2 * elements * (parents + 2)
            if not fits(needed):
                notes.append(f"- K = {parents}, {millions} M elements: {needed / 1e9:.0f} GB do not fit, left out")
                continue
            print(f"K = {parents}, {millions} M elements", flush=True)
            rows += measure(parents, elements, arguments.repeats, sample=elements == SAMPLE)
    text = "\n\n".join([header(device), "\n".join(goals(rows)), table(rows), "\n".join(notes)]).strip() + "\n"
    print(text)
    name = f"{datetime.now(tz=UTC).date()}-{slug(device)}.md"
    (Path(__file__).parent / "results" / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
