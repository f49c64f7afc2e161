"""The neural fact distribution of the 2019 paper: entity and relation vectors, two perceptrons, tied output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from relsim.distribution import TableDistribution
from relsim.neural import NeuralDistribution


class MLPDistribution(NeuralDistribution, TableDistribution):
    """p(h|r) = softmax_h(f(r) . e_h + a_h), p(t|h,r) = softmax_t(g(h, r) . e_t + b_t) (arXiv:1907.08937, Eq. 4, 5).

    f and g are perceptrons with two hidden layers on the vectors of the relation, and of the head and the relation; the
    entity vectors e serve as input and as output. Without bias it is the paper's exact form.

    Args: as of `NeuralDistribution`.
    """

    kind = "mlp"

    def __init__(
        self, entities: Sequence[str], relations: Sequence[str], support: Tensor | None = None, **shape: Any
    ) -> None:
        super().__init__(entities, relations, support, **shape)
        self.head_mlp = Perceptron([self.dim], self.hidden, self.dim, self.dropout)
        self.tail_mlp = Perceptron([self.dim, self.dim], self.hidden, self.dim, self.dropout)

    def head_natural(self, relation: Tensor) -> Tensor:
        return self.head_mlp.finish(self.head_mlp.first[0](self.relation[relation]))

    def tail_natural(self, head: Tensor, relation: Tensor) -> Tensor:
        of_head, of_relation = self.tail_mlp.first
        return self.tail_mlp.finish(of_head(self.vectors(head)) + of_relation(self.relation[relation]))

    def tail_natural_grid(self, head: Tensor, relation: Tensor) -> Tensor:
        of_head, of_relation = self.tail_mlp.first  # the first layer splits: W [e; r] = W_e e + W_r r
        return self.tail_mlp.finish(of_head(self.vectors(head))[:, None] + of_relation(self.relation[relation]))

    @property
    def table(self) -> Tensor:
        return self.entity


class Perceptron(nn.Module):
    """Two hidden layers of ReLU units; the first is kept in one piece per input, so that its pieces can be shared."""

    def __init__(self, inputs: Sequence[int], hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Linear(width, hidden, bias=i == 0) for i, width in enumerate(inputs))
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, out)
        self.dropout = nn.Dropout(dropout)

    def finish(self, first: Tensor) -> Tensor:
        """Return the output for the sum `first` (..., hidden) of the first layer's pieces, shape (..., out)."""
        hidden = self.dropout(F.relu(self.second(self.dropout(F.relu(first)))))
        result: Tensor = self.last(hidden)
        return result
