"""The kernels of `linear_logsumexp`: a block of queries passes over the table, a block of entries over the queries.

Both split the loop so that a GPU is full; the parts are combined in a fixed order, so results repeat to the bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorentz_kernels.configs import Config, generation, pick
from lorentz_kernels.launch import Remembered, cdiv
from lorentz_kernels.score import Score, lift
from lorentz_kernels.score.triton import (
    FLOOR,
    SIDE,
    accumulate,
    accumulate_side,
    load_rows,
    multiply,
    operands,
    product_with_query_side,
    splits_for,
    time_of,
)

LOG2E = 1.4426950408889634
LIFT = 8192.0  # softmax weights of rare entries are subnormal in float16, eight thousand times them are not


@Remembered
@triton.jit
def logsumexp_forward(
    Q, T, QS, TS, FACTOR, TOP, TOTAL, MEAN, MEAN_SIDE, rows, entries, share,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, ENTRIES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For ROWS queries and `share` entries: TOP = max_e s, TOTAL = sum_e 2^(f s - f TOP), MEAN = sum_e 2^(..) table_e.

    f is |scale| log2(e); the loop ends with a tile of its own, the only one that masks.
    """
    first = tl.program_id(0) * ROWS
    split = tl.program_id(1)
    row = first + tl.arange(0, ROWS)
    q = load_rows(Q, first, rows, COLUMNS, WIDTH, ROWS, True)
    qs = None
    if QS is not None:
        qs = load_rows(QS, first, rows, SIDE, SIDE, ROWS, True)
    factor = tl.load(FACTOR + row, mask=row < rows, other=1.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mean, mean_side = top, top  # in the place of what is not asked for
    if MEAN is not None:
        mean = tl.zeros([ROWS, WIDTH], tl.float32)
        if QS is not None:
            mean_side = tl.zeros([ROWS, SIDE], tl.float32)
    start = split * share
    stop = tl.minimum(start + share, entries)
    whole = start + tl.maximum(stop - start, 0) // ENTRIES * ENTRIES
    for entry in range(start, whole, ENTRIES):
        top, total, mean, mean_side = _absorb(
            T,
            TS,
            entry,
            stop,
            q,
            qs,
            factor,
            top,
            total,
            MEAN,
            mean,
            mean_side,
            COLUMNS,
            WIDTH,
            ENTRIES,
            False,
            PRECISION,
        )
    if whole < stop:
        top, total, mean, mean_side = _absorb(
            T,
            TS,
            whole,
            stop,
            q,
            qs,
            factor,
            top,
            total,
            MEAN,
            mean,
            mean_side,
            COLUMNS,
            WIDTH,
            ENTRIES,
            True,
            PRECISION,
        )
    at = split.to(tl.int64) * rows + row
    tl.store(TOP + at, top, mask=row < rows)
    tl.store(TOTAL + at, total, mask=row < rows)
    if MEAN is not None:
        column = tl.arange(0, WIDTH)
        inside = (row < rows)[:, None] & (column < COLUMNS)[None, :]
        tl.store(MEAN + at[:, None] * COLUMNS + column[None, :], mean, mask=inside)
        if QS is not None:
            side = tl.arange(0, SIDE)
            tl.store(MEAN_SIDE + at[:, None] * SIDE + side[None, :], mean_side, mask=(row < rows)[:, None])


@triton.jit
def _absorb(
    T, TS, first, stop, q, qs, factor, top, total, MEAN, mean, mean_side,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ENTRIES: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of an online softmax."""
    t = load_rows(T, first, stop, COLUMNS, WIDTH, ENTRIES, MASKED)
    ts = None
    if qs is not None:
        ts = load_rows(TS, first, stop, SIDE, SIDE, ENTRIES, MASKED)
    s = multiply(q, t, qs, ts, PRECISION)
    if MASKED:
        s = tl.where((first + tl.arange(0, ENTRIES) < stop)[None, :], s, float("-inf"))
    raised = tl.maximum(top, tl.max(s, 1))
    shrink = tl.exp2((top - raised) * factor)
    weight = tl.exp2(s * factor[:, None] - (raised * factor)[:, None])
    total = total * shrink + tl.sum(weight, 1)
    if MEAN is not None:
        mean = accumulate(weight, t, mean * shrink[:, None], PRECISION)
        if qs is not None:
            mean_side = accumulate_side(weight, ts, mean_side * shrink[:, None], t, PRECISION)
    return raised, total, mean, mean_side


@Remembered
@triton.jit
def logsumexp_backward(
    Q, T, QS, TS, FACTOR, LSE, WEIGHT, GRAD, GRAD_SIDE, rows, entries, share,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, ENTRIES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For ENTRIES entries and `share` queries: GRAD = sum_i weight_i 2^(f_i s_ie - LSE_i) query_i."""
    first = tl.program_id(0) * ENTRIES
    split = tl.program_id(1)
    t = load_rows(T, first, entries, COLUMNS, WIDTH, ENTRIES, True)
    ts = None
    grad = tl.zeros([ENTRIES, WIDTH], tl.float32)
    grad_side = grad  # in the place of what there is not
    if TS is not None:
        ts = load_rows(TS, first, entries, SIDE, SIDE, ENTRIES, True)
        grad_side = tl.zeros([ENTRIES, SIDE], tl.float32)
    start = split * share
    stop = tl.minimum(start + share, rows)
    whole = start + tl.maximum(stop - start, 0) // ROWS * ROWS
    for row in range(start, whole, ROWS):
        grad, grad_side = _return(
            Q, QS, FACTOR, LSE, WEIGHT, row, stop, t, ts, grad, grad_side, COLUMNS, WIDTH, ROWS, False, PRECISION
        )
    if whole < stop:
        grad, grad_side = _return(
            Q, QS, FACTOR, LSE, WEIGHT, whole, stop, t, ts, grad, grad_side, COLUMNS, WIDTH, ROWS, True, PRECISION
        )
    entry = first + tl.arange(0, ENTRIES)
    column = tl.arange(0, WIDTH)
    at = split.to(tl.int64) * entries + entry
    inside = (entry < entries)[:, None] & (column < COLUMNS)[None, :]
    tl.store(GRAD + at[:, None] * COLUMNS + column[None, :], grad, mask=inside)
    if TS is not None:
        side = tl.arange(0, SIDE)
        tl.store(GRAD_SIDE + at[:, None] * SIDE + side[None, :], grad_side, mask=(entry < entries)[:, None])


@triton.jit
def _return(
    Q, QS, FACTOR, LSE, WEIGHT, first, stop, t, ts, grad, grad_side,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of the softmax, made anew, times the queries."""
    q = load_rows(Q, first, stop, COLUMNS, WIDTH, ROWS, MASKED)
    qs = None
    if ts is not None:
        qs = load_rows(QS, first, stop, SIDE, SIDE, ROWS, MASKED)
    row = first + tl.arange(0, ROWS)
    if MASKED:
        factor = tl.load(FACTOR + row, mask=row < stop, other=1.0)
        lse = tl.load(LSE + row, mask=row < stop, other=float("inf"))
        weight = tl.load(WEIGHT + row, mask=row < stop, other=0.0)
    else:
        factor, lse, weight = tl.load(FACTOR + row), tl.load(LSE + row), tl.load(WEIGHT + row)
    s = multiply(t, q, ts, qs, PRECISION)
    softmax = tl.exp2(s * factor[None, :] - lse[None, :]) * weight[None, :]
    grad = accumulate(softmax, q, grad, PRECISION)
    if ts is not None:
        grad_side = accumulate_side(softmax, qs, grad_side, q, PRECISION)
    return grad, grad_side


def moments(
    score: Score, mean: bool, precision: str, *, splits: int | None = None, config: Config | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `chunked.moments` does."""
    rows, entries, width = len(score.query), len(score.table), score.table.shape[1]
    timed = score.squared_radius is not None
    if rows == 0:
        return score.scale.new_empty(0), score.scale.new_empty(0, width + timed)
    given, device = operands(score, precision), score.query.device
    new, factor = score.scale.new_empty, given.scale * LOG2E

    def run(config: Config) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        count = splits or splits_for(cdiv(rows, config["ROWS"]), entries, config["ENTRIES"], device)
        share = cdiv(cdiv(entries, count), config["ENTRIES"]) * config["ENTRIES"]
        sums = new(count, rows, given.columns) if mean else None
        side_sums = new(count, rows, SIDE.value) if mean and given.query_side is not None else None
        top, total = new(count, rows), new(count, rows)
        logsumexp_forward[(cdiv(rows, config["ROWS"]), count)](
            given.query, given.table, given.query_side, given.table_side, factor, top, total, sums, side_sums,
            rows, entries, share, COLUMNS=given.columns, WIDTH=given.width, PRECISION=given.precision,
            **config, enable_fp_fusion=True,
        )  # fmt: skip
        return top, total, sums, side_sums

    sizes = {"width": given.width, "side": given.side, "sm": generation(), "rows": rows, "entries": entries}
    kernel = "mean" if mean else "forward"
    top, total, sums, side_sums = run(config or pick("linear_logsumexp", kernel, given.table, run, **sizes))
    parts = top * factor  # of each split: 2^parts total is its sum
    highest = parts.amax(dim=0)
    weight = torch.exp2(parts - highest)
    whole = (weight * total).sum(dim=0)
    lse = (highest + whole.log2()) / LOG2E
    empty = lse < -FLOOR / 2
    lse = torch.where(empty, -torch.inf, lse)
    if sums is None:
        return lse, new(0, width + timed)
    weight = torch.where(empty, 0.0, weight / whole).unsqueeze(2)
    average = (weight * sums.narrow(2, 0, width)).sum(dim=0)
    if timed and side_sums is not None:
        average = torch.cat([average, time_of((weight * side_sums).sum(dim=0))], dim=1)
    return lse, average


def table_gradient(
    score: Score, lse: Tensor, grad: Tensor, precision: str, *, splits: int | None = None, config: Config | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `chunked.table_gradient` does."""
    rows, (entries, width) = len(score.query), score.table.shape
    timed = score.squared_radius is not None
    new = score.scale.new_empty
    if rows == 0:
        return score.scale.new_zeros(entries, width), score.scale.new_zeros(entries, 1 + timed)
    given, device = operands(score, precision), score.query.device
    weight = grad * given.scale
    largest = weight.abs().amax().clamp_min(torch.finfo(weight.dtype).tiny)
    lifted = (weight / largest * LIFT).contiguous()
    factor, exponent = given.scale * LOG2E, torch.where(lse == -torch.inf, torch.inf, lse * LOG2E)

    def run(config: Config) -> tuple[Tensor, Tensor | None]:
        count = splits or splits_for(cdiv(entries, config["ENTRIES"]), rows, config["ROWS"], device)
        share = cdiv(cdiv(rows, count), config["ROWS"]) * config["ROWS"]
        sums = new(count, entries, given.columns)
        side_sums = None if given.table_side is None else new(count, entries, SIDE.value)
        logsumexp_backward[(cdiv(entries, config["ENTRIES"]), count)](
            given.query, given.table, given.query_side, given.table_side, factor, exponent, lifted, sums, side_sums,
            rows, entries, share, COLUMNS=given.columns, WIDTH=given.width, PRECISION=given.precision,
            **config, enable_fp_fusion=True,
        )  # fmt: skip
        return sums, side_sums

    sizes = {"width": given.width, "side": given.side, "sm": generation(), "rows": rows, "entries": entries}
    sums, side_sums = run(config or pick("linear_logsumexp", "backward", given.table, run, **sizes))
    unlift = largest / LIFT
    grad_table = unlift * sums.narrow(2, 0, width).sum(dim=0)
    if side_sums is None:
        return grad_table, new(entries, 1)
    grad_time, grad_bias = product_with_query_side(unlift * side_sums.sum(dim=0))
    if score.squared_radius is None:
        return grad_table, grad_bias
    grad_table = grad_table + grad_time / lift(score.table, score.squared_radius) * score.table
    return grad_table, torch.cat([grad_time, grad_bias], dim=1)
