"""The log-partition of a block of scores some of which are changed, with one buffer for both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def changed_logsumexp(query: Tensor, table: Tensor, row: Tensor, column: Tensor, added: Tensor) -> Tensor:
    r"""Return :math:`\log \sum_j \exp(q_i \cdot t_j + a_{ij})`, where a is zero but at the places given.

    Args:
        query: (N, m).
        table: (S, m).
        row, column, added: the places, (P,), which may repeat, and what is added there.

    Returns:
        (N,), differentiable once in `query`, `table` and `added`.
    """
    result: Tensor = _ChangedLogSumExp.apply(query, table, row, column, added)
    return result


class _ChangedLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, row: Tensor, column: Tensor, added: Tensor) -> Tensor:
        score = query @ table.mT
        score.index_put_((row, column), added, accumulate=True)
        top = score.amax(dim=1)
        total = score.sub_(top[:, None]).exp_().sum(dim=1)
        ctx.save_for_backward(query, table, row, column, score, total)
        return top + total.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, Tensor]:
        query, table, row, column, weight, total = ctx.saved_tensors
        scale = (grad / total)[:, None]
        grad_added = weight[row, column] * scale[row, 0]
        return (weight @ table) * scale, weight.mT @ (query * scale), None, None, grad_added
