"""The verdicts of the main job under a byte budget, beside those on every weight: the same, or undetermined.

Command: python scripts/bench/budget.py --lab FOLDER [--shares 0.01 0.05 0.2] [--only WORD] [--seed N]

FOLDER and cases are those of acceptance.py. A verdict is wrong if it is neither the one on every weight, nor another
that is right in acceptance.py, nor undetermined; an accusation if it finds a merge or a copy where there is none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from acceptance import Case, Laboratory, cases, prepare

import reconstruct
from reconstruct.reconstruction import Reconstruction
from reconstruct.sampling import SamplingPlan
from reconstruct.verdict import VerdictKind

ACCUSATIONS = {VerdictKind.REPRODUCED, VerdictKind.MERGE_THEN_MODIFIED, VerdictKind.MERGE_CONSISTENT,
               VerdictKind.COPY}  # fmt: skip


def examine(lab: Laboratory, case: Case, folder: Path, budget: int | None, seed: int) -> Reconstruction:
    return reconstruct.fit(
        lab.path(case.suspect), [lab.path(p) for p in case.parents], lab.path(case.base) if case.base else None,
        folder=folder, sampling=SamplingPlan(bytes=budget, seed=seed),
    )  # fmt: skip


def judged(case: Case, whole: Reconstruction, part: Reconstruction) -> str:
    """The verdict on a part in a word or two, marked where it is wrong."""
    kind = part.verdict.kind
    if kind in {whole.verdict.kind, VerdictKind.UNDETERMINED} or kind.value in case.allowed:
        off = max(abs(part.coefficients[name] - value) for name, value in whole.coefficients.items())
        if kind is VerdictKind.REPRODUCED and off > 0.001 and whole.recipe and whole.recipe.partition == "constant":
            return f"WRONG COEFFICIENTS ({off:.2g})"
        return kind.value
    return f"ACCUSATION {kind.value}" if kind in ACCUSATIONS else f"WRONG {kind.value}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.05, 0.2])
    parser.add_argument("--only", default="", help="only suspects whose name holds this word")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wrong = 0
    heads = [f"{share:.2%}".replace(".00", "").replace("%", " %") for share in arguments.shares]
    print("| suspect | candidates | every weight |", *(f"{head} |" for head in heads))
    print("|---|---|---|" + "---|" * len(heads))
    with tempfile.TemporaryDirectory() as folder:
        lab = Laboratory(arguments.lab.resolve(), Path(folder))
        prepare(lab)
        for number, case in enumerate(c for c in cases() if arguments.only in c.suspect):
            models = [case.suspect, *case.parents, *([case.base] if case.base else [])]
            size = sum((lab.path(model) / "model.safetensors").stat().st_size for model in models)
            whole = examine(lab, case, Path(folder) / f"run-{number}", None, arguments.seed)
            words = []
            for share in arguments.shares:
                part = examine(lab, case, Path(folder) / f"run-{number}-{share}", int(share * size), arguments.seed)
                words.append(judged(case, whole, part))
            wrong += sum(word != word.lower() for word in words)
            print(f"| {case.suspect} | {', '.join(case.parents)} | {whole.verdict.kind.value} |",
                  *(f"{word} |" for word in words), flush=True)  # fmt: skip
    print(f"\n{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
