"""The kernels of `pairwise_dist`: tiles of pairs, one coordinate after another forward, some at a time backward.

A time is an unevaluated sum of two float32 numbers, so the difference of two times is exact to rounding at any radius
without a pass over the coordinates of each pair.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from lorentz_kernels.configs import Config, pick
from lorentz_kernels.launch import Remembered, cdiv
from lorentz_kernels.pairwise_dist.naive import time

LONGEST = 128  # rows or columns of a tile
TERMS = tl.constexpr(13)  # of the series of asinh(u) / u in u^2 that reach float32 for u < 1/2


@Remembered
@triton.jit
def distance_tiles(
    X, Y, X_TIME, Y_TIME, SQUARED_RADIUS, OUT, rows, columns, x_stride, y_stride, size,
    GEODESIC: tl.constexpr, SLACK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Distances of ROWS x COLUMNS pairs, or their slacks: naive.py and chunked.py, line for line.

    X and Y hold coordinate by coordinate.
    """
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    x_at, y_at = X + batch * size * x_stride + row, Y + batch * size * y_stride + column
    x0, y0, delta = _time_gap(X_TIME, Y_TIME, batch, row, column, x_stride, y_stride)
    inward = x0 < y0
    near0, far0 = tl.minimum(x0, y0), tl.maximum(x0, y0)
    ratio = delta / near0
    square = tl.zeros([ROWS, COLUMNS], tl.float32)
    along = tl.zeros([ROWS, COLUMNS], tl.float32)
    for _ in range(size):
        x, y = tl.load(x_at)[:, None], tl.load(y_at)[None, :]
        near = tl.where(inward, x, y)
        turn = (x - y) - ratio * near
        square += turn * turn
        if SLACK:
            along += turn * near
        x_at += x_stride
        y_at += y_stride
    squared_radius = tl.load(SQUARED_RADIUS)
    out = near0 / far0 * square + squared_radius * ratio * (delta / far0)
    if SLACK:
        out = squared_radius * ratio - along + tl.where(inward, out, -out) / 2
    if GEODESIC:
        diameter = 2 * tl.sqrt(squared_radius)
        out = diameter * _asinh(tl.sqrt(out) / diameter)
    at = OUT + (batch * rows + row[:, None]) * columns + column[None, :]
    tl.store(at, out, mask=(row < rows)[:, None] & (column < columns)[None, :])


@triton.jit
def _time_gap(X_TIME, Y_TIME, batch, row, column, x_stride, y_stride):
    """The times of rows and columns, and their differences."""
    x_at, y_at = X_TIME + batch * 2 * x_stride + row, Y_TIME + batch * 2 * y_stride + column
    x0, y0 = tl.load(x_at)[:, None], tl.load(y_at)[None, :]
    return x0, y0, (x0 - y0) + (tl.load(x_at + x_stride)[:, None] - tl.load(y_at + y_stride)[None, :])


@triton.jit
def _asinh(u):
    """The inverse hyperbolic sine of u >= 0: its series below 1/2, so that a small number keeps its digits."""
    z = tl.minimum(u, 0.5)
    z = z * z
    series = tl.full(u.shape, 1.0, tl.float32)
    for k in tl.static_range(TERMS - 1, -1, -1):
        series = 1.0 - z * series * ((2 * k + 1) * (2 * k + 1) / ((2 * k + 2) * (2 * k + 3)))
    return tl.where(u < 0.5, u * series, tl.log(u + tl.sqrt(u * u + 1.0)))


@Remembered
@triton.jit
def pull_rows(
    X, Y, X_TIME, Y_TIME, WEIGHT, PULLED, OF_SQUARE, rows, columns, x_stride, y_stride,
    batch_stride, row_stride, column_stride,
    SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """PART coordinates of sum_j w near0 turn for ROWS points, and sum_j w delta^2 / (near0 far0): chunked.py, by tiles.

    X and Y hold point by point. Sums run over COLUMNS lanes that are added at the end.
    """
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1) * PART + tl.arange(0, PART)
    inside = part < SIZE
    x_at = (batch * x_stride + row) * SIZE
    x = tl.load(X + x_at[:, None] + part[None, :], mask=inside[None, :], other=0.0)
    pulled = tl.zeros([ROWS, COLUMNS, PART], tl.float32)
    squares = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        y_at = (batch * y_stride + column) * SIZE
        y = tl.load(Y + y_at[:, None] + part[None, :], mask=inside[None, :], other=0.0)
        weight_at = batch * batch_stride + row.to(tl.int64)[:, None] * row_stride
        weight_at += column.to(tl.int64)[None, :] * column_stride
        live = (row < rows)[:, None] & (column < columns)[None, :]
        weight = tl.load(WEIGHT + weight_at, mask=live, other=0.0)
        x0, y0, delta = _time_gap(X_TIME, Y_TIME, batch, row, column, x_stride, y_stride)
        near0, ratio = tl.minimum(x0, y0), delta / tl.minimum(x0, y0)
        near = tl.where((x0 < y0)[:, :, None], x[:, None, :], y[None, :, :])
        turn = (x[:, None, :] - y[None, :, :]) - ratio[:, :, None] * near
        pulled += (weight * near0)[:, :, None] * turn
        squares += weight * ratio * (delta / tl.maximum(x0, y0))
    out = (batch * rows + row) * SIZE
    tl.store(PULLED + out[:, None] + part[None, :], tl.sum(pulled, 1), mask=(row < rows)[:, None] & inside[None, :])
    if tl.program_id(1) == 0:
        tl.store(OF_SQUARE + batch * rows + row, tl.sum(squares, 1), mask=row < rows)


def forward(x: Tensor, y: Tensor, squared_radius: Tensor, geodesic: bool, *, config: Config | None = None) -> Tensor:
    """Return what `chunked.forward` does."""
    return _tiles(x, y, squared_radius, config, GEODESIC=geodesic, SLACK=False)


def backward(
    weight: Tensor, x: Tensor, y: Tensor, squared_radius: Tensor, *, config: Config | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `chunked.backward` does."""
    slack = weight * _tiles(x, y, squared_radius, None, GEODESIC=False, SLACK=True)

    def run(config: Config) -> tuple[Tensor, Tensor]:
        return _pull(weight, slack.sum(dim=2), x, y, squared_radius, config)

    sizes = {"size": x.shape[2], "rows": x.shape[1], "columns": y.shape[1], "batch": len(x)}
    config = config or pick("pairwise_dist", "pull", x, run, **sizes)
    of_x, of_square = run(config)
    of_y, _ = _pull(weight.mT, -slack.sum(dim=1), y, x, squared_radius, config)
    return of_x, of_y, of_square.sum()


def _tiles(x: Tensor, y: Tensor, squared_radius: Tensor, config: Config | None, **what: bool) -> Tensor:
    """Return a number for each pair, (B, N, M)."""
    batch, rows, size = x.shape
    columns = y.shape[1]
    out = x.new_empty(batch, rows, columns, dtype=torch.float32)
    if out.numel() == 0:
        return out
    x, y = _padded(x), _padded(y)
    times = [_time_in_two(points, squared_radius) for points in (x, y)]
    by_coordinate = [points.mT.clone(memory_format=torch.contiguous_format) for points in (x, y)]
    x_stride, y_stride = x.shape[1], y.shape[1]

    def run(config: Config) -> None:
        grid = (cdiv(rows, config["ROWS"]), cdiv(columns, config["COLUMNS"]), batch)
        distance_tiles[grid](
            *by_coordinate, *times, squared_radius.float(), out, rows, columns, x_stride, y_stride, size,
            **what, **config, enable_fp_fusion=True,
        )  # fmt: skip

    sizes = {"size": size, "rows": rows, "columns": columns, "batch": batch}
    run(config or pick("pairwise_dist", "distance", x, run, **sizes))
    return out


def _pull(
    weight: Tensor, slack: Tensor, x: Tensor, y: Tensor, squared_radius: Tensor, config: Config
) -> tuple[Tensor, Tensor]:
    """Return the gradient in x (B, N, n), and the part of each point (B, N) in that of 1/c."""
    (batch, rows, size), columns = x.shape, y.shape[1]
    if x.numel() == 0 or columns == 0:
        return x.new_zeros(batch, rows, size), x.new_zeros(batch, rows)
    wide = -(-size // 4) * 4
    from_x, from_y = (F.pad(_padded(points), (0, wide - size)) for points in (x, y))
    pulled, of_square = x.new_empty(batch, rows, wide), x.new_empty(batch, rows)
    times = [_time_in_two(points, squared_radius) for points in (from_x, from_y)]
    pull_rows[(cdiv(rows, config["ROWS"]), cdiv(wide, config["PART"]), batch)](
        from_x, from_y, *times, weight, pulled, of_square, rows, columns, from_x.shape[1], from_y.shape[1],
        *weight.stride(), SIZE=wide, **config, enable_fp_fusion=True,
    )  # fmt: skip
    x0 = time(x, squared_radius)
    return 2 * (pulled.narrow(2, 0, size) + x / x0 * slack.unsqueeze(2)) / x0, of_square


def _padded(x: Tensor) -> Tensor:
    """Return points (B, M, n) with origins added up to a multiple of the longest tile, so that no load is masked."""
    return F.pad(x.float(), (0, 0, 0, -x.shape[1] % LONGEST)).contiguous()


def _time_in_two(x: Tensor, squared_radius: Tensor) -> Tensor:
    """Return times of points (B, M, n) as (B, 2, M), float32 numbers whose sum is right to 2^-48."""
    exact = (squared_radius.double() + x.double().square().sum(-1)).sqrt()
    high = exact.float()
    return torch.stack([high, (exact - high).float()], dim=1)
