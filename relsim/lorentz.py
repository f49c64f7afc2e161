"""The hyperbolic fact distribution: entities as points, scores as squared Lorentzian distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from relsim.distribution import TableDistribution
from relsim.neural import NeuralDistribution


class LorentzDistribution(NeuralDistribution, TableDistribution):
    r"""p(h|r) = softmax_h(-|f(r) - e_h|_L^2 / \tau + a_h), p(t|h,r) = softmax_t(-|g(h, r) - e_t|_L^2 / \tau' + b_t).

    Entities e and relations are points of curvature -1, and f and g maps of points: two hidden layers of
    `lorentz.nn.Linear` on the point of the relation, and on those of the head and the relation joined into one. The
    squared Lorentzian distance is linear in the ambient coordinates of e,

        -|q - e|_L^2 / tau = 2 (1 + q . e - q0 e0) / tau,

    so that each conditional is an exponential family with statistic (e, e0) and natural parameter 2 (q, -q0) / tau. The
    temperatures are learned, as their logarithms.

    Args: as of `NeuralDistribution`.

    Source: the layers and the score, Chen et al., ACL 2022; the model, arXiv:1907.08937.
    """

    kind = "lorentz"

    def __init__(
        self, entities: Sequence[str], relations: Sequence[str], support: Tensor | None = None, **shape: Any
    ) -> None:
        super().__init__(entities, relations, support, **shape)
        self.head_map = _PointMap([self.dim], self.hidden, self.dim, self.dropout)
        self.tail_map = _PointMap([self.dim, self.dim], self.hidden, self.dim, self.dropout)

    def head_natural(self, relation: Tensor) -> Tensor:
        return self.head_map(self.relation[relation])

    def tail_natural(self, head: Tensor, relation: Tensor) -> Tensor:
        return self.tail_map(self.vectors(head), self.relation[relation])

    def tail_natural_grid(self, head: Tensor, relation: Tensor) -> Tensor:
        return self.tail_map(self.vectors(head)[:, None], self.relation[relation])

    @property
    def table(self) -> Tensor:
        return torch.cat([self.entity, LF.time(self.entity, keepdim=True)], dim=1)


class _PointMap(nn.Module):
    """Points, joined into one, to the natural parameter of a point; the first layer keeps a piece for each of them."""

    def __init__(self, inputs: Sequence[int], hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Linear(width, hidden, bias=i == 0) for i, width in enumerate(inputs))
        self.time_weight = nn.Parameter(torch.zeros(hidden))
        self.second = lnn.Linear(hidden, hidden)
        self.last = lnn.Linear(hidden, out)
        self.activation, self.dropout = lnn.ReLU(), lnn.Dropout(dropout)
        self.log_tau = nn.Parameter(torch.zeros(1))

    def forward(self, *points: Tensor) -> Tensor:
        """Return 2 (q, -q0) / tau for points (..., width) that broadcast, shape (..., out + 1)."""
        square = sum(point.square().sum(dim=-1, keepdim=True) for point in points)
        time = (1 + torch.as_tensor(square)).sqrt()  # of the joined point: squared space norms add
        pieces = [piece(point) for piece, point in zip(self.first, points, strict=True)]
        first = torch.as_tensor(sum(pieces)) + time * self.time_weight  # lorentz.nn.Linear on the joined point
        hidden = self.dropout(self.activation(first))
        hidden = self.dropout(self.activation(self.second(hidden)))
        q = self.last(hidden)
        ambient = torch.cat([q, -LF.time(q, keepdim=True)], dim=-1)
        return 2 * torch.exp(-self.log_tau) * ambient
