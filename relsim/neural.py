"""What the trained distributions share: vectors of entities and relations, output biases, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from relsim.distribution import TableDistribution

ENTITY_ROWS = ("entity", "head_bias", "tail_bias")
"""The parameters that have a row for each entity."""


class NeuralDistribution(TableDistribution):
    """A fact distribution with vectors of entities and relations from which its natural parameters are computed.

    Args:
        dim: the width of entity and relation vectors.
        hidden: the width of the hidden layers.
        bias: learn the output biases a and b of both conditionals.
        dropout: on the hidden layers, in training.
    """

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
        self.head_bias = nn.Parameter(torch.zeros(len(self.entities))) if bias else None
        self.tail_bias = nn.Parameter(torch.zeros(len(self.entities))) if bias else None

    def config(self) -> dict[str, Any]:
        return {
            "dim": self.dim,
            "hidden": self.hidden,
            "bias": self.head_bias is not None,
            "dropout": self.dropout,
        }

    def vectors(self, entity: Tensor) -> Tensor:
        """Return the vectors of entities (n,) as input, shape (n, dim)."""
        return self.entity[entity]

    def extra_repr(self) -> str:
        return ", ".join([super().extra_repr(), *(f"{key}={value}" for key, value in self.config().items())])
