"""What the trained distributions share: vectors of entities and relations, output biases, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from relsim.distribution import FactDistribution

if TYPE_CHECKING:
    from relsim.kb import Triples

ENTITY_ROWS = ("entity", "head_bias", "tail_bias")
"""The parameters that have a row for each entity."""


class NeuralDistribution(FactDistribution):
    """A fact distribution with vectors of entities and relations from which its natural parameters are computed.

    Args:
        dim: the width of entity and relation vectors.
        hidden: the width of the hidden layers.
        bias: learn the output biases a and b of both conditionals.
        dropout: on the hidden layers, in training.
    """

    head_bias: Tensor | None
    tail_bias: Tensor | None

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

    @torch.no_grad()
    def start_from(self, facts: Triples) -> None:
        """Set the output biases to smoothed log-frequencies, which training would first spend an epoch to find."""
        for bias, entity in ((self.head_bias, facts.head), (self.tail_bias, facts.tail)):
            if bias is not None:
                start = log_frequency(entity, facts, len(self.entities))
                bias.copy_(start - start.mean())

    def vectors(self, entity: Tensor) -> Tensor:
        """Return the vectors of entities (n,) as input, shape (n, dim)."""
        return self.entity[entity]

    def extra_repr(self) -> str:
        return ", ".join([super().extra_repr(), *(f"{key}={value}" for key, value in self.config().items())])


def log_frequency(entity: NDArray[np.int64], facts: Triples, entities: int) -> Tensor:
    """Return log(count + 1/2) for every entity, (E,), the count being how often facts with it there were stated."""
    count = torch.from_numpy(entity).bincount(torch.from_numpy(facts.count), entities)
    return (count + 0.5).log()
