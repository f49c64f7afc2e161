"""A matrix for each row, chosen from a few: one product per matrix instead of a gathered copy per row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def grouped_linear(x: Tensor, weight: Tensor, group: Tensor) -> Tensor:
    """Return W[group_i] x_i: rows (N, n), matrices (G, m, n), group (N,) to (N, m).

    Rows of a group share a product, so nothing of N x m x n numbers is made. Differentiable once.
    """
    result: Tensor = _GroupedLinear.apply(x, weight, group)
    return result


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, group: Tensor) -> Tensor:
        ordered, order = group.sort(stable=True)
        present, sizes = ordered.unique_consecutive(return_counts=True)
        ctx.parts = list(zip(present.tolist(), order.split(sizes.tolist()), strict=True))
        ctx.save_for_backward(x, weight)
        y = x.new_empty(len(x), weight.shape[1])
        for g, rows in ctx.parts:
            y[rows] = x[rows] @ weight[g].mT
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        for g, rows in ctx.parts:
            part = grad[rows]
            grad_x[rows] = part @ weight[g]
            torch.mm(part.mT, x[rows], out=grad_weight[g])
        return grad_x, grad_weight, None
