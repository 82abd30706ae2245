"""The verdicts on a folder of trained checkpoints: merges must be rebuilt, near misses must not be accused.

Command: python scripts/bench/acceptance.py --lab FOLDER [--only WORD]

FOLDER holds qwen3-tiny/ (base, ft-code, ft-pt, ft-man, ft-mix, ft-code-half, -seed2, -then-log, the light ones, and
merge-then-ft-light) and textgenrnn/ (base and four fine-tunes). Merges and coarse copies go to a temporary folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

import reconstruct

State = dict[str, torch.Tensor]
INNOCENT = {"related", "not_explained", "derived", "undetermined"}


@dataclass(frozen=True)
class Case:
    suspect: str
    parents: tuple[str, ...]
    base: str | None
    allowed: frozenset[str]
    coefficients: tuple[float, ...] | None = None


class Laboratory:
    """Finds checkpoints in the lab or among those made from it."""

    def __init__(self, lab: Path, made: Path) -> None:
        self.lab, self.made = lab, made

    def path(self, name: str) -> Path:
        places = (self.made / name, self.lab / "qwen3-tiny" / name, self.lab / "textgenrnn" / name.removeprefix("tg:"))
        return next(p for p in places if p.exists())

    def load(self, name: str) -> State:
        return load_file(self.path(name) / "model.safetensors")

    def save(self, name: str, tensors: State) -> None:
        (self.made / name).mkdir()
        save_file({k: v.contiguous() for k, v in tensors.items()}, self.made / name / "model.safetensors")

    def blend(self, name: str, weights: tuple[float, ...], models: tuple[str, ...], dtype: torch.dtype) -> None:
        states = [self.load(m) for m in models]
        self.save(name, {k: sum(w * s[k].float() for w, s in zip(weights, states, strict=True)).to(dtype)
                         for k in states[0]})  # fmt: skip

    def mergekit(self, name: str, document: dict[str, object]) -> None:
        recipe = self.made / f"{name}.yml"
        recipe.write_text(yaml.safe_dump(document))
        program = Path(sys.executable).with_name("mergekit-yaml")
        command = [program, recipe, self.made / name, "--allow-crimes", "--quiet"]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)


def cut(v: torch.Tensor) -> torch.Tensor:
    """Five mantissa bits, to nearest even."""
    i = v.float().contiguous().view(torch.int32)
    return (((i + (1 << 17) - 1 + ((i >> 18) & 1)) >> 18) << 18).view(torch.float32).to(torch.bfloat16)


def through_float8(v: torch.Tensor) -> torch.Tensor:
    return v.float().to(torch.float8_e4m3fn).float().to(torch.bfloat16)


def prepare(lab: Laboratory) -> None:
    half, full = torch.bfloat16, torch.float32
    lab.blend("blend", (0.565, 0.435), ("ft-code", "ft-pt"), half)
    lab.blend("blend-light", (0.6, 0.4), ("ft-code-light", "ft-pt-light"), half)
    lab.blend("blend-base", (0.565, 0.435), ("ft-code", "base"), half)
    lab.blend("blend-2", (0.3, 0.7), ("ft-code", "ft-pt"), half)
    lab.save("blend-float32", {k: v.float() for k, v in lab.load("blend").items()})
    coarse: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "5bit": cut, "fp8": through_float8, "float32": torch.Tensor.float,
    }  # fmt: skip
    names = ("base", "ft-code", "ft-pt", "ft-code-half", "ft-code-seed2", "ft-mix", "ft-code-light", "ft-pt-light",
             "ft-code-light-half", "ft-code-light-seed2")  # fmt: skip
    for kind, change in coarse.items():
        for name in names:
            lab.save(f"{kind}:{name}", {k: change(v) for k, v in lab.load(name).items()})
    code, pt, generator = lab.load("ft-code"), lab.load("ft-pt"), torch.Generator().manual_seed(0)
    varied = {}
    for k in code:
        w = round(float(torch.rand((), generator=generator)) * 0.6 + 0.2, 3)
        varied[k] = (w * code[k].float() + (1 - w) * pt[k].float()).to(half)
    lab.save("blend-varied", varied)
    for name, dtype in (("tg:blend", full), ("tg:blend16", half)):
        models = ("tg:hacker-news", "tg:apple-android")
        from mergekit.merge_methods.api import merge_state_dicts

        merged = merge_state_dicts(
            [lab.load(m) for m in models], "linear", parameters={"weight": [0.7, 0.3]}, out_dtype=dtype
        )
        lab.save(name, merged)
    base, path = str(lab.path("base")), lambda n: str(lab.path(n))
    lab.mergekit("slerp", {
        "merge_method": "slerp", "base_model": base, "models": [{"model": base}, {"model": path("ft-code")}],
        "parameters": {"t": [{"filter": "self_attn", "value": [0, 0.5, 0.3]},
                             {"filter": "mlp", "value": [1, 0.5, 0.7]}, {"value": 0.5}]},
        "dtype": "bfloat16",
    })  # fmt: skip
    lab.mergekit("task", {
        "merge_method": "task_arithmetic", "base_model": base, "dtype": "bfloat16",
        "models": [{"model": path("ft-code"), "parameters": {"weight": 0.5}},
                   {"model": path("ft-pt"), "parameters": {"weight": 0.3}}],
    })  # fmt: skip


def cases() -> list[Case]:
    strong, light = ("ft-code", "ft-pt"), ("ft-code-light", "ft-pt-light")

    def one(kind: str) -> frozenset[str]:
        return frozenset({kind})

    innocent = frozenset(INNOCENT)
    return [
        Case("blend", strong, "base", one("reproduced"), (0, 0.565, 0.435)),
        Case("blend-light", light, "base", one("reproduced"), (0, 0.6, 0.4)),
        Case("blend-base", ("ft-code",), "base", one("reproduced"), (0.435, 0.565)),
        Case("slerp", ("ft-code",), "base", one("reproduced")),
        Case("task", strong, "base", one("reproduced"), (0.2, 0.5, 0.3)),
        Case("merge-then-ft-light", strong, "base", one("merge_then_modified"), (0, 0.565, 0.435)),
        *[Case(s, strong, "base", frozenset({"related", "not_explained"}))
          for s in ("ft-man", "ft-code-half", "ft-code-seed2", "ft-mix")],
        Case("ft-code-then-log", strong, "base", one("derived")),
        Case("ft-code", strong, "base", one("copy")),
        *[Case(s, p, "base", innocent) for s in ("ft-code-light-half", "ft-code-light-seed2")
          for p in (light, light[:1])],
        *[Case(f"{k}:{s}", tuple(f"{k}:{p}" for p in strong), f"{k}:base", innocent)
          for k in ("5bit", "fp8", "float32") for s in ("ft-code-half", "ft-code-seed2", "ft-mix")],
        *[Case(f"{k}:{s}", tuple(f"{k}:{p}" for p in light), f"{k}:base", innocent)
          for k in ("5bit", "fp8", "float32") for s in ("ft-code-light-half", "ft-code-light-seed2")],
        Case("blend-float32", strong, "base", one("reproduced"), (0, 0.565, 0.435)),
        Case("ft-code", ("blend", "ft-pt"), "base", one("ancestor")),
        Case("blend-2", ("blend", "ft-code"), "base", one("related")),
        Case("blend", ("blend-2", "ft-code"), "base", one("related")),
        Case("ft-code", ("merge-then-ft-light", "ft-pt"), "base", one("ancestor")),
        Case("tg:rarepuppers-politics", ("tg:hacker-news", "tg:apple-android"), "tg:base", innocent),
        Case("tg:blend", ("tg:hacker-news", "tg:apple-android"), "tg:base", one("reproduced"), (0, 0.7, 0.3)),
        Case("tg:blend16", ("tg:hacker-news", "tg:apple-android"), "tg:base", one("reproduced"), (0, 0.7, 0.3)),
        Case("tg:hacker-news", ("tg:blend", "tg:apple-android"), "tg:base", one("ancestor")),
        Case("blend", ("ft-pt", "ft-code"), None, one("reproduced"), (0.435, 0.565)),
        Case("blend", ("ft-code", "ft-code", "ft-pt"), "base", one("reproduced"), (0, 0.565, 0.435)),
        Case("blend", ("ft-code", "blend", "ft-pt"), "base", one("copy")),
        Case("blend", ("ft-code", "ft-man", "ft-pt", "ft-code-seed2"), "base", one("reproduced"),
             (0, 0.565, 0, 0.435, 0)),
        Case("blend-varied", strong, "base", one("reproduced")),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--only", default="", help="only suspects whose name holds this word")
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        lab = Laboratory(arguments.lab.resolve(), Path(folder))
        prepare(lab)
        for number, case in enumerate(c for c in cases() if arguments.only in c.suspect):
            start = time.perf_counter()
            run = reconstruct.fit(
                lab.path(case.suspect), [lab.path(p) for p in case.parents], lab.path(case.base) if case.base else None,
                folder=Path(folder) / f"run-{number}", proof=False,
            )  # fmt: skip
            e, kind = run.evidence, run.verdict.kind.value
            right = kind in case.allowed
            if case.coefficients is not None:
                right &= max(map(abs, e.estimate.coefficients - list(case.coefficients))) <= 0.003
            wrong += not right
            identical = e.replay.exact[0] / max(e.replay.total[0], 1)
            print(
                f"{'ok   ' if right else 'WRONG'} {case.suspect} <- {', '.join(case.parents)}, base {case.base}: "
                f"{kind}; coefficients {e.estimate.coefficients.round(4).tolist()} ({e.estimate.origin}), "
                f"least squares {e.estimate.least_squares.round(3).tolist()}, identical {identical:.5f}, "
                f"untouched {e.spike.untouched:.3f}, {e.arithmetic}, {time.perf_counter() - start:.1f} s",
                flush=True,
            )
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
