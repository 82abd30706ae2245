"""The trained members of a family: who comes from whom, and how. `python scripts/bench/evidence build` makes them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from corpora import SUBJECTS
from families import Family
from merges import MERGES, make_merge
from networks import new_network, read_network, write_network
from training import State, Training, train

__all__ = ["TRAINED_ON", "Member", "members", "train_family"]

STRONG, LIGHT = 3e-4, 2e-5
#: Merges trained on afterwards: name -> (peak rate, share of a full fine-tuning's steps).
TRAINED_ON = {
    "after-faint": (2e-6, 0.1), "after-light": (1e-5, 0.3), "after-medium": (3e-5, 0.5), "after-strong": (1e-4, 0.5),
    "after-full": (3e-4, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A run from the model `start` (None: fresh weights), and names for the states it keeps on the way."""

    name: str
    start: str | None
    training: Training
    kept: tuple[tuple[int, str], ...] = ()


def members(family: Family) -> list[Member]:
    """In an order in which each one's start is there before it."""
    pretraining, full = family.steps
    light = max(full // 2, 2)

    def run(subjects: tuple[str, ...], rate: float, seed: int, steps: int = full, **options: object) -> Training:
        return Training(subjects, steps, rate, family.seed * 1000 + seed, **options)  # type: ignore[arg-type]

    half, late = full // 2, full - full // 10
    return [
        Member("base", None, run(SUBJECTS, 2e-3, 0, pretraining)),
        Member("independent", None, run(SUBJECTS, 2e-3, 1, pretraining)),
        Member("code", "base", run(("code",), STRONG, 2, keep=(half, late)),
               ((half, "code-half"), (late, "code-late"))),
        *[Member(subject, "base", run((subject,), STRONG, 3 + k)) for k, subject in enumerate(SUBJECTS[1:])],
        Member("code-seed2", "base", run(("code",), STRONG, 10)),
        Member("code-light", "base", run(("code",), LIGHT, 11, light, keep=(light // 2,)),
               ((light // 2, "code-light-half"),)),
        Member("docs-light", "base", run(("docs",), LIGHT, 12, light)),
        Member("code-light-seed2", "base", run(("code",), LIGHT, 13, light)),
        Member("mix", "base", run(("code", "docs"), STRONG, 14)),
        Member("mix-light", "base", run(("code", "docs"), LIGHT, 15, light)),
        Member("code-averaged", "base", run(("code",), STRONG, 16, average_from=half)),
        Member("code-then-names", "code", run(("names",), 1e-4, 17, half)),
        Member("code-then-docs", "code", run(("docs",), LIGHT, 18, half)),
        Member("code-resumed", "code", run(("code",), 1e-4, 19, half)),
        Member("distilled", "base", run(("code", "docs"), STRONG, 20, teacher="code")),
        Member("code-lora", "base", run(("code",), 3e-3, 21, rank=4)),
        Member("docs-lora", "base", run(("docs",), 3e-3, 22, rank=4)),
        Member("code-partial", "base", run(("code",), STRONG, 23, only=_some_layers(family))),
        *[Member(name, "merge", run(("names",), rate, 30 + k, max(int(full * share), 2)))
          for k, (name, (rate, share)) in enumerate(TRAINED_ON.items())],
    ]  # fmt: skip


def _some_layers(family: Family) -> str:
    """A word in the names of the parameters of one part of the network."""
    return {"lstm": "_l0", "bert": "intermediate"}.get(family.architecture, "mlp")


def train_family(family: Family, folder: Path) -> None:
    """Make what is missing in `folder`, a checkpoint folder a member; a family is the same on the same machine."""
    torch.set_num_threads(1)
    start_time, last = time.perf_counter(), 0.0
    for member in members(family):
        wanted = [member.name, *(name for _, name in member.kept)]
        if all((folder / name).exists() for name in wanted):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if member.start == "merge" and not (folder / "merge").exists():
            make_merge(family, folder, "merge", MERGES["merge"])
        torch.manual_seed(member.training.seed)
        network = read_network(family, folder / member.start) if member.start else new_network(family)
        teacher = read_network(family, folder / member.training.teacher) if member.training.teacher else None
        kept, last = train(family, network, member.training, teacher)
        for step, name in member.kept:
            _write_state(family, kept[step], folder / name)
        write_network(family, network, folder / member.name)
    print(f"{family.name}: {time.perf_counter() - start_time:.0f} s, last loss {last:.2f}", flush=True)


def _write_state(family: Family, state: State, folder: Path) -> None:
    network = new_network(family)
    network.load_state_dict(state)
    write_network(family, network, folder)
