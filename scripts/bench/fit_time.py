"""Time of a whole `fit`: against mergekit merging the same models, and against one fused read of the same bytes.

Command: python scripts/bench/fit_time.py [--size 1.0] [--repeats 3] [--folder /tmp]      (GB a model)

Suspect and two parents (the trained test family, tiled), files in page cache. Whole processes with their imports:
`reconstruct fit` with its report but no plots and no proof (`report=quiet proof=false`), the same with plots and proof,
and `mergekit-yaml` making one linear merge of the two parents. Then, in one process after its imports: `fit`, and the
fused read, which is `gram` on every block as `fit` reads them. The suspect is made by mergekit, so that the merge and
what rebuilds it meet.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from tiled import write_models

import reconstruct
from reconstruct.checkpoints.alignment import AlignedTensor, align
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.engine.feed import Feeds
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.select import select
from reconstruct.sampling import SamplingPlan


def process(*command: object) -> float:
    """Seconds that a process takes."""
    start = time.perf_counter()
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{command[0]} failed:\n{result.stdout}{result.stderr}")
    return time.perf_counter() - start


def fused_read(models: list[Path], threads: int) -> tuple[float, int]:
    """Seconds for `gram` over all elements, and the number of tensors."""
    catalogs = [open_checkpoint(str(model)) for model in models]
    tensors = align(catalogs[0], catalogs[1:]).tensors
    kernels, plan, lattice = select(), SamplingPlan(), Lattice.of_dtype("BF16")
    feeds = Feeds(kernels, threads)

    def one(tensor: AlignedTensor) -> None:
        with feeds.borrow() as feed, feed.open(tensor, catalogs, plan) as resident:
            for block in resident.blocks():
                kernels.gram(block.views, lattice)

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, tensors))
    return time.perf_counter() - start, len(tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=1.0, metavar="GB", help="per model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        paths = write_models(Path(folder) / "models", int(arguments.size * 1e9))
        first, second, suspect = paths["ft-code"], paths["ft-docs"], Path(folder) / "merge"
        recipe = Path(folder) / "merge.yml"
        models = [{"model": str(m), "parameters": {"weight": w}} for m, w in ((first, 0.6), (second, 0.4))]
        recipe.write_text(yaml.safe_dump({"merge_method": "linear", "models": models, "dtype": "bfloat16"}))
        merge = (programs / "mergekit-yaml", recipe, suspect, "--allow-crimes", "--quiet")
        command = (programs / "reconstruct", "fit", f"suspect={suspect}", f"parents=[{first},{second}]")
        process(*merge)
        process(
            *command, "report=quiet", "proof=false", f"folder={folder}/first"
        )  # compiles what the cache does not hold
        fused_read([suspect, first, second], threads)
        whole: list[float] = []
        plotted: list[float] = []
        merging: list[float] = []
        fits: list[float] = []
        reads: list[float] = []
        count = 0
        for number in range(arguments.repeats):
            merging.append(process(*merge[:2], f"{folder}/again-{number}", *merge[3:]))
            whole.append(process(*command, "report=quiet", "proof=false", f"folder={folder}/quiet-{number}"))
            plotted.append(process(*command, f"folder={folder}/plots-{number}"))
            seconds, count = fused_read([suspect, first, second], threads)
            reads.append(seconds)
            start = time.perf_counter()
            run = reconstruct.fit(
                suspect, [first, second], folder=f"{folder}/api-{number}", threads=threads, proof=False
            )
            fits.append(time.perf_counter() - start)
            assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
        gigabytes = 3 * sum(f.stat().st_size for f in suspect.glob("*.safetensors")) / 1e9
    merged, quiet, full, fit, read = (float(np.median(x)) for x in (merging, whole, plotted, fits, reads))
    allowed = 4 * read + 0.010 * count
    print(f"{gigabytes:.2f} GB in three models, {count} tensors, {threads} threads, median of {arguments.repeats}")
    print(f"mergekit-yaml, one linear merge      {merged:6.2f} s  {min(merging):.2f} to {max(merging):.2f}")
    print(f"reconstruct fit, neither             {quiet:6.2f} s  = {quiet / merged:.2f} of it   goal 0.33: "
          f"{'met' if quiet / merged <= 1 / 3 else 'missed'}")  # fmt: skip
    print(f"reconstruct fit, plots and proof     {full:6.2f} s  = {full / merged:.2f} of it")
    print(f"one fused read                       {read:6.2f} s  ({gigabytes / read:.1f} GB/s)")
    print(f"fit, after import                    {fit:6.2f} s  goal 4 reads + 10 ms a tensor = {allowed:.2f} s: "
          f"{'met' if fit <= allowed else 'missed'}")  # fmt: skip


if __name__ == "__main__":
    main()
