"""The verdicts of the main job under a byte budget, beside those on every weight: the same, or undetermined.

Command: python scripts/bench/budget.py --lab FOLDER [--hub] [--shares 0.01 0.05 0.2] [--only WORD] [--seed N]

FOLDER and cases are those of acceptance.py. A verdict is wrong if it is neither the one on every weight, nor another
that is right in acceptance.py, nor undetermined; an accusation if it finds a merge or a copy where there is none.

With --hub the models are read over HTTP (shares: 0.01 if none are given), from the tests' Hub in this process; the
verdicts on every weight are those of the files. The budget is then a cap on all that the server sends, listings,
configurations and headers included, which its log shows. "refused": it does not even pay for these; nothing is said.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acceptance import Case, Laboratory, cases, prepare

import reconstruct
from reconstruct.errors import BudgetExhausted, ConfigurationError
from reconstruct.reconstruction import Reconstruction
from reconstruct.sampling import SamplingPlan
from reconstruct.verdict import VerdictKind

ACCUSATIONS = {VerdictKind.REPRODUCED, VerdictKind.MERGE_THEN_MODIFIED, VerdictKind.MERGE_CONSISTENT,
               VerdictKind.COPY}  # fmt: skip


def examine(
    case: Case, place: Callable[[str], str | Path], folder: Path, budget: int | None, seed: int
) -> Reconstruction:
    return reconstruct.fit(
        place(case.suspect), [place(p) for p in case.parents], place(case.base) if case.base else None,
        folder=folder, sampling=SamplingPlan(bytes=budget, seed=seed), proof=False,
    )  # fmt: skip


def models_of(case: Case) -> list[str]:
    """Base first, as a run lists its sources, and the suspect before it."""
    return [case.suspect, *([case.base] if case.base else []), *case.parents]


def judged(case: Case, whole: Reconstruction, part: Reconstruction) -> str:
    """The verdict on a part in a word or two, marked where it is wrong. The names of the models may differ."""
    kind = part.verdict.kind
    if kind in {whole.verdict.kind, VerdictKind.UNDETERMINED} or kind.value in case.allowed:
        off = max(abs(a - b) for a, b in zip(part.coefficients.values(), whole.coefficients.values(), strict=True))
        if kind is VerdictKind.REPRODUCED and off > 0.001 and whole.recipe and whole.recipe.partition == "constant":
            return f"WRONG COEFFICIENTS ({off:.2g})"
        return kind.value
    return f"ACCUSATION {kind.value}" if kind in ACCUSATIONS else f"WRONG {kind.value}"


@dataclass(frozen=True)
class Files:
    """The models where they lie."""

    lab: Laboratory

    def word(self, case: Case, whole: Reconstruction, folder: Path, budget: int, seed: int) -> str:
        return judged(case, whole, examine(case, self.lab.path, folder, budget, seed))


class Repositories:
    """The same models on a Hub in this process; every byte of its answers is counted."""

    def __init__(self, lab: Laboratory, folder: Path) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
        from huggingface_hub import constants
        from support.fake_hub import FakeHub
        from support.fake_repository import FakeRepository

        names = sorted({model for case in cases() for model in models_of(case)})
        constants.HF_HUB_CACHE = str(folder / "no cache")
        self._constants = constants
        served = {self.name(model): FakeRepository(lab.path(model), storage=True) for model in names}
        self.hub = FakeHub(served)

    @staticmethod
    def name(model: str) -> str:
        return "lab/" + re.sub(r"[^A-Za-z0-9._-]", "-", model)

    @contextmanager
    def serving(self) -> Iterator[None]:
        with self.hub:
            self._constants.ENDPOINT = self.hub.endpoint
            yield

    def word(self, case: Case, whole: Reconstruction, folder: Path, budget: int, seed: int) -> str:
        self.hub.clear()
        try:
            word = judged(case, whole, examine(case, self.name, folder, budget, seed))
        except (BudgetExhausted, ConfigurationError) as error:
            word = f"refused ({error.message})"
        sent = self.hub.bytes_sent
        word = word if sent <= budget else f"OVER BUDGET, {word}"
        return f"{word} | {sent:,} of {budget:,} bytes in {len(self.hub.requests)} requests"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--hub", action="store_true", help="read the parts over HTTP")
    parser.add_argument("--shares", type=float, nargs="+")
    parser.add_argument("--only", default="", help="only suspects whose name holds this word")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shares = arguments.shares or ([0.01] if arguments.hub else [0.01, 0.05, 0.2])
    heads = [f"{share:.2%}".replace(".00", "").replace("%", " %") for share in shares]
    heads = [f"{head} | on the wire" if arguments.hub else head for head in heads]
    print("| suspect | candidates | every weight |", *(f"{head} |" for head in heads))
    print("|---|---|---|" + "---|" * " | ".join(heads).count("|") + "---|")
    with tempfile.TemporaryDirectory() as folder:
        lab = Laboratory(arguments.lab.resolve(), Path(folder))
        prepare(lab)
        if arguments.hub:
            repositories = Repositories(lab, Path(folder))
            with repositories.serving():
                wrong = table(lab, repositories, arguments, shares, Path(folder))
        else:
            wrong = table(lab, Files(lab), arguments, shares, Path(folder))
    print(f"\n{wrong} wrong")
    return 1 if wrong else 0


def table(
    lab: Laboratory, models: Files | Repositories, arguments: argparse.Namespace, shares: list[float], folder: Path
) -> int:
    """Print a line a case; how many verdicts are wrong."""
    wrong = 0
    for number, case in enumerate(c for c in cases() if arguments.only in c.suspect):
        size = sum((lab.path(model) / "model.safetensors").stat().st_size for model in models_of(case))
        whole = examine(case, lab.path, folder / f"run-{number}", None, arguments.seed)
        words = [
            models.word(case, whole, folder / f"run-{number}-{share}", int(share * size), arguments.seed)
            for share in shares
        ]
        wrong += sum(word.startswith(("WRONG", "ACCUSATION", "OVER")) for word in words)
        print(f"| {case.suspect} | {', '.join(case.parents)} | {whole.verdict.kind.value} |",
              *(f"{word} |" for word in words), flush=True)  # fmt: skip
    return wrong


if __name__ == "__main__":
    sys.exit(main())
