"""The plain torch form of `linear_rank`: a block of queries at a time, all its scores one matrix product.

So the target's score and those that it is compared with come from the same call, which multiplies and adds the columns
of every entry in the same order: the target equals itself, and so do equal rows of the table.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz_kernels.score import Score, columns

ON_CPU, ON_GPU = 1 << 19, 1 << 26  # scores of a block: 2 MiB in float32, and 256, which few launches fill
COUNTED = 1 << 24  # ones that float32 can count


def counts(score: Score, target: Tensor, offsets: Tensor | None, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what `naive.counts` does."""
    rows, entries = columns(score)
    above, equal = torch.empty_like(target), torch.empty_like(target)
    size = max(2, (ON_CPU if rows.device.type == "cpu" else ON_GPU) // len(entries))
    scores, flags = (rows.new_empty(min(size, max(len(rows), 2)), len(entries)) for _ in range(2))
    for start in range(0, len(rows), size):
        block = slice(start, min(start + size, len(rows)))
        found = _products(rows[block], entries, scores)
        column = target[block, None]
        of_target = found.gather(1, column)
        if offsets is not None and excluded is not None:
            bounds = offsets[block.start : block.stop + 1]
            listed = excluded[int(bounds[0]) : int(bounds[-1])]
            found[torch.repeat_interleave(bounds.diff()), listed] = torch.nan
            found.scatter_(1, column, of_target)  # the target itself always stays
        above[block] = _count(torch.gt(found, of_target, out=flags[: len(found)]))
        equal[block] = _count(torch.eq(found, of_target, out=flags[: len(found)])) - 1
        lost = of_target.squeeze(1).isnan()
        above[block].masked_fill_(lost, len(entries) - 1)
        equal[block].masked_fill_(lost, 0)
    return above, equal


def _products(rows: Tensor, entries: Tensor, out: Tensor) -> Tensor:
    """Return rows @ entries^T in `out`; one row is multiplied twice, for a vector goes another way through BLAS."""
    count = len(rows)
    if count == 1:
        rows = rows.expand(2, -1)
    return torch.mm(rows, entries.mT, out=out[: len(rows)])[:count]


def _count(flags: Tensor) -> Tensor:
    """Return the number of ones in each row; as floating-point numbers they are added faster than booleans."""
    exact = torch.float64 if flags.shape[1] > COUNTED else flags.dtype
    return flags.sum(dim=1, dtype=exact).long()
