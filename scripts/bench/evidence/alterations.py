"""What is done to finished checkpoints without training: pruning, quantising, noise, training of a part."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from families import Family
from safetensors.torch import load_file, save_file
from training import State

__all__ = [
    "COARSE",
    "NOISE",
    "REQUANTISED",
    "UNTOUCHED",
    "alter_family",
    "near_twins",
    "spacing",
    "untouched_share",
]

#: Standard deviation of noise as a share of that of the movement from the base.
NOISE = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Shares of elements that later training did not touch.
UNTOUCHED = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
#: Members that near misses in coarse storage are made of.
COARSE = ("base", "code", "docs", "code-half", "code-seed2", "mix", "code-light", "docs-light", "code-light-half",
          "code-light-seed2")  # fmt: skip


def five_bits(v: torch.Tensor) -> torch.Tensor:
    """Five mantissa bits, to nearest even, in the dtype as given."""
    mantissa, exponent = torch.frexp(v.double())
    return torch.ldexp((mantissa * 64).round() / 64, exponent).to(v.dtype)


def eighth(v: torch.Tensor) -> torch.Tensor:
    """By way of float8 e4m3, with one scale a tensor."""
    scale = v.float().abs().max().clamp(min=1e-12) / 448
    return ((v.float() / scale).to(torch.float8_e4m3fn).float() * scale).to(v.dtype)


def eight_bits(v: torch.Tensor) -> torch.Tensor:
    """By way of int8, with one scale a row."""
    return _integers(v.float(), 127).to(v.dtype)


def four_bits(v: torch.Tensor) -> torch.Tensor:
    """By way of int4, with one scale for 32 neighbours."""
    if v.shape[-1] % 32:
        return eight_bits(v)
    return _integers(v.float().reshape(-1, 32), 7).reshape(v.shape).to(v.dtype)


def pruned(v: torch.Tensor) -> torch.Tensor:
    """The fifth of the elements with the smallest magnitude set to zero."""
    bound = v.float().abs().flatten().kthvalue(max(v.numel() // 5, 1)).values
    return torch.where(v.float().abs() <= bound, torch.zeros_like(v), v)


def _integers(v: torch.Tensor, top: int) -> torch.Tensor:
    scale = v.abs().amax(-1, keepdim=True).clamp(min=1e-12) / top
    return (v / scale).round() * scale


#: Storage that a merge or a fine-tune may go through.
REQUANTISED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "5bit": five_bits, "fp8": eighth, "int8": eight_bits, "int4": four_bits,
}  # fmt: skip


def alter_family(family: Family, folder: Path) -> None:
    """Make what is missing of the altered members in `folder`."""
    plans: dict[str, Callable[[], State]] = {}
    for kind in ("fp8", "5bit"):
        for name in COARSE:
            plans[f"{name}.{kind}"] = lambda n=name, k=kind: _changed(folder, n, REQUANTISED[k])  # type: ignore[misc]
    for kind, change in REQUANTISED.items():
        for name in ("merge", "code"):
            plans[f"{name}.{kind}"] = lambda n=name, c=change: _changed(folder, n, c)  # type: ignore[misc]
    plans["code.pruned"] = lambda: _changed(folder, "code", pruned)
    if family.storage != "float32":
        for name in ("base", "code", "docs", "mix", "code-half"):
            plans[f"{name}.float32"] = lambda n=name: _changed(folder, n, torch.Tensor.float, vectors=True)  # type: ignore[misc]
        other = torch.float16 if family.storage == "bfloat16" else torch.bfloat16
        plans["merge.other16"] = lambda: _changed(folder, "in-float32", lambda v: v.to(other), vectors=True)
    for size in NOISE:
        plans[f"merge.noise-{size}"] = lambda s=size: _noised(family, folder, s)  # type: ignore[misc]
    for share in UNTOUCHED:
        plans[f"merge.partly-{share}"] = lambda s=share: _partly(family, folder, s)  # type: ignore[misc]
    for name, make in plans.items():
        if not (folder / name).exists():
            _write(folder, name, make())


def spacing(values: torch.Tensor, storage: str) -> torch.Tensor:
    """Distance of neighbouring numbers of the storage dtype at each value; float64, same shape."""
    information = torch.finfo(getattr(torch, storage))
    least = torch.frexp(torch.tensor(information.tiny, dtype=torch.float64)).exponent - 1
    exponent = torch.frexp(values.double()).exponent - 1
    return information.eps * torch.exp2(torch.maximum(exponent, least).double())


def untouched_share(family: Family, folder: Path, name: str, sources: tuple[str, ...], clean: str = "merge") -> float:
    """Of the decisive elements of all matrices (the clean merge at least four spacings from every source), the share
    that still is what the merge made, beyond what chance brings back: the mean of those one spacing above and below.
    """
    suspect, merge = _load(folder, name), _load(folder, clean)
    models = [_load(folder, source) for source in sources]
    same = beside = total = 0
    for key, made in merge.items():
        if made.ndim < 2:
            continue
        step = spacing(made, family.storage)
        decisive = torch.stack([(made.double() - m[key].double()).abs() >= 4 * step for m in models]).all(0)
        moved = ((suspect[key].double() - made.double()) / step).abs()[decisive]
        same += int((moved == 0).sum())
        beside += int(((moved > 0.75) & (moved < 1.5)).sum())
        total += moved.numel()
    return max(same - beside / 2, 0) / max(total, 1)


def near_twins(folder: Path, one: str, other: str) -> bool:
    """Whether two members cannot be told apart by a merge of them: their difference has a fiftieth of the energy of the
    second one's movement from the base, in matrices, or half of the elements that moved have the same bits.
    """
    first, second, base = (_load(folder, name) for name in (one, other, "base"))
    apart = energy = 0.0
    same = moved = 0
    for key, v in second.items():
        if v.ndim >= 2:
            apart += float((first[key].double() - v.double()).square().sum())
            energy += float((v.double() - base[key].double()).square().sum())
            elsewhere = v != base[key]
            moved += int(elsewhere.sum())
            same += int((elsewhere & (first[key] == v)).sum())
    return apart <= 0.02 * energy or same >= 0.5 * moved


def _load(folder: Path, name: str) -> State:
    """With experts as separate tensors, as the members have them; mergekit writes them stacked."""
    state = load_file(folder / name / "model.safetensors")
    for key in [key for key in state if key.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        stacked = state.pop(key)
        place, _, kind = key.rpartition(".")
        for expert, matrix in enumerate(stacked):
            parts = matrix.chunk(2) if kind == "gate_up_proj" else (matrix,)
            for part, word in zip(parts, ("gate_proj", "up_proj") if len(parts) == 2 else (kind,), strict=True):
                state[f"{place}.{expert}.{word}.weight"] = part.contiguous()
    return state


def _write(folder: Path, name: str, state: State) -> None:
    partial = folder / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file({k: v.contiguous() for k, v in state.items()}, partial / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(folder / "base" / "config.json", partial / "config.json")
    partial.rename(folder / name)


def _changed(
    folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor], *, vectors: bool = False
) -> State:
    """Matrices (and vectors, if wanted) changed; quantisers leave norms and biases alone."""
    return {k: change(v) if v.ndim >= 2 or vectors else v for k, v in _load(folder, name).items()}


def _generator(family: Family, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{family.name}/{name}".encode()))


def _noised(family: Family, folder: Path, size: float) -> State:
    base, generator = _load(folder, "base"), _generator(family, f"noise-{size}")
    noised = {}
    for key, v in _load(folder, "merge").items():
        scale = size * float((v.float() - base[key].float()).pow(2).mean().sqrt())
        noised[key] = (v.float() + scale * torch.randn(v.shape, generator=generator)).to(v.dtype)
    return noised


def _partly(family: Family, folder: Path, share: float) -> State:
    """The merge where nothing touched it, and elsewhere the same merge after a full fine-tuning."""
    trained, generator = _load(folder, "after-full"), _generator(family, f"partly-{share}")
    return {
        key: torch.where(torch.rand(v.shape, generator=generator) < share, v, trained[key])
        for key, v in _load(folder, "merge").items()
    }
