"""Tiny networks of the families' architectures over bytes, their training losses, and checkpoint folders of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import torch
from families import Family
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3MoeConfig,
)

__all__ = ["logits", "loss_of", "new_network", "read_network", "write_network"]

MASK, VOCABULARY = 0, 256  # a zero byte does not occur in text


class Recurrent(nn.Module):
    """A byte LSTM: embedding, layers, and a linear map to the next byte."""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, hidden)
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 [batch, length] -> logits [batch, length, 256]."""
        return cast("torch.Tensor", self.output(self.lstm(self.embedding(tokens))[0]))


def new_network(family: Family) -> nn.Module:
    """With fresh float32 weights, from the generator's present state."""
    if family.architecture == "lstm":
        return Recurrent(family.hidden, family.layers)
    config = _configuration(family)
    auto = AutoModelForMaskedLM if family.architecture == "bert" else AutoModelForCausalLM
    return cast("nn.Module", auto.from_config(config, attn_implementation="eager"))


def logits(network: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """int64 [batch, length] -> float32 [batch, length, 256]."""
    made = network(tokens) if isinstance(network, Recurrent) else network(input_ids=tokens).logits
    return cast("torch.Tensor", made.float())


def loss_of(family: Family, network: nn.Module, tokens: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mean loss in nats per predicted byte of int64 [batch, length]."""
    if family.architecture == "bert":
        hidden = torch.rand(tokens.shape, generator=generator) < 0.15
        predicted = logits(network, tokens.masked_fill(hidden, MASK))
        return functional.cross_entropy(predicted[hidden], tokens[hidden])
    predicted = logits(network, tokens[:, :-1])
    return functional.cross_entropy(predicted.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1))


def write_network(family: Family, network: nn.Module, folder: Path) -> None:
    """As a checkpoint folder in the family's storage dtype, complete or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    storage = getattr(torch, family.storage)
    state = {name: tensor.detach().to(storage).contiguous() for name, tensor in network.state_dict().items()}
    if isinstance(network, PreTrainedModel):
        # Through the library, which writes experts and tied tensors as published checkpoints have them.
        copy = new_network(family).to(storage)
        copy.load_state_dict(state)
        cast("PreTrainedModel", copy).save_pretrained(partial)
    else:
        partial.mkdir(parents=True)
        save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
        described = {"model_type": "lstm", "hidden_size": family.hidden, "num_hidden_layers": family.layers}
        (partial / "config.json").write_text(json.dumps(described, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_network(family: Family, folder: Path) -> nn.Module:
    """In float32."""
    if family.architecture == "lstm":
        network = new_network(family)
        network.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        return network
    auto = AutoModelForMaskedLM if family.architecture == "bert" else AutoModelForCausalLM
    return cast("nn.Module", auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager"))


def _configuration(family: Family) -> PretrainedConfig:
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": family.hidden, "intermediate_size": family.inner,
        "num_hidden_layers": family.layers, "num_attention_heads": 4, "max_position_embeddings": 256,
    }  # fmt: skip
    decoder = sizes | {"num_key_value_heads": 2, "head_dim": family.hidden // 4, "tie_word_embeddings": False}
    if family.architecture == "qwen3":
        return Qwen3Config(**decoder)
    if family.architecture == "llama":
        return LlamaConfig(**decoder)
    if family.architecture == "qwen3_moe":
        return Qwen3MoeConfig(
            **decoder, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=family.inner, norm_topk_prob=True
        )
    # No dropout, so that a run does not depend on the library's order of random numbers.
    return BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, tie_word_embeddings=False)
