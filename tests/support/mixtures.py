"""Mixtures of experts cut out of the trained family: every matrix consists of trained rows or columns, in each of the
layouts that model families use. A merge of such models is such a model of the merge.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

State = dict[str, torch.Tensor]
EXPERTS = 4


def separate(state: State) -> State:
    """One tensor per expert and projection, as Qwen and DeepSeek do; the router has rows of a trained matrix."""
    mixture = {name: tensor for name, tensor in state.items() if ".mlp." not in name}
    for name, tensor in state.items():
        if ".mlp." not in name:
            continue
        before, _, kind = name.partition(".mlp.")
        pieces = tensor.chunk(EXPERTS, dim=1 if kind.startswith("down_proj") else 0)
        for expert, piece in enumerate(pieces):
            mixture[f"{before}.mlp.experts.{expert}.{kind}"] = piece.contiguous()
        mixture[f"{before}.mlp.gate.weight"] = state[f"{before}.self_attn.q_proj.weight"][:EXPERTS].clone()
    return mixture


def mixtral(mixture: State) -> State:
    """The same under Mixtral's names."""
    words = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3", "mlp.gate": "block_sparse_moe.gate"}
    renamed = {}
    for name, tensor in mixture.items():
        inner = name
        if ".mlp." in name:
            for word, other in words.items():
                inner = inner.replace(word, other)
        renamed[inner.replace("mlp.experts", "block_sparse_moe.experts")] = tensor
    return renamed


def stacked(mixture: State) -> State:
    """All experts in one tensor, [E, 2I, H] and [E, H, I], as transformers 5 stores them."""
    fused = {name: tensor for name, tensor in mixture.items() if ".experts." not in name}
    for block in _blocks(mixture):
        gate, up, down = (_all(mixture, block, kind) for kind in ("gate_proj", "up_proj", "down_proj"))
        fused[f"{block}experts.gate_up_proj"] = torch.cat([gate, up], dim=1)
        fused[f"{block}experts.down_proj"] = down
    return fused


def with_biases(mixture: State) -> State:
    """Every projection of every expert with a bias: the first column of its matrix."""
    biased = dict(mixture)
    for name, tensor in mixture.items():
        if ".experts." in name:
            biased[name.replace(".weight", ".bias")] = tensor[:, 0].clone()
    return biased


def alternating_with_biases(biased: State) -> State:
    """gpt-oss: [E, H, 2I] and [E, 2I], gate and up taking turns in both."""
    fused = transposed({n: t for n, t in biased.items() if not n.endswith(".bias")}, alternate=True)
    for block in _blocks(biased):
        gate, up, down = (_all(biased, block, kind, "bias") for kind in ("gate_proj", "up_proj", "down_proj"))
        fused[f"{block}experts.gate_up_proj_bias"] = torch.stack([gate, up], dim=2).flatten(1)
        fused[f"{block}experts.down_proj_bias"] = down
    return fused


def transposed(mixture: State, *, alternate: bool) -> State:
    """[E, H, 2I] and [E, I, H], columns of gate and up taking turns (gpt-oss) or not (Llama 4)."""
    fused = {name: tensor for name, tensor in mixture.items() if ".experts." not in name}
    for block in _blocks(mixture):
        gate, up, down = (_all(mixture, block, k).transpose(1, 2) for k in ("gate_proj", "up_proj", "down_proj"))
        both = torch.stack([gate, up], dim=3).flatten(2) if alternate else torch.cat([gate, up], dim=2)
        fused[f"{block}experts.gate_up_proj"] = both.contiguous()
        fused[f"{block}experts.down_proj"] = down.contiguous()
    return fused


def renumbered(mixture: State, order: Sequence[int]) -> State:
    """The same model with its experts in another order: its expert n is expert `order[n]` of `mixture`."""
    other = dict(mixture)
    for block in _blocks(mixture):
        for expert, source in enumerate(order):
            for kind in ("gate_proj", "up_proj", "down_proj"):
                other[f"{block}experts.{expert}.{kind}.weight"] = mixture[f"{block}experts.{source}.{kind}.weight"]
        other[f"{block}gate.weight"] = mixture[f"{block}gate.weight"][list(order)].clone()
    return other


def save_as(folder: Path, tensors: State, model_type: str = "qwen3_moe") -> Path:
    """Write a checkpoint folder whose configuration names a family."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "tie_word_embeddings": False}))
    return folder


def _blocks(mixture: State) -> list[str]:
    return list(dict.fromkeys(name.partition("experts.")[0] for name in mixture if ".experts." in name))


def _all(mixture: State, block: str, kind: str, what: str = "weight") -> torch.Tensor:
    return torch.stack([mixture[f"{block}experts.{expert}.{kind}.{what}"] for expert in range(EXPERTS)])
