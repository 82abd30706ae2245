"""Time of a whole `fit` as a ratio to reading the same bytes once, in the same process on the same files.

Command: python scripts/bench/fit_time.py [--size 1.0] [--folder /tmp]      (GB a model; suspect, base, two parents)

The read is numpy's vectorised sum over the mapped files (page cache warm for both), on as many threads as `fit` uses.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tiled import write_models

import reconstruct


def read_once(files: list[Path], threads: int) -> float:
    """Seconds to sum all 32-bit words of the files."""

    def one(file: Path) -> int:
        words = np.memmap(file, np.uint8, "r")
        words = words[: len(words) // 8 * 8].view(np.uint64)
        return sum(int(words[s : s + (1 << 20)].max()) for s in range(0, len(words), 1 << 20))

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, files))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=1.0, metavar="GB", help="per model")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        small = write_models(Path(folder) / "small", 1_000_000)
        large = write_models(Path(folder) / "large", int(arguments.size * 1e9))

        def fit(paths: dict[str, Path], run: str) -> float:
            start = time.perf_counter()
            parents = [paths["ft-code"], paths["ft-docs"]]
            found = reconstruct.fit(paths["suspect"], parents, paths["base"], folder=f"{folder}/{run}", threads=threads)
            assert found.verdict.kind is reconstruct.VerdictKind.REPRODUCED
            return time.perf_counter() - start

        first = fit(small, "first")  # compiles what the cache does not hold
        fixed = fit(small, "second")  # what does not depend on the size
        files = [file for path in large.values() for file in sorted(path.glob("*.safetensors"))]
        gigabytes = sum(file.stat().st_size for file in files) / 1e9
        reads = [read_once(files, threads) for _ in range(3)]
        whole = fit(large, "large")
    read = sorted(reads)[1]
    print(f"{gigabytes:.2f} GB in four models, {threads} threads")
    print(f"one read             {read:7.2f} s  ({gigabytes / read:.1f} GB/s, median of 3)")
    print(f"fit, tiny, first     {first:7.2f} s  (with compilation where the cache is cold)")
    print(f"fit, tiny, again     {fixed:7.2f} s")
    print(f"fit                  {whole:7.2f} s  = {whole / read:.1f} x one read; without the fixed part "
          f"{(whole - fixed) / read:.1f} x")  # fmt: skip


if __name__ == "__main__":
    main()
