"""Layers of Chen et al., ACL 2022, transcribed as directly as they read, in ambient coordinates, time first."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def product(x: Tensor, y: Tensor) -> Tensor:
    """<x_i, y_j> for rows (..., L, n + 1) and (..., S, n + 1)."""
    return torch.cat([-x[..., :1], x[..., 1:]], dim=-1) @ y.mT


class Attention(nn.Module):
    """Eq. 4 to 6: the centroids of values under softmax((2 + 2 <q, k>) / scale + bias), all scores held."""

    def __init__(self, width: int, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.scale = nn.Parameter(torch.tensor([width**0.5]))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        score = (2 + 2 * product(query, key)) / self.scale + self.bias
        if self.causal:
            score = score.masked_fill(score.new_ones(score.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
        mean = score.softmax(-1) @ value
        square = mean[..., :1].square() - mean[..., 1:].square().sum(-1, keepdim=True)
        return mean / square.abs().clamp_min(1e-8).sqrt()


class Linear(nn.Module):
    """Eq. 3 as the experiments ran it: a gated time, the direction scaled to it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Linear(inputs + 1, outputs + 1)
        self.scale = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, x: Tensor) -> Tensor:
        y = self.weight(x)
        time = y[..., :1].sigmoid() * self.scale.exp() + 1.1
        space = y[..., 1:]
        square = (space * space).sum(-1, keepdim=True).clamp_min(1e-8)
        return torch.cat([time, space * ((time * time - 1) / square).sqrt()], dim=-1)
