"""HyboNet's training step and ranking transcribed as they read, to measure `lorentz.models` against.

Written from the formulas of arXiv:2105.14686, Section 3.1 and 4.1: points with their time coordinate, a gathered matrix
for each fact, negatives drawn one by one, geoopt's Riemannian Adam.
"""

from __future__ import annotations

import random

import geoopt
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


class NaiveHyboNet(nn.Module):
    """Entities (E, n + 1) on geoopt's hyperboloid; relation r is the Lorentz linear layer of Eq. 3."""

    def __init__(self, entities: int, relations: int, dim: int) -> None:
        super().__init__()
        manifold = geoopt.Lorentz()
        points = manifold.expmap0(torch.cat([torch.zeros(entities, 1), 0.1 * torch.randn(entities, dim)], dim=1))
        self.entity = geoopt.ManifoldParameter(points, manifold=manifold)
        self.weight = nn.Parameter(0.1 * torch.randn(relations, dim + 1, dim + 1))
        self.scale = nn.Parameter(torch.zeros(relations))
        self.head_bias = nn.Parameter(torch.zeros(entities))
        self.tail_bias = nn.Parameter(torch.zeros(entities))
        self.margin = 8.0

    def forward(self, head: Tensor, relation: Tensor, tails: Tensor) -> Tensor:
        """Scores (N, K) of tails (N, K): margin - |f_r(h) - t|_L^2 + b_h + b_t."""
        moved = torch.einsum("nij,nj->ni", self.weight[relation], self.entity[head])
        time = torch.sigmoid(moved[:, :1]) * self.scale[relation].exp()[:, None] + 1.1
        space = moved[:, 1:]
        space = space * ((time.square() - 1) / space.square().sum(1, keepdim=True).clamp_min(1e-8)).sqrt()
        moved = torch.cat([time, space], dim=1)[:, None]
        gap = moved - self.entity[tails]
        distance = gap.square().sum(-1) - 2 * gap[..., 0].square()
        return self.margin - distance + self.head_bias[head][:, None] + self.tail_bias[tails]


def draw_negatives(facts: Tensor, count: int, known: set[tuple[int, int, int]], entities: int) -> Tensor:
    """Draw tails one by one, again while they are known: (N, count)."""
    rows = []
    for h, r, _ in facts.tolist():
        row: list[int] = []
        while len(row) < count:
            tail = random.randrange(entities)
            if (h, r, tail) not in known:
                row.append(tail)
        rows.append(row)
    return torch.tensor(rows)


def step(
    model: NaiveHyboNet, optimiser: torch.optim.Optimizer, facts: Tensor, count: int, known: set[tuple[int, int, int]]
) -> None:
    """One step of the paper's loss on facts (N, 3)."""
    negatives = draw_negatives(facts, count, known, len(model.entity))
    score = model(facts[:, 0], facts[:, 1], torch.cat([facts[:, 2:], negatives], dim=1))
    loss = -(logsigmoid(score[:, 0]) + logsigmoid(-score[:, 1:]).mean(1)).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


@torch.no_grad()
def ranks(model: NaiveHyboNet, facts: Tensor, known: set[tuple[int, int, int]]) -> list[int]:
    """Filtered ranks of facts (N, 3), one query after another, the known tails found one by one."""
    everything = torch.arange(len(model.entity))[None]
    result = []
    for h, r, t in facts.tolist():
        score = model(torch.tensor([h]), torch.tensor([r]), everything)[0]
        others = [e for e in range(len(score)) if e != t and (h, r, e) in known]
        true = score[t].item()
        score[others] = -torch.inf
        result.append(1 + int((score > true).sum()))
    return result
