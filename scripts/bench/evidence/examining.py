"""Runs `reconstruct.fit` on the cases and writes one line of results a run; what is there is not run again."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from case import Case

import reconstruct
from reconstruct.criteria import THRESHOLDS
from reconstruct.report.result import result_document
from reconstruct.sampling import SamplingPlan
from reconstruct.schema import DEFAULT_FAMILIES
from reconstruct.verdict import decide

__all__ = ["GRID", "Task", "decide_again", "examine", "read_lines"]

#: Factors by which every threshold is varied; shares near 1 vary by their distance from it.
_FACTORS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_NEAR_ONE = ("replayed", "novel replayed", "box", "regular", "overlap")
_COUNTS = ("sources", "strata")


def _values(key: str, today: float) -> list[float]:
    if key in _COUNTS:
        return [1.0, 2.0, 3.0, 4.0]
    if key in _NEAR_ONE:
        return sorted({round(1 - min((1 - today) * f, 1.0), 9) for f in _FACTORS})
    return [today * f for f in _FACTORS]


#: The values that every threshold is tried at, one threshold at a time.
GRID = {key: _values(key, float(today)) for key, today in THRESHOLDS.items() if not key.startswith(("read", "detect"))}


@dataclass(frozen=True)
class Task:
    """One run: a case, from everything or within `budget` (share of all bytes), with `sample` elements a tensor."""

    case: Case
    budget: float | None = None
    sample: int | None = None

    @property
    def key(self) -> tuple[str, float | None, int | None]:
        """What tells its result from others."""
        return self.case.name, self.budget, self.sample


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every object of a file of JSON lines; none if there is no such file. A line cut off by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def examine(tasks: Sequence[Task], folder: Path, processes: int) -> None:
    """Append a line to results.jsonl for every task that it does not hold yet."""
    results = folder / "results.jsonl"
    done = {(r["case"], r["budget"], r["sample"]) for r in read_lines(results)}
    # In a mixed order, so that what is there of unfinished results is of every family and kind.
    left = sorted((t for t in tasks if t.key not in done), key=lambda t: _kept(t, folder).name)
    (folder / "runs").mkdir(exist_ok=True)
    with results.open("a") as out:
        for line in _side_by_side(_examined, [(task, folder) for task in left], processes):
            out.write(json.dumps(line) + "\n")
            out.flush()


def decide_again(tasks: Sequence[Task], folder: Path, processes: int) -> None:
    """Write results.jsonl anew with the verdicts that the present table gives to the evidence of the runs as they are
    kept: for a change of thresholds or rules, which the evidence does not depend on.
    """
    kept = [task for task in tasks if _kept(task, folder).exists()]
    lines = list(_side_by_side(_decided, [(task, folder) for task in kept], processes))
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _side_by_side(
    work: Callable[[tuple[Task, Path]], dict[str, Any]], items: Sequence[tuple[Task, Path]], processes: int
) -> Iterator[dict[str, Any]]:
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for count, line in enumerate(pool.imap_unordered(work, items), 1):
            yield line
            if count % 50 == 0 or count == len(items):
                print(f"{count} of {len(items)} runs, {time.perf_counter() - start:.0f} s", flush=True)


def _kept(task: Task, folder: Path) -> Path:
    """Where the evidence of a run is kept: a pickle of our own, without the samples."""
    name = hashlib.sha256(json.dumps(task.key).encode()).hexdigest()[:20]
    return folder / "runs" / f"{name}.pickle"


def _keep(task: Task, folder: Path, run: reconstruct.Reconstruction, seconds: float) -> None:
    nothing = np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.float32)
    tensors = tuple(
        replace(t, measurement=replace(t.measurement, index=nothing[0], values=nothing[1]))
        for t in run.evidence.tensors
    )
    small = replace(run, evidence=replace(run.evidence, tensors=tensors))
    _kept(task, folder).write_bytes(pickle.dumps((small, seconds)))


def _decided(work: tuple[Task, Path]) -> dict[str, Any]:
    task, folder = work
    run, seconds = pickle.loads(_kept(task, folder).read_bytes())
    return _line(task, replace(run, verdict=decide(run.evidence)), folder / "models", seconds)


def _examined(work: tuple[Task, Path]) -> dict[str, Any]:
    task, work_folder = work
    case, models = task.case, work_folder / "models"
    given = [case.suspect, *([case.base] if case.base else []), *case.parents]
    budget = None
    if task.budget is not None:
        budget = int(task.budget * sum(f.stat().st_size for m in given for f in (models / m).glob("*.safetensors")))
    plan = SamplingPlan() if task.sample is None else SamplingPlan(elements=task.sample, total=task.sample * 100)
    folder = Path(tempfile.mkdtemp(prefix="evidence-"))
    start = time.perf_counter()
    try:
        run = reconstruct.fit(
            models / case.suspect, [models / p for p in case.parents], models / case.base if case.base else None,
            folder=folder / "run", families=case.families or DEFAULT_FAMILIES,
            proof=case.sort == "merge", threads=1, sampling=replace(plan, bytes=budget),
        )  # fmt: skip
        seconds = time.perf_counter() - start
        _keep(task, work_folder, run, seconds)
        return _line(task, run, models, seconds)
    except reconstruct.ReconstructError as error:
        return {"case": case.name, "budget": task.budget, "sample": task.sample, "verdict": None, "error": str(error)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _line(task: Task, run: reconstruct.Reconstruction, models: Path, seconds: float) -> dict[str, Any]:
    e, document = run.evidence, result_document(run)

    def short(name: str) -> str:
        return str(Path(name).relative_to(models)) if Path(name).is_relative_to(models) else name

    voting = [e.tensors[i] for i in e.voting]
    intervals = np.median([t.fit.interval for t in voting], axis=0) if voting else np.full(len(e.sources.names) - 1, 0)
    intervals = [1 - float(np.sum(intervals)), *map(float, intervals)]
    coefficients = {short(name): value for name, value in document["coefficients"].items()}
    for name, interval in zip(e.sources.names, intervals, strict=True):
        coefficients[short(name)]["interval"] = interval
    return {
        "case": task.case.name, "budget": task.budget, "sample": task.sample, "program": version("merge-reconstruct"),
        "verdict": run.verdict.kind.value, "product": short(run.verdict.product) if run.verdict.product else None,
        "reasons": [r | {"name": r["name"].replace(str(models) + "/", "")} for r in document["verdict"]["reasons"]],
        "origin": e.estimate.origin, "coefficients": coefficients, "explained": e.estimate.explained,
        "decoy_explained": e.controls.explained, "untouched": e.spike.untouched, "spike_z": document["decisive"]["z"],
        "identical": float(e.replay.exact[0]) / max(float(e.replay.total[0]), 1), "box": e.box,
        "arithmetic": e.arithmetic, "families": list(e.families), "voting": len(voting),
        "largest": max((t.measurement.elements for t in e.tensors), default=0),
        "orientations": [o | {"product": short(o["product"]), "coefficients": {short(k): v for k, v in
                         o["coefficients"].items()}} for o in document["orientations"]],
        "sweep": _sweep(run), "seconds": round(seconds, 3),
    }  # fmt: skip


def _sweep(run: reconstruct.Reconstruction) -> dict[str, list[tuple[float, str]]]:
    """The verdicts that another value of one threshold gives, where they differ."""
    swept: dict[str, list[tuple[float, str]]] = {}
    for key, values in GRID.items():
        for value in values:
            with _threshold(key, value):
                verdict = decide(run.evidence).kind
            if verdict is not run.verdict.kind:
                swept.setdefault(key, []).append((value, verdict.value))
    return swept


@contextmanager
def _threshold(key: str, value: float) -> Iterator[None]:
    today = THRESHOLDS[key]
    THRESHOLDS[key] = value
    try:
        yield
    finally:
        THRESHOLDS[key] = today
