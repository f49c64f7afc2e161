"""Products of a few chosen pairs of rows, whose gradients are weighted sums of rows, without a gathered copy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, embedding_bag


def chosen_products(query: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """Return query_i . table[index_ij]: rows (N, m) and (E, m), index (N, K) to (N, K). Differentiable once."""
    result: Tensor = _ChosenProducts.apply(query, table, index)
    return result


class _ChosenProducts(torch.autograd.Function):
    """The gradients are S @ table and S.T @ query, S the sparse (N, E) matrix of the incoming gradients."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(query, table, index)
        return torch.bmm(embedding(index, table), query.unsqueeze(2)).squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        query, table, index = ctx.saved_tensors
        grad_query = embedding_bag(index, table, per_sample_weights=grad.contiguous(), mode="sum")
        column, order = index.flatten().sort(stable=True)
        starts = torch.searchsorted(column, torch.arange(len(table), device=index.device))
        weights = grad.flatten()[order]
        row = order.div(index.shape[1], rounding_mode="floor")
        return grad_query, embedding_bag(row, query, starts, per_sample_weights=weights, mode="sum"), None
