"""One training run: AdamW over random windows of text, in float32 or purely in 16 bits."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from corpora import corpus
from families import Family
from low_rank_additions import LowRankAdditions
from networks import logits, loss_of
from torch import nn
from torch.nn import functional

__all__ = ["State", "Training", "train"]

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Training:
    """What a run does: `subjects` of text, `steps` at a peak `rate` (one cycle), the `seed` of its windows. `keep`:
    steps after which the state is kept; `rank`: train low-rank additions to the matrices; `only`: train only parameters
    with this word in their name; `average_from`: the result is the mean of the states from this step on; `teacher`: a
    model of the family whose distribution is the target, in place of the text's.
    """

    subjects: tuple[str, ...]
    steps: int
    rate: float
    seed: int
    keep: tuple[int, ...] = ()
    rank: int = 0
    only: str = ""
    average_from: int | None = None
    teacher: str | None = None


def train(
    family: Family, network: nn.Module, plan: Training, teacher: nn.Module | None = None
) -> tuple[dict[int, State], float]:
    """Train in place; the states of `plan.keep` by step, and the last loss in nats per byte."""
    torch.manual_seed(plan.seed)
    generator = torch.Generator().manual_seed(plan.seed)
    text = torch.cat([corpus(subject) for subject in plan.subjects])
    if family.pure:
        network.to(getattr(torch, family.storage))
    network.train()
    additions = LowRankAdditions(network, plan.rank) if plan.rank else None
    parameters = additions.factors if additions else [p for n, p in network.named_parameters() if plan.only in n]
    optimiser = torch.optim.AdamW(parameters, lr=plan.rate, weight_decay=0.01, betas=(0.9, 0.95), foreach=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share_of_rate(step, plan.steps))
    kept: dict[int, State] = {}
    total: State = {}
    loss = torch.zeros(())
    for step in range(1, plan.steps + 1):
        starts = torch.randint(0, len(text) - family.context - 1, (family.batch,), generator=generator)
        tokens = torch.stack([text[i : i + family.context] for i in starts.tolist()])
        loss = _loss(family, network, teacher, tokens, generator)
        network.zero_grad()
        loss.backward()
        if additions:
            additions.pull_gradients()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if additions:
            additions.push_weights()
        if step in plan.keep:
            kept[step] = copy.deepcopy(network.state_dict())
        if plan.average_from is not None and step >= plan.average_from:
            for name, tensor in network.state_dict().items():
                total[name] = total.get(name, 0) + tensor.detach().double()
    if plan.average_from is not None:
        count = plan.steps - plan.average_from + 1
        network.load_state_dict({name: tensor / count for name, tensor in total.items()})
    return kept, float(loss.detach())


def _share_of_rate(step: int, steps: int) -> float:
    """Linear over the first tenth, then half a cosine down to almost nothing."""
    warm = max(steps // 10, 1)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _loss(
    family: Family, network: nn.Module, teacher: nn.Module | None, tokens: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    if teacher is None:
        return loss_of(family, network, tokens, generator)
    with torch.no_grad():
        target = logits(teacher, tokens).log_softmax(-1)
    predicted = logits(network, tokens).log_softmax(-1)
    return functional.kl_div(predicted.flatten(0, 1), target.flatten(0, 1), reduction="batchmean", log_target=True)
