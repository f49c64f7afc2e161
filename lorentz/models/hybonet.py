"""HyboNet, whose relations are the paper's linear layer, and its Euclidean twin with as many parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz.models._grouped import grouped_linear
from lorentz.models.link_scorer import EuclideanScorer, LorentzScorer


class HyboNet(LorentzScorer):
    """Relations move heads by a Lorentz linear layer each, f_r(x) = W_r x + w_r x0; the identity at the start.

    That is `lorentz.nn.Linear` without a bias; it holds every boost and rotation. Arguments as in `LinkScorer`.

    Parameters: `weight` (2 R, dim, dim) and `time_weight` (2 R, dim) beside those of `LinkScorer`.

    Source: Chen et al., Fully Hyperbolic Neural Networks, ACL 2022, Eq. 2 and Section 4.1.
    """

    def __init__(
        self, entities: int, relations: int, dim: int, *, margin: float = 0.0, std: float = 1e-3, sparse: bool = True
    ) -> None:
        super().__init__(entities, relations, dim, margin=margin, std=std, sparse=sparse)
        self.weight = nn.Parameter(torch.eye(dim).repeat(2 * relations, 1, 1))
        self.time_weight = nn.Parameter(torch.zeros(2 * relations, dim))

    def move(self, x: Tensor, relation: Tensor) -> Tensor:
        """Return W_r x + w_r x0, (N, dim)."""
        return grouped_linear(x, self.weight, relation) + self.time_weight[relation] * LF.time(x, keepdim=True)


class EuclideanHyboNet(EuclideanScorer):
    """The twin of `HyboNet` in Euclidean space, f_r(x) = W_r x + b_r: as many parameters, the identity at the start.

    Parameters: `weight` (2 R, dim, dim) and `translation` (2 R, dim) beside those of `LinkScorer`.
    """

    def __init__(
        self, entities: int, relations: int, dim: int, *, margin: float = 0.0, std: float = 1e-3, sparse: bool = True
    ) -> None:
        super().__init__(entities, relations, dim, margin=margin, std=std, sparse=sparse)
        self.weight = nn.Parameter(torch.eye(dim).repeat(2 * relations, 1, 1))
        self.translation = nn.Parameter(torch.zeros(2 * relations, dim))

    def move(self, x: Tensor, relation: Tensor) -> Tensor:
        """Return W_r x + b_r, (N, dim)."""
        return grouped_linear(x, self.weight, relation) + self.translation[relation]
