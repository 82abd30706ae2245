"""The peer `modeldna` on the same cases, in an environment of its own, under the best conditions that it documents.

Those are: the candidates and the base are named, the base wherever the case has one; local folders, offline. (Full mode
gives the same decompositions as fast mode, see modeldna_worker.py.) Its summaries are read as follows:

    MERGE           says that the suspect is a merge
    SINGLE_PARENT   does not: one candidate explains the weights
    AMBIGUOUS       does not: "suggestive, not conclusive"
    UNEXPLAINED     does not: the candidates do not explain the weights
    an error        no answer, and counted as neither: unknown names of tensors, one candidate without a base, ...

A blend of one parent with its base is nothing that MERGE can say, because the peer counts parents alone: such cases are
left out of its detection rate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ANSWERS", "PEER", "PeerAnswer", "main", "read_answers"]

PEER = "modeldna==0.1.0"
_WORKER = Path(__file__).with_name("modeldna_worker.py")

#: What each summary of the peer says: whether the suspect is a merge of the candidates.
ANSWERS = {"MERGE": True, "SINGLE_PARENT": False, "AMBIGUOUS": False, "UNEXPLAINED": False}
_MATERIAL, _EXPLAINED = 0.05, 0.90  # the peer's own: smallest share of a parent, and cosine of its reconstruction


@dataclass(frozen=True)
class PeerAnswer:
    """`summary`: of ANSWERS, or None where the peer refused with `error`. `alphas`: path -> share, the base's too."""

    case: str
    summary: str | None
    alphas: Mapping[str, float]
    gain_vs_single: float | None
    recon_cos: float | None
    error: str | None

    @property
    def accuses(self) -> bool | None:
        """Whether it says that the suspect is a merge; None where it gives no answer."""
        return None if self.summary is None else ANSWERS[self.summary]

    def score(self, base: str | None) -> float:
        """Its statistic for a curve: the gain over one candidate where its other conditions for MERGE hold, else -inf.

        The summary is MERGE where this reaches .3. Of the alphas only those of parents count, as in the peer.
        """
        material = sum(share >= _MATERIAL for path, share in self.alphas.items() if path != base)
        if self.gain_vs_single is None or self.recon_cos is None or self.recon_cos < _EXPLAINED or material < 2:
            return float("-inf")
        return self.gain_vs_single


def read_answers(work: Path) -> dict[str, PeerAnswer]:
    """Case name -> answer, from `work`/modeldna.jsonl; empty where the peer was not run."""
    path = work / "modeldna.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {answer.case: answer for answer in (PeerAnswer(**json.loads(line)) for line in lines)}


def main(work: Path) -> None:
    """Run the peer on all cases of `work`/cases.jsonl that `work`/modeldna.jsonl lacks, and append its answers there.

    Raises subprocess.CalledProcessError where its environment cannot be made or its process dies.
    """
    done = read_answers(work)
    cases = [json.loads(line) for line in (work / "cases.jsonl").read_text().splitlines()]
    left = sorted((case for case in cases if case["name"] not in done), key=lambda case: str(case["family"]))
    if not left:
        print(f"{PEER}: all {len(cases)} cases are answered")
        return
    start = time.perf_counter()
    _examine(_environment(work), work, left)
    print(f"{PEER}: {len(left)} cases in {time.perf_counter() - start:.0f} s")


def _environment(work: Path) -> Path:
    """The peer's interpreter, made once: a virtual environment with the peer and what it asks for, nothing else."""
    folder = work / "peer-environment"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
        ready.write_text(PEER + "\n")
    return python


def _examine(python: Path, work: Path, cases: Iterable[Mapping[str, Any]]) -> None:
    """Append one answer a case as it comes, so that a run that was stopped goes on where it was."""
    lines = [json.dumps({key: case[key] for key in ("name", "suspect", "parents", "base")}) + "\n" for case in cases]
    command = [python, _WORKER, (work / "models").resolve()]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    questions = work / "modeldna.questions"
    questions.write_text("".join(lines))
    with (
        questions.open() as source,
        (work / "modeldna.jsonl").open("a") as target,
    ):
        subprocess.run(command, stdin=source, stdout=target, env=environment, check=True)
    questions.unlink()
