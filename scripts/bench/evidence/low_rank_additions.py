"""Low-rank additions to the matrices of a network, trained in place of the matrices (LoRA, Hu et al. 2021)."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["LowRankAdditions"]


class LowRankAdditions:
    """W = W0 + up @ down for every matrix but embeddings, with up = 0 at first; the network always holds W.

    Gradients of the factors follow from that of W, so any network can be trained so, recurrent ones too.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        self.parts = [
            (weight, weight.detach().clone(), torch.zeros(weight.shape[0], rank),
             torch.randn(rank, weight.shape[1]) / weight.shape[1] ** 0.5)
            for name, weight in network.named_parameters() if weight.ndim == 2 and "embed" not in name
        ]  # fmt: skip

    @property
    def factors(self) -> list[torch.Tensor]:
        """float32 [rows, rank] and [rank, columns] of every matrix: what the optimiser steps."""
        return [factor for _, _, up, down in self.parts for factor in (up, down)]

    def pull_gradients(self) -> None:
        """From the matrices to the factors, by the chain rule."""
        for weight, _, up, down in self.parts:
            if weight.grad is not None:
                up.grad, down.grad = weight.grad.float() @ down.T, up.T @ weight.grad.float()
                weight.grad = None

    @torch.no_grad()
    def push_weights(self) -> None:
        """Put the sums into the network."""
        for weight, start, up, down in self.parts:
            weight.copy_(start + (up @ down).to(start.dtype))
