"""`linear_logsumexp` for callers: picks the implementation and knows the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.linear_logsumexp import chunked, naive

KEEP = 1 << 26  # scores (256 MiB of float32) up to which the forward's exponentials are kept for the backward


def linear_logsumexp(query: Tensor, table: Tensor, bias: Tensor | None = None) -> Tensor:
    """Log-partition of a linear score over a large table, with its gradient, without the scores where they are many.

        Z_i = log sum_e exp(query_i . table_e + bias_e)
        dZ_i/dquery_i = sum_e P_ie table_e,  dZ_i/dtable_e = P_ie query_i,  dZ_i/dbias_e = P_ie,  P = softmax

    Args:
        query: (N, d).
        table: (E, d), E > 0.
        bias: (E,) or none.

    Returns:
        (N,), differentiable in all arguments, twice if need be.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check(query, table, bias)
    if query.device.type != "cpu":
        return naive.linear_logsumexp(query, table, bias)
    if not torch.is_grad_enabled():
        return chunked.moments(query, table, bias, mean=False)[0]
    result: Tensor = _LinearLogSumExp.apply(query, table, bias)
    return result


@torch.no_grad()
def linear_logsumexp_mean(query: Tensor, table: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return Z as `linear_logsumexp` does, (N,), and its gradient in the query, the softmax mean of the table, (N, d).

    The pair is what the KL divergence of two members of an exponential family needs. Not differentiable.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check(query, table, bias)
    if query.device.type != "cpu":
        return naive.linear_logsumexp_mean(query, table, bias)
    lse, mean = chunked.moments(query, table, bias, mean=True)
    assert mean is not None
    return lse, mean


def _check(query: Tensor, table: Tensor, bias: Tensor | None) -> None:
    fits = query.ndim == table.ndim == 2 and query.shape[1] == table.shape[1] and len(table) > 0
    if not fits or (bias is not None and bias.shape != table.shape[:1]):
        shapes = tuple(query.shape), tuple(table.shape), None if bias is None else tuple(bias.shape)
        raise ValueError(f"expected query (N, d), table (E, d), bias (E,) or none, E > 0, got {shapes}")


class _LinearLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, bias: Tensor | None) -> Tensor:
        small = len(query) * len(table) <= KEEP and any(ctx.needs_input_grad)
        kept = _exponentials(query, table, bias) if small else None
        if kept is None:
            lse, _ = chunked.moments(query, table, bias, mean=False)
            ctx.save_for_backward(query, table, bias, lse, None, None)
        else:
            lse, weights, total = kept
            ctx.save_for_backward(query, table, bias, lse, weights, total)
        return lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        query, table, bias, lse, weights, total = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: the composite form knows it
            softmax = torch.exp((query @ table.mT if bias is None else query @ table.mT + bias) - lse[:, None])
            weighted = grad[:, None] * softmax
            return weighted @ table, weighted.mT @ query, None if bias is None else weighted.sum(dim=0)
        if weights is not None:
            return _gradients(weights, grad / total, query, table, bias)
        return _recomputed_gradients(grad, lse, query, table, bias)


def _exponentials(query: Tensor, table: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return Z (N,), the shifted exponentials (N, E) and their sums (N,), or none where the sums cannot be trusted."""
    joined, rows, shift = chunked.join(query, table, bias)
    weights = (rows @ joined.mT).exp_()
    total = weights.sum(dim=1)
    return (shift + total.log(), weights, total) if bool((total >= chunked.TRUSTED).all()) else None


def _gradients(
    weights: Tensor, scale: Tensor, query: Tensor, table: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients from exponentials (N, E) whose row i still wants the factor scale_i."""
    grad_query = (weights @ table).mul_(scale[:, None])
    grad_table = weights.mT @ (query * scale[:, None])
    return grad_query, grad_table, None if bias is None else weights.mT @ scale


def _recomputed_gradients(
    grad: Tensor, lse: Tensor, query: Tensor, table: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients tile by tile, each tile of the softmax made anew."""
    grad_query, grad_table = torch.zeros_like(query), torch.empty_like(table)
    grad_bias = None if bias is None else torch.empty_like(bias)
    for start in range(0, len(table), chunked.ENTRIES):
        piece = slice(start, start + chunked.ENTRIES)
        entries = table[piece]
        tile = query @ entries.mT
        if bias is not None:
            tile += bias[piece]
        tile.sub_(lse[:, None]).exp_().mul_(grad[:, None])
        grad_query.addmm_(tile, entries)
        grad_table[piece] = tile.mT @ query
        if grad_bias is not None:
            grad_bias[piece] = tile.sum(dim=0)
    return grad_query, grad_table, grad_bias
