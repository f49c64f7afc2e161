"""The kernels of `linear_rank`: one counts over tiles of scores, one gives the scores of single pairs.

Both multiply tiles of one shape with the same instructions, so the score of a pair is the same number wherever it
stands in a tile: what the count is compared with, and what it is corrected by for excluded entries.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorentz_kernels.configs import Config, generation, pick
from lorentz_kernels.launch import Remembered, cdiv
from lorentz_kernels.score import Score
from lorentz_kernels.score.triton import SIDE, Operands, load_rows, multiply, operands, splits_for


@Remembered
@triton.jit
def count_tiles(
    Q, T, QS, TS, OF_TARGET, ABOVE, EQUAL, rows, entries, share,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, ENTRIES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For ROWS queries and `share` entries: how many products are above that of the target, and how many equal it."""
    first = tl.program_id(0) * ROWS
    split = tl.program_id(1)
    row = first + tl.arange(0, ROWS)
    q = load_rows(Q, first, rows, COLUMNS, WIDTH, ROWS, True)
    qs = None
    if QS is not None:
        qs = load_rows(QS, first, rows, SIDE, SIDE, ROWS, True)
    of_target = tl.load(OF_TARGET + row, mask=row < rows, other=0.0)
    above = tl.zeros([ROWS], tl.int32)
    equal = tl.zeros([ROWS], tl.int32)
    start = split * share
    stop = tl.minimum(start + share, entries)
    whole = start + tl.maximum(stop - start, 0) // ENTRIES * ENTRIES
    for entry in range(start, whole, ENTRIES):
        above, equal = _compare(
            T, TS, entry, stop, q, qs, of_target, above, equal, COLUMNS, WIDTH, ENTRIES, False, PRECISION
        )
    if whole < stop:
        above, equal = _compare(
            T, TS, whole, stop, q, qs, of_target, above, equal, COLUMNS, WIDTH, ENTRIES, True, PRECISION
        )
    at = split.to(tl.int64) * rows + row
    tl.store(ABOVE + at, above, mask=row < rows)
    tl.store(EQUAL + at, equal, mask=row < rows)


@triton.jit
def _compare(
    T, TS, first, stop, q, qs, of_target, above, equal,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ENTRIES: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    t = load_rows(T, first, stop, COLUMNS, WIDTH, ENTRIES, MASKED)
    ts = None
    if qs is not None:
        ts = load_rows(TS, first, stop, SIDE, SIDE, ENTRIES, MASKED)
    s = multiply(q, t, qs, ts, PRECISION)
    if MASKED:
        s = tl.where((first + tl.arange(0, ENTRIES) < stop)[None, :], s, float("nan"))  # neither above nor equal
    above += tl.sum((s > of_target[:, None]).to(tl.int32), 1)
    equal += tl.sum((s == of_target[:, None]).to(tl.int32), 1)
    return above, equal


@Remembered
@triton.jit
def multiply_pairs(
    Q, T, QS, TS, ROW, ENTRY, OUT, pairs,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, ENTRIES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The products of ENTRIES pairs of a query and an entry: the diagonal of a tile, whose other rows repeat."""
    first = tl.program_id(0).to(tl.int64) * ENTRIES
    slot, other = tl.arange(0, ROWS), tl.arange(0, ENTRIES)
    pair = first + slot
    row = tl.load(ROW + tl.minimum(first + slot % ENTRIES, pairs - 1))
    entry = tl.load(ENTRY + tl.minimum(first + other, pairs - 1))
    column = tl.arange(0, WIDTH)[None, :]
    q = tl.load(Q + row[:, None] * COLUMNS + column, mask=column < COLUMNS, other=0.0)
    t = tl.load(T + entry[:, None] * COLUMNS + column, mask=column < COLUMNS, other=0.0)
    qs = None
    ts = None
    if QS is not None:
        side = tl.arange(0, SIDE)[None, :]
        qs = tl.load(QS + row[:, None] * SIDE + side)
        ts = tl.load(TS + entry[:, None] * SIDE + side)
    s = multiply(q, t, qs, ts, PRECISION)
    diagonal = tl.sum(tl.where(slot[:, None] == other[None, :], s, 0.0), 1)
    tl.store(OUT + pair, diagonal, mask=(slot < ENTRIES) & (pair < pairs))


def counts(
    score: Score,
    target: Tensor,
    offsets: Tensor | None,
    excluded: Tensor | None,
    precision: str,
    *,
    splits: int | None = None,
    config: Config | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what `naive.counts` does."""
    rows, entries = len(score.query), len(score.table)
    if rows == 0:
        return torch.empty_like(target), torch.empty_like(target)
    given, device = operands(score, precision), score.query.device

    def run(config: Config) -> tuple[Tensor, Tensor, Tensor]:
        of_target = pair_products(given, torch.arange(rows, device=device), target, config)
        count = splits or splits_for(cdiv(rows, config["ROWS"]), entries, config["ENTRIES"], device)
        share = cdiv(cdiv(entries, count), config["ENTRIES"]) * config["ENTRIES"]
        above, equal = (target.new_empty(count, rows, dtype=torch.int32) for _ in range(2))
        count_tiles[(cdiv(rows, config["ROWS"]), count)](
            given.query, given.table, given.query_side, given.table_side, of_target, above, equal, rows, entries,
            share, COLUMNS=given.columns, WIDTH=given.width, PRECISION=given.precision, **config,
            enable_fp_fusion=True,
        )  # fmt: skip
        return of_target, above, equal

    sizes = {"width": given.width, "sm": generation(), "rows": rows, "entries": entries}
    config = config or pick("rank", "tiles", given.table, run, **sizes)
    of_target, above, equal = run(config)
    above, equal = above.sum(dim=0), equal.sum(dim=0) - 1
    if offsets is not None and excluded is not None:
        row = torch.repeat_interleave(offsets.diff(), output_size=len(excluded))
        row, entry = _distinct(row, excluded, entries)
        kept = entry == target[row]  # the target itself always stays
        other, own = pair_products(given, row, entry, config), of_target[row]
        above = above.index_add(0, row, -((other > own) & ~kept).long())
        equal = equal.index_add(0, row, -((other == own) & ~kept).long())
    lost = of_target.isnan()
    return torch.where(lost, entries - 1, above), torch.where(lost, 0, equal)


def pair_products(given: Operands, row: Tensor, entry: Tensor, config: Config) -> Tensor:
    """Return the products of pairs of a query and an entry, (M,) and (M,), as the tiles have them."""
    out = given.scale.new_empty(len(row))
    if len(row):
        multiply_pairs[(cdiv(len(row), config["ENTRIES"]),)](
            given.query, given.table, given.query_side, given.table_side, row.contiguous(), entry.contiguous(), out,
            len(row), COLUMNS=given.columns, WIDTH=given.width, PRECISION=given.precision, **config,
            enable_fp_fusion=True,
        )  # fmt: skip
    return out


def _distinct(row: Tensor, entry: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    """Return each pair once."""
    keys = torch.unique(row * entries + entry)
    return keys // entries, keys % entries
