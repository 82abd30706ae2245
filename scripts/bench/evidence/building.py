"""All families trained side by side, one process and one thread a family, and the merges of each."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

from families import Family, family_named

__all__ = ["build"]


def build(families: Sequence[Family], models: Path, processes: int) -> None:
    """Make every model of every family under `models`; what is there is kept. Prints the time of each family."""
    start = time.perf_counter()
    tasks = [(family.name, models) for family in sorted(families, key=lambda f: -f.hidden)]  # the long ones first
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        pool.starmap(_build_family, tasks, chunksize=1)
    print(f"built {len(families)} families in {time.perf_counter() - start:.0f} s", flush=True)


def _build_family(name: str, models: Path) -> None:
    """In a process of its own, so that threads and random states are its own too."""
    from merges import MERGES, make_merge, possible
    from trained_models import train_family
    from transformers.utils import logging

    logging.disable_progress_bar()
    family = family_named(name)
    folder = models / name
    train_family(family, folder)
    for merge_name, merge in MERGES.items():
        if possible(family, merge) and not (folder / merge_name).exists():
            make_merge(family, folder, merge_name, merge)
