"""Scans among trained relatives: true parents are shown, nobody else is, and innocent suspects have none.

Command: python scripts/bench/scan.py [--folder FOLDER] [--known FOLDER] [--only WORD] [--bytes SIZE]

Every member of `relatives.py` is trained first (a few minutes; kept in FOLDER for the next time), from the base and
with the members that `--known` has: the tests' family, or another one of the Qwen3 layout with `base` and `ft-code` in
it. Then each one in turn is the suspect, among all others:

    alone      without whatever it is made from or was made from it, save a merge's parents: an innocent has no parent
    parents    a merge: with its parents and all that is not made from it, nor by way of the same merge
    everyone   all others, the merge before its training, its children and its siblings among them
    missing    as `parents`, but one of them is there only as a version that was trained on lightly (-then-light)

right: all true parents are shown (of a merge beside its own training: called derived from it), or an innocent has none;
lead: nobody wrong, and the true ones are among the leads; missed: nobody wrong, and a true one is not among them;
version: instead of a parent that is missing, its light continuation is shown, which may be too close to be told from
it; WRONG: somebody else is shown whose weights took no part in it. The end is a table of counts, and how near the
innocents' fits come to each threshold of a merge that was trained on. Exits with 1 if anybody is wrongly shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from relatives import ANCESTORS, MEMBERS, build

import reconstruct
from reconstruct.criteria import THRESHOLDS
from reconstruct.scanning.result import CandidateKind, FitSummary, Scan

FAMILY = Path(__file__).resolve().parents[2] / "tests" / "support" / "family"
SEARCHED = ("spike z", "phase z", "boundary z")
STATES = ("right", "lead", "missed", "version", "WRONG")
NEAR = (CandidateKind.LEAD, CandidateKind.DERIVED, CandidateKind.MATERIAL_PARENT)


@dataclass(frozen=True)
class Case:
    """`parents`: those to be shown; `allowed`: those whose weights took part, so that naming them is no mistake;
    `version` of a parent that is missing.
    """

    kind: str
    suspect: str
    parents: frozenset[str]
    allowed: frozenset[str]
    candidates: tuple[str, ...]
    version: str = ""


def cases(names: list[str]) -> Iterator[Case]:
    """Every member as the suspect, in the surroundings that the docstring lists."""
    for suspect in names:
        made_from = frozenset(n for n in names if suspect in _ancestors(n))
        own = _ancestors(suspect)
        merge = _merge_of(suspect)
        if merge is None:
            kin = made_from | own
            yield Case("innocent, alone", suspect, frozenset(), own, _others(names, {suspect, *kin}))
            if kin:
                yield Case("innocent, everyone", suspect, frozenset(), own, _others(names, {suspect}))
            continue
        parents = frozenset(p for p, _ in MEMBERS[merge].shares if p != "base")
        kind = "merge" if suspect == merge else "merge, trained on"
        through = {n for n in names if merge in _ancestors(n)}
        without = {suspect, merge, *through, *made_from}
        yield Case(f"{kind}, parents", suspect, parents, own, _others(names, without))
        for parent in sorted(parents):
            version = f"{parent}-then-light"
            if version in names:
                rest = parents - {parent}
                gone = {*without, *(n for n in names if parent in _ancestors(n) and n != version), parent}
                yield Case(f"{kind}, missing", suspect, rest, own, _others(names, gone), version)
        wanted = parents if suspect == merge else frozenset({merge})
        yield Case(f"{kind}, everyone", suspect, wanted, own, _others(names, {suspect}))


def _ancestors(name: str) -> frozenset[str]:
    return ANCESTORS.get(name, frozenset())


def _merge_of(name: str) -> str | None:
    """The merge that a member is, or was trained on from."""
    while name in MEMBERS and not MEMBERS[name].shares:
        name = MEMBERS[name].source
    return name if name in MEMBERS else None


def _others(names: list[str], without: set[str]) -> tuple[str, ...]:
    return tuple(n for n in names if n not in without)


def judged(case: Case, result: Scan) -> str:
    shown = {Path(p).name for p in result.parents}
    if not shown <= case.allowed:
        return "version" if shown <= case.allowed | {case.version} else "WRONG"
    derived = {Path(name).name for name in result.of_kind(CandidateKind.DERIVED)}
    if case.parents <= shown | derived:
        return "right"
    found = {Path(c.name).name for c in result.candidates if c.kind in NEAR}
    return "lead" if case.parents <= found else "missed"


def report_nearness(fits: list[tuple[Case, FitSummary]]) -> None:
    """The largest value of each criterion over the innocents' fits, and of the least that one fit has of all."""
    if not fits:
        return
    print(f"\n{len(fits)} fits of innocent suspects; the nearest to each threshold of a merge that was trained on:")
    shares = [(min(_share(fit, key) for key in SEARCHED), case, fit) for case, fit in fits]
    for key in SEARCHED:
        case, fit = max(fits, key=lambda item: _share(item[1], key))
        print(f"  {key:11} {fit.searched[key]:7.2f} of {THRESHOLDS[key]:g}: {_words(case, fit)}")
    share, case, fit = max(shares, key=lambda item: item[0])
    print(f"  the least   {share:7.2f} of 1: {_words(case, fit)}")


def _share(fit: FitSummary, key: str) -> float:
    value = fit.searched.get(key, float("nan")) / THRESHOLDS[key]
    return value if np.isfinite(value) else -np.inf


def _words(case: Case, fit: FitSummary) -> str:
    members = " + ".join(Path(p).name for p in fit.parents)
    return f"{case.suspect} ({case.kind}), from {members}: {fit.verdict}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="of the members; default: a temporary one")
    parser.add_argument("--known", type=Path, default=FAMILY)
    parser.add_argument("--only", default="", help="part of the name or kind of a case")
    parser.add_argument("--bytes", default="4MB", help="read of each model")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--part", default="1/1", help="2/3: the second third of the cases")
    parser.add_argument("--json", type=Path, help="where every case is kept, with all fits of innocents")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "relatives"
        for name in build(folder, options.known):
            print(f"making {name}", flush=True)
        names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != "base")
        chosen = [c for c in cases(names) if options.only in f"{c.suspect} ({c.kind})"]
        part, parts = map(int, options.part.split("/"))
        sys.exit(run(chosen[part - 1 :: parts], folder, Path(temporary), options.bytes, options.threads, options.json))


def run(chosen: list[Case], folder: Path, runs: Path, size: str, threads: int, kept: Path | None) -> int:
    counts: Counter[tuple[str, str]] = Counter()
    near: list[tuple[Case, FitSummary]] = []
    lines = []
    for number, case in enumerate(chosen):
        began = time.perf_counter()
        result = reconstruct.scan(
            folder / case.suspect, [folder / c for c in case.candidates], folder / "base",
            folder=runs / f"run {number}", bytes_per_model=size, threads=threads,
        )  # fmt: skip
        state = judged(case, result)
        counts[case.kind, state] += 1
        near += [(case, fit) for fit in result.fits if not case.parents]
        shown = sorted(Path(p).name for p in result.parents)
        leads = sorted({Path(c.name).name for c in result.candidates if c.kind in NEAR} - {*shown})
        seconds = time.perf_counter() - began
        print(f"{state:6} {case.suspect:20} {case.kind:26} of {len(case.candidates)}: shown {shown} leads {leads} "
              f"{len(result.fits)} fits {seconds:.0f} s", flush=True)  # fmt: skip
        lines.append({
            "suspect": case.suspect, "kind": case.kind, "state": state, "shown": shown, "leads": leads,
            "summary": result.summary, "fits": [asdict(f) for f in result.fits],
        })  # fmt: skip
        if kept is not None:
            kept.write_text(json.dumps(lines, indent=1), "utf-8")
    print(f"\n{'':26} " + " ".join(f"{s:>7}" for s in STATES))
    for kind in dict.fromkeys(c.kind for c in chosen):
        print(f"{kind:26} " + " ".join(f"{counts[kind, s]:7}" for s in STATES))
    totals = [sum(n for (_, state), n in counts.items() if state == s) for s in STATES]
    print(f"{'all':26} " + " ".join(f"{n:7}" for n in totals))
    report_nearness(near)
    return 1 if totals[-1] else 0


if __name__ == "__main__":
    main()
