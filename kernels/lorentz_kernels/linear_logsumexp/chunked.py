"""The plain torch form of `linear_logsumexp`: tiles of scores, reduced as they come; on a CPU they stay in the cache.

A tile costs one matrix product and one exponential: times, bias and a shift of each row ride in columns joined to the
product. The shift comes from an upper bound of the row's scores, so exp cannot overflow; where the bound is so loose
that a sum comes near underflow, the block is done again with its true maxima.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lorentz_kernels.score import Score, query_columns, table_columns, table_times

JOINED = 16  # tiles of entries whose columns are joined at a time, for all queries
HEADROOM = 60.0  # scores up to this cannot overflow exp in float32, nor can their sum over 2**30 entries
TRUSTED = 1e-20  # a sum this large lost nothing to underflow: terms below 1e-38 of 2**30 entries are 1e-9 of it


class Tile(NamedTuple):
    """Rows and entries whose scores are held at a time."""

    rows: int
    entries: int


ON_CPU = Tile(1024, 384)  # 1.5 MiB in float32: measured best of 64..2048 x 256..14541 on AVX2 cores
ON_GPU = Tile(4096, 8192)  # 128 MiB: a product that fills the GPU, and few launches


def _tile(x: Tensor) -> Tile:
    return ON_CPU if x.device.type == "cpu" else ON_GPU


def moments(score: Score, *, mean: bool) -> tuple[Tensor, Tensor]:
    """Return the log-partition (N,) and the softmax mean of the table (N, k), of no rows where it is not asked for."""
    shift, width = _shifts(score), score.table.shape[1]
    rows, times = query_columns(score, shift), table_times(score)
    lse = rows.new_empty(len(rows))
    average = rows.new_empty(len(rows) if mean else 0, rows.shape[1] - 2)
    all_sums, all_weighted = _sums(rows, score, times, mean)
    for block in _blocks(rows):
        sums, weighted = all_sums[:, block], all_weighted[block]
        if _trusted(sums[0]):
            lse[block] = shift[block] + sums[0].log()
        else:
            lse[block], sums, weighted = _sums_with_maximum(rows[block, :-1], score, times, mean)
        if mean:
            total = sums[0].clamp_min(torch.finfo(sums.dtype).tiny)
            torch.div(weighted, total[:, None], out=average[block, :width])
            average[block, width:] = (sums[1:] / total).mT
    return lse, average


def table_gradient(score: Score, lse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient in the table (E, d), and what else the softmax P gives for each entry, (E, 1) or (E, 2).

    That is sum_i grad_i P_ie, and before it the gradient in the entry's time, which the table's contains. Each tile of
    P is made anew.
    """
    # A row without any entry has P = 0, which any finite log-partition says.
    rows = query_columns(score, torch.where(lse == -torch.inf, 0.0, lse))
    weighted = (grad[:, None] * rows[:, :-1]).mT.contiguous()  # (k + 1, N): few rows times many columns is fastest
    (entries, width), times = score.table.shape, table_times(score)
    grad_table = rows.new_empty(entries, width)
    rest = rows.new_empty(entries, len(weighted) - width)
    size = min(entries, max(64, math.prod(_tile(rows)) // max(len(rows), 1)))
    buffer = rows.new_empty(len(rows) * size)
    for start in range(0, entries, size):
        piece = slice(start, start + size)
        table = table_columns(score, times, piece, shifted=True)
        found = (weighted @ _product(rows, table, buffer).exp_()).mT
        grad_table[piece], rest[piece] = found[:, :width], found[:, width:]
        if times is not None:  # dx0/dx = x / x0
            grad_table[piece].addcmul_(table[:, :width], rest[piece, :1] / times[piece])
    return grad_table, rest


def _shifts(score: Score) -> Tensor:
    """Return for each row (N,) a number that its scores can be lowered by: no sum overflows then, few underflow.

    It is what an upper bound of the scores has above `HEADROOM`, or all of it where it is negative. The bound is that
    of Cauchy and Schwarz, plus the largest bias. Of two points it bounds <q, t> by |q| |t| - q0 t0, which is largest,
    -1/c, at |t| = |q|: a table that lies nearer to the origin than the query, or farther, stays below that.
    """
    wider = score.scale.dtype
    length, lengths = (part.norm(dim=1, dtype=wider) for part in (score.query, score.table))
    longest = lengths.amax()
    bound = score.scale.abs() * length * longest
    if score.squared_radius is not None:
        radius = score.squared_radius.sqrt()
        at = torch.minimum(torch.maximum(length, lengths.amin()), longest)
        ceiling = length * at - torch.hypot(length, radius) * torch.hypot(at, radius)
        steepest = 2 * score.scale.abs() * torch.hypot(length, radius) * torch.hypot(longest, radius)
        bound = torch.where(score.scale >= 0, score.scale * ceiling.clamp_max(-score.squared_radius), steepest)
    if score.bias is not None:
        bound = bound + score.bias.amax().clamp_min(torch.finfo(wider).min)
    return (bound - HEADROOM).clamp_min(0) + bound.clamp_max(0)


def _trusted(total: Tensor) -> bool:
    """Whether sums of shifted exponentials lost nothing to underflow or overflow."""
    return bool(((total >= TRUSTED) & (total < torch.inf)).all())


def _sums(rows: Tensor, score: Score, times: Tensor | None, mean: bool) -> tuple[Tensor, Tensor]:
    """Return sum_e exp(rows_i . table_e) times one, and its time if there is a mean and a time, (1 or 2, N).

    And the same times the table, (N, d), of no rows without a mean.
    """
    sums, weighted, buffer = _empty_sums(rows, score, mean)
    entries = _tile(rows).entries
    for start in range(0, len(score.table), JOINED * entries):
        joined = table_columns(score, times, slice(start, start + JOINED * entries), shifted=True)
        for block in _blocks(rows):
            for table in joined.split(entries):
                tile = _product(rows[block], table, buffer).exp_()
                _accumulate(sums[:, block], weighted[block], tile, table)
    return sums, weighted


def _sums_with_maximum(rows: Tensor, score: Score, times: Tensor | None, mean: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-partitions (N,) and both sums for rows whose scores span too much.

    An online softmax: Milakov and Gimelshein, Online Normalizer Calculation for Softmax, 2018.
    """
    sums, weighted, buffer = _empty_sums(rows, score, mean)
    top = rows.new_full((len(rows),), torch.finfo(rows.dtype).min)
    entries = _tile(rows).entries
    for start in range(0, len(score.table), entries):
        table = table_columns(score, times, slice(start, start + entries))
        tile = _product(rows, table, buffer)
        raised = torch.maximum(top, tile.amax(dim=1))
        shrink = torch.exp(top - raised)
        sums.mul_(shrink)
        weighted.mul_(shrink[: len(weighted), None])
        _accumulate(sums, weighted, tile.sub_(raised[:, None]).exp_(), table)
        top = raised
    return top + sums[0].log(), sums, weighted


def _empty_sums(rows: Tensor, score: Score, mean: bool) -> tuple[Tensor, Tensor, Tensor]:
    timed = mean and score.squared_radius is not None
    weighted = rows.new_zeros(len(rows) if mean else 0, score.table.shape[1])
    tile = _tile(rows)
    buffer = rows.new_empty(min(tile.rows, len(rows)) * min(tile.entries, len(score.table)))
    return rows.new_zeros(1 + timed, len(rows)), weighted, buffer


def _blocks(rows: Tensor) -> list[slice]:
    size = _tile(rows).rows
    return [slice(start, start + size) for start in range(0, len(rows), size)]


def _accumulate(sums: Tensor, weighted: Tensor, tile: Tensor, table: Tensor) -> None:
    width = weighted.shape[1]
    if len(weighted):
        weighted.addmm_(tile, table[:, :width])
    if len(sums) == 1:
        sums += tile.sum(dim=1)
    else:  # few rows times many columns cost no more than a sum; one column more in the product above is half as much
        times = table[:, width]
        sums.addmm_(torch.stack([torch.ones_like(times), times]), tile.mT)


def _product(rows: Tensor, entries: Tensor, buffer: Tensor) -> Tensor:
    return torch.mm(rows, entries.mT, out=buffer[: len(rows) * len(entries)].view(len(rows), len(entries)))
