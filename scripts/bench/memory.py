"""Peak resident memory of `fit` at two checkpoint sizes: it must not grow with the checkpoint.

Command: python scripts/bench/memory.py [--sizes 0.3 3] [--folder /tmp]      (needs four models of each size on disk)

Three sources (base and two parents) and the suspect, in one process each. VmHWM counts everything resident, also pages
of the mapped files; the anonymous part is sampled every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tiled import write_models

CHILD = """
import json, sys, threading, time
import reconstruct

def field(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0

peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, field("RssAnon"))
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
suspect, base, first, second, folder = sys.argv[1:]
start = time.perf_counter()
run = reconstruct.fit(suspect, [first, second], base, folder=folder, proof=False)
print(json.dumps({"seconds": time.perf_counter() - start, "resident": field("VmHWM"), "anonymous": peak,
                  "verdict": run.verdict.kind.value}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs=2, default=[0.3, 3.0], metavar="GB", help="per model")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    results = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            paths = write_models(Path(folder), int(size * 1e9))
            command = [sys.executable, "-c", CHILD, *map(str, paths.values()), f"{folder}/run"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(output.splitlines()[-1]))
        r = results[-1]
        print(
            f"{size:4.1f} GB a model: resident {r['resident'] / 1e6:6.0f} MB, anonymous {r['anonymous'] / 1e6:5.0f} MB,"
            f" {r['seconds']:6.1f} s, {r['verdict']}",
            flush=True,
        )
    small, large = results
    print(f"growth: resident x {large['resident'] / small['resident']:.2f}, "
          f"anonymous x {large['anonymous'] / small['anonymous']:.2f} "
          f"for x {arguments.sizes[1] / arguments.sizes[0]:.0f} the checkpoint")  # fmt: skip


if __name__ == "__main__":
    main()
