"""The CPU form of `linear_logsumexp`: tiles of scores that fit the cache, reduced before they reach memory.

A tile costs one matrix product and one exponential: the bias and a shift of each row ride in two columns joined to the
product. The shift comes from an upper bound of the row's scores, so exp cannot overflow; where the bound is so loose
that a sum comes near underflow, the block is done again with its true maxima.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, ENTRIES = 1024, 384  # a float32 tile of 1.5 MiB: measured best of 64..2048 x 256..14541 on AVX2 cores
HEADROOM = 60.0  # scores up to this cannot overflow exp in float32, nor can their sum over 2**30 entries
TRUSTED = 1e-20  # a sum this large lost nothing to underflow: terms below 1e-38 of 2**30 entries are 1e-9 of it


def moments(query: Tensor, table: Tensor, bias: Tensor | None, *, mean: bool) -> tuple[Tensor, Tensor | None]:
    """Return the log-partition (N,) and, where asked for, the softmax mean of the table (N, d); no gradient."""
    lse = query.new_empty(len(query))
    average = torch.empty_like(query) if mean else None
    joined, rows, shift = join(query, table, bias)
    for start in range(0, len(query), ROWS):
        block = slice(start, start + ROWS)
        total, weighted = _sums(rows[block], joined, table if mean else None)
        if not bool((total >= TRUSTED).all()):
            lse[block], weighted = _with_maximum(query[block], table, bias, mean)
        else:
            lse[block] = shift[block] + total.log()
            weighted = None if weighted is None else weighted / total[:, None]
        if average is not None and weighted is not None:
            average[block] = weighted
    return lse, average


def join(query: Tensor, table: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return (table, bias, 1), (E, d + 2), and (query, 1, -shift), (N, d + 2), whose product is the shifted scores.

    The shift (N,) is what the Cauchy-Schwarz bound |query_i| max_e |table_e| + max_e bias_e has above `HEADROOM`.
    """
    offset = table.new_zeros(len(table), 1) if bias is None else bias[:, None]
    joined = torch.cat([table, offset, torch.ones_like(offset)], dim=1)
    bound = query.norm(dim=1) * table.norm(dim=1).amax() + offset.amax()
    shift = (bound - HEADROOM).clamp(min=0)
    return joined, torch.cat([query, torch.ones_like(shift)[:, None], -shift[:, None]], dim=1), shift


def _sums(rows: Tensor, joined: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return sum_e exp(rows_i . joined_e), (N,), and, given the table, sum_e exp(rows_i . joined_e) table_e, (N, d)."""
    total = rows.new_zeros(len(rows))
    weighted = None if table is None else rows.new_zeros(len(rows), table.shape[1])
    buffer = rows.new_empty(len(rows) * min(ENTRIES, len(joined)))
    for start in range(0, len(joined), ENTRIES):
        entries = joined[start : start + ENTRIES]
        tile = buffer[: len(rows) * len(entries)].view(len(rows), len(entries))
        total += torch.mm(rows, entries.mT, out=tile).exp_().sum(dim=1)
        if weighted is not None and table is not None:
            weighted.addmm_(tile, table[start : start + ENTRIES])
    return total, weighted


def _with_maximum(query: Tensor, table: Tensor, bias: Tensor | None, mean: bool) -> tuple[Tensor, Tensor | None]:
    """The same for a block of rows whose scores span too much: an online softmax (Milakov and Gimelshein, 2018)."""
    top = query.new_full((len(query),), -torch.inf)
    total = query.new_zeros(len(query))
    weighted = torch.zeros_like(query)
    for start in range(0, len(table), ENTRIES):
        entries = table[start : start + ENTRIES]
        tile = query @ entries.mT
        if bias is not None:
            tile += bias[start : start + ENTRIES]
        raised = torch.maximum(top, tile.amax(dim=1))
        shrink = torch.exp(top - raised)
        tile.sub_(raised[:, None]).exp_()
        total = total * shrink + tile.sum(dim=1)
        if mean:
            weighted.mul_(shrink[:, None]).addmm_(tile, entries)
        top = raised
    return top + total.log(), weighted / total[:, None] if mean else None
