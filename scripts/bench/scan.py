"""Scans on a folder of trained checkpoints: true parents are shown, innocent suspects have none.

Command: python scripts/bench/scan.py --lab FOLDER [--only WORD]

FOLDER holds qwen3-tiny/ as scripts/bench/acceptance.py describes it. Merges go to a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file, save_file

import reconstruct

#: Suspect -> its true parents; a dictionary of weights is a merge that is made here.
CASES: dict[str, tuple[dict[str, float], set[str]]] = {
    "merge": ({"ft-code": 0.565, "ft-pt": 0.435}, {"ft-code", "ft-pt"}),
    "merge of light ones": ({"ft-code-light": 0.6, "ft-pt-light": 0.4}, {"ft-code-light", "ft-pt-light"}),
    "merge of three": ({"ft-code": 0.4, "ft-pt": 0.3, "ft-man": 0.3}, {"ft-code", "ft-pt", "ft-man"}),
    "merge-then-ft-light": ({}, {"ft-code", "ft-pt"}),
    "ft-code-half": ({}, set()),
    "ft-code-seed2": ({}, set()),
    "ft-mix": ({}, set()),
    "ft-code-then-log": ({}, set()),
    "ft-code-light-half": ({}, set()),
    "ft-code-light-seed2": ({}, set()),
    "ft-man": ({}, set()),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    home = options.lab / "qwen3-tiny"
    everyone = sorted(p for p in home.iterdir() if p.is_dir() and p.name != "base")
    wrong = 0
    with tempfile.TemporaryDirectory() as made:
        for name, (weights, parents) in CASES.items():
            if options.only not in name:
                continue
            suspect = home / name
            if weights:
                states = [(w, load_file(home / m / "model.safetensors")) for m, w in weights.items()]
                suspect = Path(made) / name.replace(" ", "-")
                suspect.mkdir()
                blended = {k: sum(w * s[k].float() for w, s in states).to(v.dtype) for k, v in states[0][1].items()}
                save_file(blended, suspect / "model.safetensors")
            others = [p for p in everyone if p != suspect]
            began = time.perf_counter()
            result = reconstruct.scan(suspect, others, home / "base", folder=Path(made) / f"run {name}")
            shown = {Path(p).name for p in result.parents}
            wrong += not shown <= parents
            leads = [Path(c.name).name for c in result.candidates if c.kind == "lead"]
            state = "ok" if shown == parents else "missed" if shown <= parents else "FALSE"
            seconds = time.perf_counter() - began
            print(f"{state:6} {name:22} shown {sorted(shown)} leads {leads} {seconds:.0f} s", flush=True)
    print(f"{wrong} scans named somebody who is no parent")


if __name__ == "__main__":
    main()
