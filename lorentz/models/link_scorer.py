"""What models of knowledge-graph completion share: scores of all tails as one matrix product."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz.manifold import Lorentz


class LinkScorer(nn.Module, ABC):
    r"""Score of a tail t for a query (h, r): how near t lies to where the relation moves h.

    .. math:: s(h, r, t) = \tau_r\,(margin - d(f_r(h), t)) + b_{t, dir(r)} + [h = t]\,l_r

    d is a squared distance, for which the score is linear in functions of t alone: all tails cost one matrix product,
    `query(h, r) @ table().T`. A relation r has an inverse, numbered r + R, with a map of its own; dir(r) tells the two
    directions apart, as the two biases of Balazevic et al. do. The loop weight l_r says how much more often a head is
    its own tail than its nearness suggests.

    Args:
        entities: number E of entities.
        relations: number R of relations; those from R to 2 R - 1 are the inverses.
        dim: coordinates of an entity.
        margin: squared distance at which a score without biases is 0; a softmax does not see it.
        std: standard deviation of the coordinates at the start; small, so that what entities share shows first.
        sparse: gradients of the tables are sparse: a step then costs the rows that it touches.

    Parameters: `entity.weight` (E, dim), `bias.weight` (E, 2), `log_scale` (2 R), `loop_weight` (2 R) and those of the
    relations' maps.

    Source: Balazevic et al., Multi-relational Poincare Graph Embeddings, NeurIPS 2019; Chen et al., ACL 2022.
    """

    def __init__(
        self, entities: int, relations: int, dim: int, *, margin: float = 0.0, std: float = 1e-3, sparse: bool = True
    ) -> None:
        super().__init__()
        self.entities, self.relations, self.dim, self.margin, self.std = entities, relations, dim, margin, std
        self.entity = self._table(sparse)
        self.bias = nn.Embedding(entities, 2, sparse=sparse)
        self.log_scale = nn.Parameter(torch.zeros(2 * relations))
        self.loop_weight = nn.Parameter(torch.zeros(2 * relations))
        nn.init.zeros_(self.bias.weight)

    @abstractmethod
    def move(self, x: Tensor, relation: Tensor) -> Tensor:
        """Return f_r(x), where the relations (N,) move the heads' coordinates (N, dim)."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the squared distance d of (..., dim) and (..., dim), exact for neighbours: (...)."""

    @abstractmethod
    def lift(self, x: Tensor) -> Tensor:
        """Return the functions (..., dim + 1) of tails (..., dim) that the distance is linear in."""

    @abstractmethod
    def dual(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return a (..., dim + 1) and k (..., 1) with d(y, x) = k - a . lift(x)."""

    @abstractmethod
    def _table(self, sparse: bool) -> nn.Embedding:
        """Return the table of entities."""

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return the queries (N, dim + 4) of heads and relations (N,)."""
        a, k = self.dual(self.move(self.entity(head), relation))
        scale = self.log_scale[relation, None].exp()
        direction = nn.functional.one_hot(relation // self.relations, 2).to(a.dtype)
        return torch.cat([scale * a, direction, scale * (self.margin - k)], dim=-1)

    def table(self, entity: Tensor | None = None) -> Tensor:
        """Return the tails (E, dim + 4), of all entities or of those given: a score is the product with a query."""
        x, bias = (self.entity.weight, self.bias.weight) if entity is None else (self.entity(entity), self.bias(entity))
        return torch.cat([self.lift(x), bias, bias.new_ones(*bias.shape[:-1], 1)], dim=-1)

    def loop(self, relation: Tensor) -> Tensor:
        """Return l_r, (N,)."""
        return self.loop_weight[relation]

    def forward(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """Return the scores (N,) of facts, or (N, K) for tails (N, K), through the exact distance."""
        moved, tails = self.move(self.entity(head), relation), tail.reshape(len(head), -1)
        nearness = self.margin - self.distance(moved.unsqueeze(1), self.entity(tails))
        bias = self.bias(tails).gather(2, (relation // self.relations)[:, None, None].expand(*tails.shape, 1))
        loop = torch.where(tails == head[:, None], self.loop(relation)[:, None], 0)
        score = self.log_scale[relation, None].exp() * nearness + bias.squeeze(2) + loop
        return score.reshape(tail.shape)

    @torch.no_grad()
    def count_loops_(self, facts: Tensor) -> None:
        """Set the loop weights to the smoothed log-share of facts (F, 3) whose head is their tail.

        That is what they are if nearness alone would make the head certain. A weight without a loop in training has
        no optimum, and a gradient that vanishes on the way down.
        """
        size = 2 * self.relations
        count = facts[:, 1].bincount(minlength=size)
        loops = facts[facts[:, 0] == facts[:, 2], 1].bincount(minlength=size)
        self.loop_weight.copy_(((loops + 0.5) / (count + 1)).log())

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"entities={self.entities}, relations={self.relations}, dim={self.dim}, margin={self.margin:g}"


class LorentzScorer(LinkScorer):
    """A `LinkScorer` whose entities are points of curvature -1 and whose distance is the squared Lorentzian one.

    Another curvature only rescales the points and tau.
    """

    entity: lnn.Embedding

    def _table(self, sparse: bool) -> lnn.Embedding:
        return lnn.Embedding(self.entities, self.dim, sparse=sparse, std=self.std, manifold=Lorentz())

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `LF.sqdist`."""
        return LF.sqdist(x, y)

    def lift(self, x: Tensor) -> Tensor:
        """Return (x, x0 - 1), the second without cancellation, since near the origin all times are nearly 1."""
        return torch.cat([x, _time_above_one(x)], dim=-1)

    def dual(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return (2 y, -2 y0) and 2 (y0 - 1): the distance is 2 (y0 - 1) - 2 y . x + 2 y0 (x0 - 1)."""
        return torch.cat([2 * y, -2 * LF.time(y, keepdim=True)], dim=-1), 2 * _time_above_one(y)


class EuclideanScorer(LinkScorer):
    """A `LinkScorer` whose entities are vectors and whose distance is the squared Euclidean one."""

    def _table(self, sparse: bool) -> nn.Embedding:
        return nn.Embedding(
            self.entities, self.dim, sparse=sparse, _weight=torch.randn(self.entities, self.dim) * self.std
        )

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return |x - y|^2."""
        return (x - y).square().sum(-1)

    def lift(self, x: Tensor) -> Tensor:
        """Return the vector and its square, (x, |x|^2)."""
        return torch.cat([x, x.square().sum(-1, keepdim=True)], dim=-1)

    def dual(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return (2 y, -1) and |y|^2: the distance is |y|^2 - 2 y . x + |x|^2."""
        return torch.cat([2 * y, y.new_full((*y.shape[:-1], 1), -1.0)], dim=-1), y.square().sum(-1, keepdim=True)


def _time_above_one(x: Tensor) -> Tensor:
    """Return x0 - 1, (..., 1)."""
    return x.square().sum(-1, keepdim=True) / (1 + LF.time(x, keepdim=True))
