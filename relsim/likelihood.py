"""The negative log-likelihood of facts, which training minimises and validation reports."""

from __future__ import annotations

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.grouping import Batch, GroupedFacts


def batch_nll(model: FactDistribution, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the sums over the batch's facts, each as often as it was stated, of -log p(h | r) and -log p(t | h, r)."""
    relation, which = batch.relation.unique(return_inverse=True)
    head = batch.weight @ -model.stated_head(relation, which, batch.head).to(batch.weight.dtype)
    group = torch.repeat_interleave(torch.arange(len(batch.sizes), device=batch.sizes.device), batch.sizes)
    of_tail = model.stated_tail(batch.head, batch.relation, group, batch.tail)
    return head, batch.counts @ -of_tail.to(batch.counts.dtype)


@torch.no_grad()
def negative_log_likelihood(model: FactDistribution, facts: GroupedFacts, chunk: int = 4096) -> tuple[float, float]:
    """Return the mean of -log p(h | r) and of -log p(t | h, r) over stated facts, in nats per fact."""
    training = model.training
    model.eval()
    head = tail = 0.0
    for groups in torch.arange(len(facts), device=facts.head.device).split(chunk):
        of_head, of_tail = batch_nll(model, facts.batch(groups))
        head, tail = head + of_head.item(), tail + of_tail.item()
    model.train(training)
    return head / facts.total, tail / facts.total
