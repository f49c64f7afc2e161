"""Scorers of relations between two entities, and what is known of which relations hold."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from lorentz.models import HyboNet
from relsim.kb import Triples


class TransE(nn.Module):
    """-|h + r - t|_2 + b_r (Bordes et al., 2013), with a bias for how frequent relations are."""

    def __init__(self, entities: int, relations: int, dim: int) -> None:
        super().__init__()
        self.entity, self.relation = nn.Embedding(entities, dim), nn.Embedding(relations, dim)
        self.bias = nn.Parameter(torch.zeros(relations))
        for table in (self.entity, self.relation):
            nn.init.uniform_(table.weight, -6 * dim**-0.5, 6 * dim**-0.5)

    def forward(self, h: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Return scores of pairs (B,), (B,) under relations (B, k), shape (B, k)."""
        gap = (self.entity(h) - self.entity(t))[:, None] + self.relation(r)
        return self.bias[r] - gap.norm(dim=-1)


class Hybo(nn.Module):
    """The score of HyboNet, tau_r (margin - |f_r(h) - t|_L^2) + b_t, plus b_r (Chen et al., ACL 2022)."""

    def __init__(self, entities: int, relations: int, dim: int) -> None:
        super().__init__()
        self.net = HyboNet(entities, relations, dim, std=0.1, sparse=False)
        self.bias = nn.Parameter(torch.zeros(relations))

    def forward(self, h: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Return scores of pairs (B,), (B,) under relations (B, k), shape (B, k)."""
        query = self.net.query(h.repeat_interleave(r.shape[1]), r.flatten()).unflatten(0, r.shape)
        return self.bias[r] + (query * self.net.table(t)[:, None]).sum(dim=-1)


class Known:
    """Which relations hold between h and t, for pairs that occur in some facts."""

    def __init__(self, facts: Triples, entities: int, relations: int) -> None:
        self._entities = entities
        self._keys, pair = np.unique(facts.head * entities + facts.tail, return_inverse=True)
        self._holds = csr_array((np.ones(len(pair), bool), (pair, facts.relation)), shape=(len(self._keys), relations))

    def of(self, head: Tensor, tail: Tensor) -> Tensor:
        """Return for pairs (B,), which must occur, whether each relation holds, (B, R)."""
        row = np.searchsorted(self._keys, (head * self._entities + tail).numpy())
        return torch.from_numpy(self._holds[row].toarray())
