"""The 2019 paper transcribed as directly as it reads: what relsim is measured against.

Written from the formulas of arXiv:1907.08937: Eq. 6 for training, section 3.2 for the divergence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relsim.kb import Triples
from relsim.mlp import MLPDistribution


@torch.no_grad()
def divergence_row(model: MLPDistribution, a: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """KL(a || b) for all b from `samples` draws (h, t) ~ p_a: the mean of log p_a(h, t) - log p_b(h, t), and its error.

    Every p_b(t | h) is a softmax over all entities.
    """
    relations = torch.arange(len(model.relations))
    log_head = torch.log_softmax(model.head_logits(model.head_natural(relations)), dim=-1)
    heads = torch.multinomial(log_head[a].exp(), samples, replacement=True, generator=generator)
    ratios = []
    for head in heads:
        natural = model.tail_natural(head.expand(len(relations)), relations)
        log_tail = torch.log_softmax(model.tail_logits(natural), dim=-1)  # (R, E)
        tail = torch.multinomial(log_tail[a].exp(), 1, generator=generator)
        joint = log_head[:, head] + log_tail[:, tail].squeeze(1)
        ratios.append(joint[a] - joint)
    ratio = torch.stack(ratios)
    return ratio.mean(dim=0), ratio.std(dim=0) / samples**0.5


def training_epoch(model: MLPDistribution, facts: Triples, batch: int, share: float) -> float:
    """The first `share` of an epoch of Eq. 6: for each fact a softmax over all heads and one over all tails."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    order = torch.randperm(len(facts))[: int(share * len(facts))]
    columns = [torch.from_numpy(column) for column in (facts.head, facts.relation, facts.tail)]
    total = 0.0
    for rows in order.split(batch):
        head, relation, tail = (column[rows] for column in columns)
        of_head = F.cross_entropy(model.head_logits(model.head_natural(relation)), head)
        of_tail = F.cross_entropy(model.tail_logits(model.tail_natural(head, relation)), tail)
        optimiser.zero_grad()
        (of_head + of_tail).backward()
        optimiser.step()
        total += (of_head + of_tail).item()
    return total
