"""The cases: a suspect, candidates, what is true, and which verdicts are right or would accuse the innocent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from alterations import NOISE, REQUANTISED, UNTOUCHED, near_twins, untouched_share
from case import Case
from families import Family
from merges import MERGES, Merge, possible
from trained_models import TRAINED_ON

__all__ = ["cases"]

_MERGED = ("reproduced", "merge_then_modified", "merge_consistent")
_PAIR, _LIGHT = ("code", "docs"), ("code-light", "docs-light")


def cases(family: Family, folder: Path) -> list[Case]:
    """All cases of one family, whose models are in `folder`."""
    made = [*_merges(family), *_modified(family, folder), *_innocent(family, folder)]
    return [case for case in made if all((folder.parent / m).exists() for m in (case.suspect, *case.parents))]


def _case(
    family: Family, sort: Literal["merge", "modified merge", "no merge"], group: str, suspect: str,
    parents: Sequence[str], base: str | None, **more: object,
) -> Case:  # fmt: skip
    def place(name: str) -> str:
        return f"{family.name}/{name}"

    given = more.pop("coefficients", None)
    coefficients = {place(k): v for k, v in given.items()} if isinstance(given, dict) else None
    default_expected = ("reproduced",) if sort == "merge" else _MERGED
    forbidden = more.pop("forbidden", (*_MERGED, "ancestor", "derived", "copy") if sort == "no merge" else ("ancestor",
                         "derived", "copy"))  # fmt: skip
    expected = more.pop("expected", default_expected if sort != "no merge" else ("related", "not_explained",
                        "undetermined"))  # fmt: skip
    words = f"{suspect} from {'+'.join(parents)}" + (f" on {base}" if base else "")
    return Case(
        place(words), family.name, family.half, sort, group, place(suspect), tuple(map(place, parents)),
        place(base) if base else None, expected, forbidden, coefficients=coefficients, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _truth(merge: Merge, parents: Sequence[str], base: str | None) -> dict[str, float] | None:
    """Coefficient of every source, where numbers are the same in the whole model."""
    weights = {name: p.get("weight") for name, p in merge.models.items()}
    if merge.method not in {"linear", "task_arithmetic"} or not all(isinstance(w, float) for w in weights.values()):
        return None
    numbers = {name: float(w) for name, w in weights.items() if isinstance(w, float)}
    sources = [*([base] if base else []), *parents]
    if merge.method == "task_arithmetic":
        numbers["base"] = 1 - sum(numbers.values())
    return {name: numbers.get(name, 0.0) for name in sources}


_GROUPS = {"task_arithmetic": "task arithmetic", "model_stock": "model stock", "dare_linear": "dare",
           "passthrough": "slices"}  # fmt: skip


def _merges(family: Family) -> Iterator[Case]:
    elementwise = {"ties": ("linear", "slerp", "task_arithmetic", "ties"),
                   "model-stock": ("linear", "slerp", "task_arithmetic", "model_stock")}  # fmt: skip
    for name, merge in MERGES.items():
        if not possible(family, merge):
            continue
        parents = [m for m in merge.models if m != "base"] or [m for m, _ in merge.slices]
        group = "gradient" if "gradient" in name else _GROUPS.get(merge.method, merge.method)
        expected = _MERGED if group == "dare" else ("reproduced",)
        yield _case(family, "merge", group, name, parents, "base", coefficients=_truth(merge, parents, "base"),
                    expected=expected, families=elementwise.get(name))  # fmt: skip
        if len(parents) > 1 and merge.base != "base" and group in {"linear", "slerp"} and "base" not in merge.models:
            yield _case(family, "merge", f"{group}, no base given", name, parents[::-1], None,
                        coefficients=_truth(merge, parents[::-1], None))  # fmt: skip
    for added in (("names",), ("code-seed2",), ("names", "code-half", "mix")):
        parents = (*_PAIR, *added)
        yield _case(family, "merge", "innocent candidate added", "merge", parents, "base",
                    coefficients=_truth(MERGES["merge"], parents, "base"))  # fmt: skip


def _modified(family: Family, folder: Path) -> Iterator[Case]:
    numbers = _truth(MERGES["merge"], _PAIR, "base")
    sources = ("base", *_PAIR)

    def one(group: str, suspect: str, strength: float | None, share: float | None) -> Case:
        return _case(family, "modified merge", group, suspect, _PAIR, "base", coefficients=numbers, untouched=share,
                     strength=strength)  # fmt: skip

    for name, (rate, share_of_steps) in TRAINED_ON.items():
        strength = rate * max(int(family.steps[1] * share_of_steps), 2)
        yield one("trained on", name, strength, untouched_share(family, folder, name, sources))
    for size in NOISE:
        yield one("noise", f"merge.noise-{size}", size, None)
    for share in UNTOUCHED:
        name = f"merge.partly-{share}"
        yield one("partly trained", name, share, untouched_share(family, folder, name, sources))
    for suspect, parents in (("three", _PAIR), ("three", ("code", "names")), ("four", ("code", "docs", "names"))):
        yield _in_part(family, "true parent missing", suspect, parents)
    for kind in REQUANTISED:
        yield one("requantised", f"merge.{kind}", None, None)
    if family.storage != "float32":
        yield _case(family, "modified merge", "requantised", "merge.other16", _PAIR, "base",
                    coefficients=_truth(MERGES["in-float32"], _PAIR, "base"))  # fmt: skip


def _in_part(family: Family, group: str, suspect: str, parents: Sequence[str]) -> Case:
    """A merge that the candidates explain in part: where a missing parent, or a near twin's true sibling, left the
    weights alone. To find a merge in it is right, to call it reproduced is not.
    """
    return _case(family, "modified merge", group, suspect, parents, "base", expected=_MERGED[1:],
                 forbidden=("reproduced", "ancestor", "derived", "copy"))  # fmt: skip


_SUSPECTS = {
    "code-half": "earlier checkpoint", "code-late": "earlier checkpoint", "code-seed2": "sibling",
    "mix": "shared data", "code-averaged": "averaged checkpoints of a sibling", "code-then-names": "continued training",
    "code-then-docs": "continued training", "code-resumed": "continued training", "distilled": "distilled",
    "code-lora": "lora", "docs-lora": "lora", "code-partial": "partly frozen fine-tune", "code.pruned": "pruned",
    "code.int8": "quantised", "code.int4": "quantised", "code.fp8": "quantised", "independent": "independent",
    "names": "other fine-tune", "tables": "other fine-tune",
}  # fmt: skip
#: Truly made from `code`: calling them derived is right.
_CHILDREN = ("code-then-names", "code-then-docs", "code-resumed", "code.pruned", "code.int8", "code.int4", "code.fp8")


def _innocent(family: Family, folder: Path) -> Iterator[Case]:
    def one(group: str, suspect: str, parents: Sequence[str], base: str | None = "base", *allowed: str) -> Case:
        forbidden = tuple(v for v in (*_MERGED, "ancestor", "derived", "copy") if v not in allowed)
        return _case(family, "no merge", group, suspect, parents, base, forbidden=forbidden,
                     expected=("related", "not_explained", "undetermined", *allowed))  # fmt: skip

    for suspect, group in _SUSPECTS.items():
        allowed = ("derived",) if suspect in _CHILDREN else ()
        yield one(group, suspect, _PAIR, "base", *allowed)
        yield one(group, suspect, (*_PAIR, "names") if suspect != "names" else (*_PAIR, "tables"), None, *allowed)
        if suspect not in {"independent", "tables", "docs-lora"}:
            yield one(group, suspect, ("code",), "base", *allowed)
    for suspect, group in (("code-light-half", "earlier checkpoint, light"), ("code-light-seed2", "sibling, light"),
                           ("mix-light", "shared data, light")):  # fmt: skip
        yield one(group, suspect, _LIGHT)
        yield one(group, suspect, _LIGHT, None)
        yield one(group, suspect, _LIGHT[:1])
        yield one(group, suspect, (*_LIGHT, "code", "docs"))
    for suspect in ("code-late", "code-seed2", "code-averaged"):
        yield one("between checkpoints", suspect, ("code-half", "code"))
    yield one("between checkpoints", "code-late", ("code-half", "code"), None)
    for kind in ("fp8", "5bit"):
        for suspect in ("code-half", "code-seed2", "mix"):
            yield one("coarse lattice", f"{suspect}.{kind}", [f"{p}.{kind}" for p in _PAIR], f"base.{kind}")
        for suspect in ("code-light-half", "code-light-seed2"):
            yield one("coarse lattice", f"{suspect}.{kind}", [f"{p}.{kind}" for p in _LIGHT], f"base.{kind}")
    if family.storage != "float32":
        for suspect in ("mix", "code-half"):
            yield one("saved in float32", f"{suspect}.float32", [f"{p}.float32" for p in _PAIR], "base.float32")
    yield from _kin(one)
    yield from _wrong_parents(family, folder)


def _wrong_parents(family: Family, folder: Path) -> Iterator[Case]:
    """Merges of which one candidate is a relative of the true parent. A near twin of it cannot be told from it while
    the parent is not at hand: to call the suspect a merge of it, modified, is then no false accusation, and counted
    apart; to call it reproduced would be one.
    """
    wrong = ("code-seed2", "code-half", "code-late", "code-resumed", "code-then-docs", "mix", "code-lora")
    light = ("code-light-seed2", "code-light-half", "mix-light")
    for suspect, true, others, relatives in (
        ("merge", "code", "docs", wrong), ("light", "code-light", "docs-light", light),
        ("after-light", "code", "docs", ("code-seed2", "code-half", "code-resumed")),
    ):  # fmt: skip
        for relative in relatives:
            parents = (relative, others)
            if near_twins(folder, relative, true):
                yield _in_part(family, "near twin of a true parent", suspect, parents)
            else:
                yield _case(family, "no merge", "wrong parent beside a true one", suspect, parents, "base")


def _kin(one: Callable[..., Case]) -> Iterator[Case]:
    """Parents against their own children, second merges of the same parents, and merges of others."""
    child = "parent of the candidates' child"
    for suspect, parents in (
        ("code", ("merge", "docs")), ("docs", ("code", "merge")), ("code", ("after-light", "docs")),
        ("code", ("after-strong", "docs")), ("base", ("toward-base", "code")), ("code", ("in-float32", "docs")),
    ):  # fmt: skip
        yield one(child, suspect, parents, None if suspect == "base" else "base", "ancestor")
    for kin, other in (("code-resumed", "docs"), ("code-then-docs", "names"), ("code-then-names", "docs")):
        yield one("parent of one candidate", "code", (kin, other), "base", "ancestor")
    for suspect, parents in (("second", ("merge", "code")), ("second", ("merge", "docs")),
                             ("half-half", ("merge", "second")), ("merge", ("second", "code"))):  # fmt: skip
        yield one("second merge", suspect, parents)
