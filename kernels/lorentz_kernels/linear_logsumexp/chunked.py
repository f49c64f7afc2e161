"""The plain torch form of `linear_logsumexp`: tiles of scores that fit the cache, reduced before they reach memory.

A tile costs one matrix product and one exponential: times, bias and a shift of each row ride in columns joined to the
product. The shift comes from an upper bound of the row's scores, so exp cannot overflow; where the bound is so loose
that a sum comes near underflow, the block is done again with its true maxima.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz_kernels.score import Score, columns

ROWS, ENTRIES = 1024, 384  # a float32 tile of 1.5 MiB: measured best of 64..2048 x 256..14541 on AVX2 cores
HEADROOM = 60.0  # scores up to this cannot overflow exp in float32, nor can their sum over 2**30 entries
TRUSTED = 1e-20  # a sum this large lost nothing to underflow: terms below 1e-38 of 2**30 entries are 1e-9 of it


def moments(score: Score, *, mean: bool) -> tuple[Tensor, Tensor]:
    """Return the log-partition (N,) and the softmax mean of the table (N, k), of no rows where it is not asked for."""
    shift = _shifts(score)
    rows, entries = columns(score, shift)
    lse = rows.new_empty(len(rows))
    average = rows.new_empty(len(rows) if mean else 0, entries.shape[1] - 2)
    for start in range(0, len(rows), ROWS):
        block = slice(start, start + ROWS)
        total, weighted = _sums(rows[block], entries, mean)
        if _trusted(total):
            lse[block] = shift[block] + total.log()
        else:
            lse[block], total, weighted = _sums_with_maximum(rows[block, :-1], entries[:, :-1], mean)
        if mean:
            average[block] = weighted.div_(total[:, None])
    return lse, average


def table_gradient(score: Score, lse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient in the table (E, d), and what else the softmax P gives for each entry, (E, 1) or (E, 2).

    That is sum_i grad_i P_ie, and before it the gradient in the entry's time, which the table's contains. Each tile of
    P is made anew.
    """
    # A row without any entry has P = 0, which any finite log-partition says.
    rows, entries = columns(score, torch.where(lse == -torch.inf, 0.0, lse))
    weighted = (grad[:, None] * rows[:, :-1]).mT.contiguous()  # (k + 1, N): few rows times many columns is fastest
    width = score.table.shape[1]
    grad_table = rows.new_empty(len(entries), width)
    rest = rows.new_empty(len(entries), len(weighted) - width)
    size = max(64, ROWS * ENTRIES // max(len(rows), 1))
    buffer = rows.new_empty(len(rows) * min(size, len(entries)))
    for start in range(0, len(entries), size):
        piece = slice(start, start + size)
        tile = _product(rows, entries[piece], buffer).exp_()
        found = (weighted @ tile).mT
        grad_table[piece], rest[piece] = found[:, :width], found[:, width:]
        if score.squared_radius is not None:  # dx0/dx = x / x0
            space, its_time = entries[piece, :width], entries[piece, width : width + 1]
            grad_table[piece].addcmul_(space, found[:, width : width + 1] / its_time)
    return grad_table, rest


def _shifts(score: Score) -> Tensor:
    """Return for each row (N,) a number that its scores can be lowered by: no sum overflows then, few underflow.

    It is what an upper bound of the scores has above `HEADROOM`, or all of it where it is negative. The bound is that
    of Cauchy and Schwarz, or of the product's ceiling where that is known, plus the largest bias.
    """
    wider = score.scale.dtype
    length, longest = (part.norm(dim=1, dtype=wider) for part in (score.query, score.table))
    bound = score.scale.abs() * length * longest.amax()
    if score.squared_radius is not None:  # the product of two points is at most -1/c
        radius = score.squared_radius.sqrt()
        steepest = 2 * score.scale.abs() * torch.hypot(length, radius) * torch.hypot(longest.amax(), radius)
        bound = torch.where(score.scale >= 0, -score.scale * score.squared_radius, steepest)
    if score.bias is not None:
        bound = bound + score.bias.amax().clamp_min(torch.finfo(wider).min)
    return (bound - HEADROOM).clamp_min(0) + bound.clamp_max(0)


def _trusted(total: Tensor) -> bool:
    """Whether sums of shifted exponentials lost nothing to underflow or overflow."""
    return bool(((total >= TRUSTED) & (total < torch.inf)).all())


def _sums(rows: Tensor, entries: Tensor, mean: bool) -> tuple[Tensor, Tensor]:
    """Return sum_e exp(rows_i . entries_e), (N,), and sum_e exp(rows_i . entries_e) statistics_e, (N, k)."""
    total = rows.new_zeros(len(rows))
    weighted = rows.new_zeros(len(rows) if mean else 0, entries.shape[1] - 2)  # without bias and one
    buffer = rows.new_empty(len(rows) * min(ENTRIES, len(entries)))
    for start in range(0, len(entries), ENTRIES):
        tile = _product(rows, entries[start : start + ENTRIES], buffer).exp_()
        total += tile.sum(dim=1)
        if mean:
            _accumulate(weighted, tile, entries[start : start + ENTRIES])
    return total, weighted


def _sums_with_maximum(rows: Tensor, entries: Tensor, mean: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-partitions and both sums for rows whose scores span too much.

    An online softmax: Milakov and Gimelshein, Online Normalizer Calculation for Softmax, 2018.
    """
    top = rows.new_full((len(rows),), torch.finfo(rows.dtype).min)
    total = rows.new_zeros(len(rows))
    weighted = rows.new_zeros(len(rows) if mean else 0, entries.shape[1] - 1)
    buffer = rows.new_empty(len(rows) * min(ENTRIES, len(entries)))
    for start in range(0, len(entries), ENTRIES):
        tile = _product(rows, entries[start : start + ENTRIES], buffer)
        raised = torch.maximum(top, tile.amax(dim=1))
        shrink = torch.exp(top - raised)
        tile.sub_(raised[:, None]).exp_()
        total = total * shrink + tile.sum(dim=1)
        if mean:
            _accumulate(weighted.mul_(shrink[:, None]), tile, entries[start : start + ENTRIES])
        top = raised
    return top + total.log(), total.clamp_min(torch.finfo(total.dtype).tiny), weighted


def _product(rows: Tensor, entries: Tensor, buffer: Tensor) -> Tensor:
    return torch.mm(rows, entries.mT, out=buffer[: len(rows) * len(entries)].view(len(rows), len(entries)))


def _accumulate(weighted: Tensor, tile: Tensor, entries: Tensor) -> None:
    """Add tile @ entries, as far as `weighted` has columns: an odd one alone, since it would slow the product down."""
    even = weighted.shape[1] // 2 * 2
    weighted[:, :even].addmm_(tile, entries[:, :even])
    if even < weighted.shape[1]:
        weighted[:, even].addmv_(tile, entries[:, even])
