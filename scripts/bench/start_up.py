"""Time until the program answers: `reconstruct --help`, and `fit` on the demo with an empty and a full kernel cache.

Command: python scripts/bench/start_up.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import save_file
from tiled import FAMILY, blended

GOALS = {"reconstruct --help": 1.5, "fit on the demo, kernels compiled": 10.0}


def seconds(command: list[str], cache: str) -> float:
    start = time.perf_counter()
    kept = {"XDG_CACHE_HOME": cache, "NUMBA_CACHE_DIR": f"{cache}/numba"}  # generated kernels, and numba's other code
    subprocess.run(command, check=True, capture_output=True, env=os.environ | kept)
    return time.perf_counter() - start


def main() -> None:
    program = str(Path(sys.executable).with_name("reconstruct"))
    with tempfile.TemporaryDirectory() as folder:
        merge = Path(folder) / "merge"
        merge.mkdir()
        save_file(blended((0.6, 0.4), ("ft-code", "ft-docs")), merge / "model.safetensors")
        fit = [
            program,
            "fit",
            f"suspect={merge}",
            f"parents=[{FAMILY}/ft-code,{FAMILY}/ft-docs]",
            f"base={FAMILY}/base",
        ]
        times = {
            "reconstruct --help": seconds([program, "--help"], folder),
            "fit on the demo, kernels compiled": seconds([*fit, f"folder={folder}/cold"], f"{folder}/cache"),
            "fit on the demo, kernels at hand": seconds([*fit, f"folder={folder}/warm"], f"{folder}/cache"),
        }
    for name, taken in times.items():
        goal = GOALS.get(name)
        print(f"{name:36} {taken:6.2f} s" + ("" if goal is None else f"   goal {goal} s: "
              f"{'met' if taken <= goal else 'missed'}"))  # fmt: skip


if __name__ == "__main__":
    main()
