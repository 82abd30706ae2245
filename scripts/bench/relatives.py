"""A population of trained relatives: parents, near misses, merges, merges that were trained on, their children.

Everything is trained here, from a base as it is saved in bfloat16, by AdamW in float32, and saved in bfloat16, on text
that ships with Python; a member that is there already is kept. Nothing is drawn at random but batches and starting
points.

    trained from the base    ft-*: steps that move weights by many spacings; li-*: by less than one
    near misses              an earlier checkpoint (-half), the same data in another order (-seed2), several parents'
                             data together (-mix), a parent trained on (-then-*, -more), an average over one run
                             (-mean), training whose weights are bfloat16 at every step (-coarse)
    m*                       merges in float32, rounded once; m2-again: other weights of m2's parents; m2-child: a merge
                             with m2 in it
    m*-light, -firm, -hard   the merge trained on: 40 steps at 1e-5, 40 at 1e-4, 60 at 3e-4
"""

from __future__ import annotations

import shutil
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

__all__ = ["ANCESTORS", "MEMBERS", "Member", "build"]

_TEXTS = {
    "code": ("email/*.py", "asyncio/*.py"),
    "docs": ("pydoc_data/topics.py",),
    "web": ("http/*.py", "urllib/*.py", "xml/**/*.py"),
    "unit": ("unittest/*.py", "multiprocessing/*.py", "concurrent/**/*.py"),
    "tk": ("tkinter/*.py", "turtle.py"),
    "log": ("logging/*.py", "sqlite3/*.py", "zoneinfo/*.py"),
}
_CONTEXT, _BATCH = 96, 12


@dataclass(frozen=True)
class Member:
    """How one came about. A merge has `shares`; what is trained has a `source`, `texts`, steps, rate and seed. `half`:
    kept at half of its training under the name of this member with `-half`; `mean`: the mean of the states of the last
    half of the steps; `coarse`: bfloat16 at every step.
    """

    source: str = "base"
    texts: tuple[str, ...] = ()
    steps: int = 160
    rate: float = 3e-4
    seed: int = 0
    half: bool = False
    mean: bool = False
    coarse: bool = False
    shares: tuple[tuple[str, float], ...] = ()


def _merge(**shares: float) -> Member:
    return Member(shares=tuple((name.replace("_", "-"), share) for name, share in shares.items()))


MEMBERS: dict[str, Member] = {
    "ft-code": Member(texts=("code",), seed=1, half=True),
    "ft-docs": Member(texts=("docs",), seed=2),
    "ft-web": Member(texts=("web",), seed=4, half=True),
    "ft-unit": Member(texts=("unit",), seed=5),
    "ft-tk": Member(texts=("tk",), seed=6),
    "ft-code-seed2": Member(texts=("code",), seed=3),
    "ft-docs-seed2": Member(texts=("docs",), seed=7),
    "ft-web-seed2": Member(texts=("web",), seed=8),
    "ft-mix": Member(texts=("code", "docs"), seed=9),
    "ft-mix3": Member(texts=("code", "docs", "web"), seed=10),
    "ft-unit-mean": Member(texts=("unit",), seed=5, mean=True),
    "ft-tk-mean": Member(texts=("tk",), seed=16, mean=True),
    "ft-tk-coarse": Member(texts=("tk",), seed=6, coarse=True),
    "ft-code-then-web": Member("ft-code", ("web",), 80, 3e-4, 11),
    "ft-code-then-docs": Member("ft-code", ("docs",), 80, 2e-4, 12),
    "ft-code-more": Member("ft-code", ("code",), 80, 1e-4, 13),
    "ft-docs-then-light": Member("ft-docs", ("tk",), 40, 2e-5, 14),
    "ft-web-then-light": Member("ft-web", ("log",), 40, 1e-5, 15),
    "ft-code-then-light": Member("ft-code", ("log",), 40, 1e-5, 17),
    "ft-unit-then-light": Member("ft-unit", ("code",), 40, 1e-5, 18),
    "ft-tk-then-light": Member("ft-tk", ("log",), 40, 2e-5, 19),
    "li-code": Member(texts=("code",), steps=60, rate=2e-5, seed=21, half=True),
    "li-docs": Member(texts=("docs",), steps=60, rate=2e-5, seed=22),
    "li-web": Member(texts=("web",), steps=60, rate=2e-5, seed=23),
    "li-tk": Member(texts=("tk",), steps=60, rate=2e-5, seed=24),
    "li-code-seed2": Member(texts=("code",), steps=60, rate=2e-5, seed=25),
    "li-mix": Member(texts=("code", "docs"), steps=60, rate=2e-5, seed=26),
    "m2": _merge(ft_code=0.6, ft_docs=0.4),
    "m2-again": _merge(ft_code=0.35, ft_docs=0.65),
    "m2-web-tk": _merge(ft_tk=0.5, ft_web=0.5),
    "m2-unit-docs": _merge(ft_unit=0.7, ft_docs=0.3),
    "m2-code-web": _merge(ft_web=0.2, ft_code=0.8),
    "m2-li": _merge(li_code=0.6, li_docs=0.4),
    "m1-base": _merge(base=0.45, ft_tk=0.55),
    "m3": _merge(ft_code=0.4, ft_web=0.3, ft_docs=0.3),
    "m3-unit": _merge(ft_unit=0.5, ft_tk=0.25, ft_docs=0.25),
    "m3-li": _merge(li_web=0.4, li_code=0.3, li_docs=0.3),
    "m4": _merge(ft_code=0.3, ft_web=0.2, ft_docs=0.3, ft_tk=0.2),
    "m4-unit": _merge(ft_unit=0.4, ft_docs=0.3, ft_web=0.2, ft_tk=0.1),
    "m4-li": _merge(li_tk=0.25, li_web=0.25, li_docs=0.25, li_code=0.25),
    "m2-child": _merge(m2=0.5, ft_web=0.5),
    "m2-light": Member("m2", ("log",), 40, 1e-5, 31),
    "m2-firm": Member("m2", ("log",), 40, 1e-4, 32),
    "m2-firm-code": Member("m2", ("code",), 40, 1e-4, 33),
    "m2-hard": Member("m2", ("log",), 60, 3e-4, 34),
    "m2-again-light": Member("m2-again", ("docs",), 40, 1e-5, 35),
    "m2-web-tk-light": Member("m2-web-tk", ("code",), 40, 1e-5, 36),
    "m2-web-tk-firm": Member("m2-web-tk", ("unit",), 40, 1e-4, 37),
    "m2-unit-docs-light": Member("m2-unit-docs", ("web",), 40, 1e-5, 38),
    "m2-unit-docs-firm": Member("m2-unit-docs", ("docs",), 40, 1e-4, 39),
    "m2-code-web-light": Member("m2-code-web", ("code",), 40, 1e-5, 40),
    "m1-base-light": Member("m1-base", ("log",), 40, 1e-5, 41),
    "m3-light": Member("m3", ("log",), 40, 1e-5, 42),
    "m3-firm": Member("m3", ("tk",), 40, 1e-4, 43),
    "m3-hard": Member("m3", ("log",), 60, 3e-4, 44),
    "m3-unit-light": Member("m3-unit", ("code",), 40, 1e-5, 45),
    "m3-unit-firm": Member("m3-unit", ("unit",), 40, 1e-4, 46),
    "m4-light": Member("m4", ("log",), 40, 1e-5, 47),
    "m4-firm": Member("m4", ("unit",), 40, 1e-4, 48),
}


def _parents() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {"base": frozenset()}
    for name, member in MEMBERS.items():
        direct = {source for source, _ in member.shares} or {member.source}
        found[name] = frozenset(direct).union(*(found[source] for source in direct)) - {"base"}
    return found


#: Whose weights took part in a member's, directly or by way of others; the base apart.
ANCESTORS: dict[str, frozenset[str]] = _parents()


def build(folder: Path, known: Path) -> Iterator[str]:
    """Write every member that `folder` lacks, as a folder of its own; those that `known` has (the base among them) are
    copied. Yields the names of what is made, before it is made.
    """
    torch.set_num_threads(1)  # so small a model is trained faster by one, and to the same bits
    for name in ["base", *MEMBERS]:
        if (folder / name / "model.safetensors").is_file():
            continue
        if (known / name / "model.safetensors").is_file():
            for kept in (name, f"{name}-half"):
                if (known / kept).is_dir():
                    shutil.copytree(known / kept, folder / kept)
            continue
        yield name
        member = MEMBERS[name]
        if member.shares:
            states = [(share, load_file(folder / source / "model.safetensors")) for source, share in member.shares]
            _save(folder, name, _blended(states))
        else:
            _train(folder, name, member)


def _blended(states: list[tuple[float, dict[str, torch.Tensor]]]) -> dict[str, torch.Tensor]:
    merged = {}
    for tensor in states[0][1]:
        total = torch.zeros_like(states[0][1][tensor], dtype=torch.float32)
        for share, state in states:
            total += share * state[tensor].float()
        merged[tensor] = total
    return merged


def _train(folder: Path, name: str, member: Member) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = Qwen3ForCausalLM(Qwen3Config.from_pretrained(folder / "base"))
    model.load_state_dict({k: v.float() for k, v in load_file(folder / member.source / "model.safetensors").items()})
    tokens = torch.cat([_tokens(text, model.config.vocab_size) for text in member.texts])
    generator = torch.Generator().manual_seed(member.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=member.rate, weight_decay=0.01, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, member.rate, total_steps=member.steps, pct_start=0.1)
    mean: dict[str, torch.Tensor] = {}
    for step in range(1, member.steps + 1):
        starts = torch.randint(0, len(tokens) - _CONTEXT - 1, (_BATCH,), generator=generator)
        batch = torch.stack([tokens[i : i + _CONTEXT] for i in starts.tolist()])
        optimiser.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if member.coarse:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(parameter.bfloat16().float())
        state = model.state_dict()
        if member.half and step == member.steps // 2:
            _save(folder, f"{name}-half", state)
        if member.mean and step > member.steps // 2:
            mean = {k: mean.get(k, 0) + v.detach() / (member.steps - member.steps // 2) for k, v in state.items()}
    _save(folder, name, mean or model.state_dict())


def _tokens(text: str, vocabulary: int) -> torch.Tensor:
    """Bytes of the text; for a larger vocabulary, words by their checksums: int64 [length]."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for pattern in _TEXTS[text] for path in library.glob(pattern))
    content = b"\n".join(path.read_bytes() for path in files)
    found = list(content) if vocabulary <= 256 else [zlib.crc32(word) % vocabulary for word in content.split()]
    return torch.tensor(found, dtype=torch.int64)


def _save(folder: Path, name: str, state: dict[str, torch.Tensor]) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "base" / "config.json", folder / name / "config.json")
    tensors = {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in state.items()}
    save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
