"""Log-partitions of a softmax within classes of equal size: of all classes, or of the few that are asked for."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ENTRIES = 1 << 20  # of a tile of scores: 4 MiB of float32


def class_slices(entities: int, size: int) -> list[slice]:
    """Cut rows `0 .. entities - 1` into classes of `size` rows; the last may be smaller."""
    return [slice(start, min(start + size, entities)) for start in range(0, entities, size)]


def all_classes(query: Tensor, table: Tensor, bias: Tensor | None, size: int) -> Tensor:
    """Return Z_c = log sum_{e in c} exp(u . s_e + b_e) for rows u (n, k) and every class c of `size` rows, (n, C)."""
    step = max(1, ENTRIES // (size * max(len(query), 1))) * size
    parts = []
    for rows in class_slices(len(table), step):
        score = F.linear(query, table[rows], None if bias is None else bias[rows])
        score = F.pad(score, (0, -score.shape[1] % size), value=-torch.inf)
        parts.append(torch.logsumexp(score.unflatten(1, (-1, size)), dim=-1))
    return torch.cat(parts, dim=1)


def class_mean(query: Tensor, log_weight: Tensor, table: Tensor, bias: Tensor | None, size: int) -> Tensor:
    """Return sum_c sum_{e in c} exp(u . s_e + b_e + w_c) s_e for rows u (n, k) and log-weights w (n, C), (n, k)."""
    step = max(1, ENTRIES // (size * max(len(query), 1))) * size
    mean = torch.zeros_like(query)
    for rows in class_slices(len(table), step):
        score = F.linear(query, table[rows], None if bias is None else bias[rows])
        shift = log_weight[:, rows.start // size : -(-rows.stop // size)].repeat_interleave(size, dim=1)
        mean += score.add_(shift[:, : score.shape[1]]).exp_() @ table[rows]
    return mean


def log_within(query: Tensor, which: Tensor, row: Tensor, table: Tensor, bias: Tensor | None, size: int) -> Tensor:
    """Return u . s_e + b_e - Z_c(u) for entities e in rows (m,) of the table, c the class of e, u = query[which], (m,).

    Differentiable. Each class that occurs costs a product with its rows of the table, for all u that ask for it.
    """
    offset = table.new_zeros(len(table)) if bias is None else bias
    result: Tensor = _LogWithin.apply(query, which, row, table, offset, size)
    return result


class _LogWithin(torch.autograd.Function):
    """Scores and log-partitions with one gradient of the table: a slice of autograd's would cost a table each."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, which: Tensor, row: Tensor, table: Tensor, bias: Tensor, size: int) -> Tensor:
        pair, fact = (row // size * len(query) + which).unique(return_inverse=True)  # in increasing order of classes
        asked = pair % len(query)
        ctx.pieces = _pieces(pair // len(query), len(table), size)
        partition = query.new_empty(len(pair))
        for mine, rows in ctx.pieces:
            partition[mine] = torch.logsumexp(torch.addmm(bias[rows], query[asked[mine]], table[rows].mT), dim=1)
        ctx.save_for_backward(query, which, row, table, bias, asked, fact, partition)
        return (query[which] * table[row]).sum(dim=1) + bias[row] - partition[fact]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, which, row, table, bias, asked, fact, partition = ctx.saved_tensors
        of_query, of_table, of_bias = (torch.zeros_like(value) for value in (query, table, bias))
        of_partition = torch.zeros_like(partition).index_add_(0, fact, -grad)
        for mine, rows in ctx.pieces:
            some = asked[mine]
            score = torch.addmm(bias[rows], query[some], table[rows].mT)
            weight = score.sub_(partition[mine, None]).exp_().mul_(of_partition[mine, None])
            of_query.index_add_(0, some, weight @ table[rows])
            of_table[rows] = weight.mT @ query[some]
            of_bias[rows] = weight.sum(dim=0)
        of_query.index_add_(0, which, grad[:, None] * table[row])
        of_table.index_add_(0, row, grad[:, None] * query[which])
        of_bias.index_add_(0, row, grad)
        return of_query, None, None, of_table, of_bias, None


def _pieces(which: Tensor, entities: int, size: int) -> list[tuple[slice, slice]]:
    """For each class that occurs, in increasing order: the rows of the query and those of the table."""
    found, counts = torch.unique_consecutive(which, return_counts=True)
    ends = counts.cumsum(0).tolist()
    return [
        (slice(end - count, end), slice(c * size, min((c + 1) * size, entities)))
        for c, count, end in zip(found.tolist(), counts.tolist(), ends, strict=True)
    ]
