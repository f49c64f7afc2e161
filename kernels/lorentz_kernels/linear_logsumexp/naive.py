"""The specification of `linear_logsumexp`: the log-partition of a linear score over a table, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_logsumexp(query: Tensor, table: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return Z_i = log sum_e exp(query_i . table_e + bias_e), shape (N,)."""
    return torch.logsumexp(_logits(query, table, bias), dim=-1)


def linear_logsumexp_mean(query: Tensor, table: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return Z as above, shape (N,), and the mean of the table under the softmax, grad_query Z, shape (N, d)."""
    logits = _logits(query, table, bias)
    return torch.logsumexp(logits, dim=-1), torch.softmax(logits, dim=-1) @ table


def _logits(query: Tensor, table: Tensor, bias: Tensor | None) -> Tensor:
    logits = query @ table.mT  # (N, d) x (d, E) -> (N, E)
    return logits if bias is None else logits + bias
