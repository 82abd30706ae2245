"""How often is the verdict right, and does it ever accuse an innocent model?

- python scripts/bench/evidence all       everything that follows, in this order
- python scripts/bench/evidence build     trains the families (under an hour on two cores) and makes merges of them
- python scripts/bench/evidence examine   runs `fit` on every case, and on some with less to go on
- python scripts/bench/evidence peers     runs modeldna on the same cases, in an environment of its own
- python scripts/bench/evidence summary   scores -> scripts/bench/results/evidence.json
- python scripts/bench/evidence plots     pictures -> docs/images
- python scripts/bench/evidence pack      all cases, results and answers -> scripts/bench/results/evidence-runs.xz
- python scripts/bench/evidence page      tables of the summary -> docs/evidence.md and README.md

- python scripts/bench/evidence decide    judges the same evidence by the table of thresholds as it is now
- python scripts/bench/evidence unpack    the published runs into the folder, for `summary` and `plots` without models
- python scripts/bench/evidence check     whether the pages say what the summary says
- python scripts/bench/evidence smoke     one small family and a case of each kind, in a minute or two
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import archive
import page
import peers
import plots
import summary
from alterations import alter_family
from building import build
from case import Case
from cases import cases
from examining import GRID, Task, decide_again, examine, read_lines
from families import FAMILIES, SMOKE, Family

DEFAULT = Path("~/.cache/merge-reconstruct/evidence")
STEPS = ("build", "examine", "peers", "summary", "plots", "pack", "page")
#: Merges that no verdict is expected to find: random masks.
NOT_REPLAYED = {"dare"}
#: With less to go on: shares of all bytes, and sampled elements a tensor. On these groups of cases of two families.
BUDGETS, SAMPLES, SPARSE_FAMILIES = (0.02, 0.05, 0.2, 0.5), (512, 2048, 8192), ("wide-bf16", "dense-f16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=(*STEPS, "all", "decide", "check", "unpack", "smoke"))
    parser.add_argument("--folder", type=Path, default=DEFAULT)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="only families with this word")
    arguments = parser.parse_args()
    folder = arguments.folder.expanduser()
    families = [family for family in FAMILIES if arguments.only in family.name]
    if arguments.command == "smoke":
        sys.exit(smoke(folder, arguments.processes))
    for step in STEPS if arguments.command == "all" else (arguments.command,):
        if step == "build":
            build(families, folder / "models", arguments.processes)
        elif step in {"examine", "decide"}:
            made = all_cases(families, folder)
            (examine if step == "examine" else decide_again)(tasks(made), folder, arguments.processes)
        elif step == "peers":
            peers.main(folder)
        elif step == "summary":
            summary.main(folder)
        elif step == "plots":
            plots.main(folder)
        elif step in {"pack", "unpack"}:
            (archive.pack if step == "pack" else archive.unpack)(folder)
        else:
            page.main() if step == "page" else page.check()


def smoke(folder: Path, processes: int) -> int:
    """Whether a case of each kind, of one small family, gets a verdict that is right; prints those that do not."""
    build([SMOKE], folder / "models", processes)
    of_kind = {(case.sort, case.group): case for case in reversed(all_cases([SMOKE], folder))}
    chosen = {case.name: case for case in of_kind.values()}
    examine([Task(case) for case in chosen.values()], folder, processes)
    verdicts = {line["case"]: line["verdict"] for line in read_lines(folder / "results.jsonl")}
    accused = [f"{name}: {verdicts[name]}" for name, case in chosen.items() if verdicts[name] in case.forbidden]
    missed = [
        f"{name}: {verdicts[name]}" for name, case in chosen.items()
        if case.sort == "merge" and case.group not in NOT_REPLAYED and verdicts[name] not in case.expected
    ]  # fmt: skip
    for title, names in (("falsely accused", accused), ("merges missed", missed)):
        print(f"{title}: {len(names)}", *names, sep="\n  ")
    return 1 if accused or missed else 0


def all_cases(families: Sequence[Family], folder: Path) -> list[Case]:
    """The cases of these families, written to cases.jsonl too (beside those of others), and the grid of thresholds to
    grid.json.
    """
    models: Path = folder / "models"
    made: list[Case] = []
    for family in families:
        alter_family(family, models / family.name)
        made += cases(family, models / family.name)
    names = {family.name for family in families}
    kept = [line for line in read_lines(folder / "cases.jsonl") if line["family"] not in names]
    lines = [json.dumps(line) + "\n" for line in [*kept, *map(asdict, made)]]
    (folder / "cases.jsonl").write_text("".join(lines))
    (folder / "grid.json").write_text(json.dumps(GRID, indent=1) + "\n")
    return made


def tasks(made: Sequence[Case]) -> list[Task]:
    """Every case from all weights, and some from less."""
    sparse = [case for case in made if case.family in SPARSE_FAMILIES and (len(case.parents) == 2 and case.base)]
    chosen = [case for case in sparse if case.suspect.partition("/")[2] in {
        "merge", "light", "task", "after-light", "merge.partly-0.2", "code-half", "code-seed2", "mix", "code-late",
        "code-light-half", "code-light-seed2", "names"}]  # fmt: skip
    return [
        *map(Task, made), *[Task(case, budget=b) for case in chosen for b in BUDGETS],
        *[Task(case, sample=s) for case in chosen for s in SAMPLES],
    ]  # fmt: skip


if __name__ == "__main__":
    main()
