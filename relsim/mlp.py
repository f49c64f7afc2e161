"""The neural fact distribution of the 2019 paper: entity and relation vectors, two perceptrons, tied output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relsim.distribution import TableDistribution


class MLPDistribution(TableDistribution):
    """p(h|r) = softmax_h(f(r) . e_h + a_h), p(t|h,r) = softmax_t(g(h, r) . e_t + b_t) (arXiv:1907.08937, Eq. 4, 5).

    f and g are perceptrons with two hidden layers on the vectors of the relation, and of the head and the relation; the
    entity vectors e serve as input and as output.

    Args:
        dim: the width of entity and relation vectors.
        hidden: the width of both hidden layers of f and g.
        bias: learn the output biases a and b; False is the paper's exact form.
        dropout: on the hidden layers, in training.
    """

    kind = "mlp"

    def __init__(
        self,
        entities: Sequence[str],
        relations: Sequence[str],
        support: Tensor | None = None,
        *,
        dim: int = 64,
        hidden: int = 1024,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(entities, relations, support)
        self.dim, self.hidden, self.dropout = dim, hidden, dropout
        self.entity = nn.Parameter(torch.randn(len(self.entities), dim) * dim**-0.5)
        self.relation = nn.Parameter(torch.randn(len(self.relations), dim) * dim**-0.5)
        self.head_mlp = _Perceptron([dim], hidden, dim, dropout)
        self.tail_mlp = _Perceptron([dim, dim], hidden, dim, dropout)
        self.head_bias = nn.Parameter(torch.zeros(len(self.entities))) if bias else None
        self.tail_bias = nn.Parameter(torch.zeros(len(self.entities))) if bias else None

    def config(self) -> dict[str, Any]:
        return {
            "dim": self.dim,
            "hidden": self.hidden,
            "bias": self.head_bias is not None,
            "dropout": self.dropout,
        }

    def head_natural(self, relation: Tensor) -> Tensor:
        return self.head_mlp.finish(self.head_mlp.first[0](self.relation[relation]))

    def tail_natural(self, head: Tensor, relation: Tensor) -> Tensor:
        of_head, of_relation = self.tail_mlp.first
        return self.tail_mlp.finish(of_head(self.entity[head]) + of_relation(self.relation[relation]))

    def tail_natural_grid(self, head: Tensor, relation: Tensor) -> Tensor:
        of_head, of_relation = self.tail_mlp.first  # the first layer splits: W [e; r] = W_e e + W_r r
        return self.tail_mlp.finish(of_head(self.entity[head])[:, None] + of_relation(self.relation[relation]))

    @property
    def table(self) -> Tensor:
        return self.entity

    def extra_repr(self) -> str:
        return ", ".join([super().extra_repr(), *(f"{key}={value}" for key, value in self.config().items())])


class _Perceptron(nn.Module):
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
