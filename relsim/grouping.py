"""Training facts grouped by (head, relation): facts of one group share a softmax, so the objective costs a row each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from relsim.kb import Triples


class Batch(NamedTuple):
    """G groups of F facts in all: `head`, `relation`, `weight` (G,); `tail`, `counts` (F,); `sizes` (G,) add to F."""

    head: Tensor
    relation: Tensor
    weight: Tensor
    tail: Tensor
    counts: Tensor
    sizes: Tensor


class GroupedFacts:
    """Facts sorted into groups of equal (head, relation); `len` is the number of groups, `total` the sum of counts."""

    def __init__(self, facts: Triples, device: torch.device | None = None) -> None:
        order = np.lexsort((facts.tail, facts.head, facts.relation))
        head, relation = facts.head[order], facts.relation[order]
        first = np.ones(len(facts), dtype=bool)
        first[1:] = (head[1:] != head[:-1]) | (relation[1:] != relation[:-1])
        starts = np.flatnonzero(first)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self.head, self.relation = tensor(head[starts]), tensor(relation[starts])
        self.tail, self.count = tensor(facts.tail[order]), tensor(facts.count[order]).float()
        self.starts = tensor(np.append(starts, len(facts)))
        self.total = facts.total

    def __len__(self) -> int:
        return len(self.head)

    def batch(self, groups: Tensor) -> Batch:
        """Gather the facts of `groups` (G,)."""
        sizes = self.starts[groups + 1] - self.starts[groups]
        offsets = torch.cumsum(sizes, 0) - sizes
        members = torch.repeat_interleave(self.starts[groups] - offsets, sizes)
        members = members + torch.arange(len(members), device=members.device)
        count = self.count[members]
        weight = torch.zeros(len(groups), device=count.device)
        weight.index_add_(0, torch.repeat_interleave(torch.arange(len(groups), device=count.device), sizes), count)
        return Batch(self.head[groups], self.relation[groups], weight, self.tail[members], count, sizes)
