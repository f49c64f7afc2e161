"""Sums over a block of scores some of which are changed, with one buffer for both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus


def block_sums(query: Tensor, table: Tensor, row: Tensor, column: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\log \sum_j e^{s_{ij}}` and :math:`\sum_j \log(1 + e^{s_{ij}})`, s = q_i . t_j + a_ij.

    a is zero but at the places given.

    Args:
        query: (N, m).
        table: (S, m).
        row, column, added: the places, (P,), which may repeat, and what is added there.

    Returns:
        Two of (N,), differentiable once in `query`, `table` and `added`.
    """
    norm, positive = _BlockSums.apply(query, table, row, column, added)
    return norm, positive


class _BlockSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, table: Tensor, row: Tensor, column: Tensor, added: Tensor
    ) -> tuple[Tensor, Tensor]:
        score = query @ table.mT
        score.index_put_((row, column), added, accumulate=True)
        norm = score.logsumexp(dim=1)
        ctx.save_for_backward(query, table, row, column, score, norm)
        return norm, softplus(score).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_norm: Tensor, of_positive: Tensor) -> tuple[Tensor, Tensor, None, None, Tensor]:
        query, table, row, column, score, norm = ctx.saved_tensors
        weight = (score - norm[:, None]).exp_().mul_(of_norm[:, None]).addcmul_(score.sigmoid(), of_positive[:, None])
        return weight @ table, weight.mT @ query, None, None, weight[row, column]
