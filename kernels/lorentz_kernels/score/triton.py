"""Scores as tiles of tensor-core products: what the kernels of log-partitions and ranks share.

Times and biases ride in a tile of 16 more columns, so that no vector is read in the loop over the table. Each float32
number x is three of bfloat16, x = x1 + x2 + x3, and a product of two such is six products, exact to 2^-24:

    query side  -(q1 q1 q1 q2 q2 q3)  (r1 r1 r1 r2 r2 r3)  0 0 0 0      r = 1 / |scale|, q = +-q0
    table side   (t1 t2 t3 t1 t2 t1)  (b1 b2 b3 b1 b2 b1)  0 0 0 0      t = t0, b = bias

The two tiles' product, times |scale|, is the score; the sign of the scale is that of the query's copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from lorentz_kernels.dispatch import interpreting
from lorentz_kernels.launch import cdiv, next_power_of_2
from lorentz_kernels.score import Score, lift

SIDE = tl.constexpr(16)
FLOOR = 2.0**60  # biases below -FLOOR are minus infinity, scales within 1 / FLOOR of zero are 1 / FLOOR


@triton.jit
def load_rows(X, first, stop, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PAST: tl.constexpr):
    """Rows [first, first + BLOCK) of X (M, COLUMNS), zero from COLUMNS to WIDTH; row stop - 1 instead of any beyond."""
    row = first + tl.arange(0, BLOCK)
    if PAST:
        row = tl.minimum(row, stop - 1)
    column = tl.arange(0, WIDTH)
    at = X + row[:, None].to(tl.int64) * COLUMNS + column[None, :]
    if COLUMNS < WIDTH:  # noqa: SIM108 (a constant picks a branch of a statement only)
        rows = tl.load(at, mask=(column < COLUMNS)[None, :], other=0.0)
    else:
        rows = tl.load(at)
    return rows


@triton.jit
def multiply(x, y, x_side, y_side, PRECISION: tl.constexpr):
    """x y^T + x_side y_side^T in float32; the sides may be none."""
    if x_side is None:
        product = tl.dot(x, tl.trans(y), input_precision=PRECISION)
    else:
        side = tl.dot(x_side, tl.trans(y_side), input_precision="ieee")
        product = tl.dot(x, tl.trans(y), side, input_precision=PRECISION)
    return product


@triton.jit
def accumulate(weight, x, total, PRECISION: tl.constexpr):
    """Total + weight x, the weights rounded to the 16 bits of x where x has so many."""
    return tl.dot(weight.to(x.dtype), x, total, input_precision=PRECISION)


@triton.jit
def accumulate_side(weight, side, total, x, PRECISION: tl.constexpr):
    """The same for a side tile; where x is in float32 a weight is two of bfloat16, or three, as the precision asks."""
    high = weight.to(side.dtype)
    total = tl.dot(high, side, total, input_precision="ieee")
    if x.dtype == tl.float32:
        rest = weight - high.to(tl.float32)
        middle = rest.to(side.dtype)
        total = tl.dot(middle, side, total, input_precision="ieee")
        if PRECISION == "bf16x6":
            low = (rest - middle.to(tl.float32)).to(side.dtype)
            total = tl.dot(low, side, total, input_precision="ieee")
    return total


@dataclass(frozen=True)
class Operands:
    """A score as the kernels read it."""

    query: Tensor  # (N, columns), rows of whole 16 bytes
    table: Tensor  # (E, columns)
    query_side: Tensor | None  # (N, 16)
    table_side: Tensor | None  # (E, 16)
    scale: Tensor  # (N,) > 0
    columns: int
    width: int  # columns rounded up to a power of two
    precision: str

    @property
    def side(self) -> int:
        """Whether there is a side, as 0 or 1."""
        return int(self.query_side is not None)


def operands(score: Score, precision: str) -> Operands:
    """Return what the kernels read, the products at the precision asked for."""
    scale = torch.where(score.scale.abs() < 1 / FLOOR, 1 / FLOOR, score.scale).contiguous()
    query, table = (_rounded(x, precision) for x in (score.query, score.table))
    query = query * scale.sign().unsqueeze(1).to(query.dtype)
    columns = -(-query.shape[1] // 8) * 8
    query, table = (F.pad(x, (0, columns - x.shape[1])).contiguous() for x in (query, table))
    sides = _sides(score, scale)
    width = max(16, next_power_of_2(columns))
    used = precision if query.dtype == torch.float32 and not interpreting() else "ieee"
    return Operands(query, table, *sides, scale.abs(), columns, width, used)


def splits_for(blocks: int, length: int, block: int, device: torch.device) -> int:
    """Return into how many parts to cut a loop so that two programs for each multiprocessor are busy."""
    available = device.type == "cuda" and torch.cuda.is_available()
    busy = 2 * (torch.cuda.get_device_properties(device).multi_processor_count if available else 132)
    return max(1, min(cdiv(busy, blocks), cdiv(length, block)))


def time_of(side: Tensor) -> Tensor:
    """Return what sums of rows of the table's side hold in the place of the time: (M, 16) to (M, 1)."""
    return side.narrow(1, 0, 3).sum(dim=1, keepdim=True)


def product_with_query_side(side: Tensor) -> tuple[Tensor, Tensor]:
    """Return what sums of rows of the query's side hold in the places of -q and r: (M, 16) to twice (M, 1)."""
    column = side.split(1, dim=1)
    return column[0] + column[3] + column[5], column[6] + column[9] + column[11]


def _rounded(x: Tensor, precision: str) -> Tensor:
    """Return x in the dtype that is multiplied; the interpreter multiplies no bfloat16, so it is widened there."""
    if precision == "bf16" and x.dtype == torch.float32:
        x = x.bfloat16()
    return x.float() if x.dtype == torch.bfloat16 and interpreting() else x


def _sides(score: Score, scale: Tensor) -> tuple[Tensor | None, Tensor | None]:
    if score.bias is None and score.squared_radius is None:
        return None, None
    q0 = t0 = bias = None
    if score.squared_radius is not None:
        q0 = -scale.sign() * lift(score.query, score.squared_radius).squeeze(1)
        t0 = lift(score.table, score.squared_radius).squeeze(1)
    if score.bias is not None:
        bias = score.bias.clamp_min(-FLOOR)
    return (
        _side(_left(q0, score.query), _left(1 / scale.abs(), score.query)),
        _side(_right(t0, score.table), _right(bias, score.table)),
    )


def _side(times: Tensor, biases: Tensor) -> Tensor:
    """Return (M, 16) from the parts of two numbers, (M, 6) each."""
    dtype = torch.float32 if interpreting() else torch.bfloat16
    return F.pad(torch.cat([times, biases], dim=1), (0, SIDE.value - 12)).to(dtype)


def _left(x: Tensor | None, like: Tensor) -> Tensor:
    x1, x2, x3 = _split(x, like)
    return torch.stack([x1, x1, x1, x2, x2, x3], dim=1)


def _right(x: Tensor | None, like: Tensor) -> Tensor:
    x1, x2, x3 = _split(x, like)
    return torch.stack([x1, x2, x3, x1, x2, x1], dim=1)


def _split(x: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return three numbers of bfloat16, held in float32, whose sum is x to 2^-24; zeros for none."""
    if x is None:
        x = like.new_zeros(len(like), dtype=torch.float32)
    x1 = x.bfloat16().float()
    x2 = (x - x1).bfloat16().float()
    return x1, x2, (x - x1 - x2).bfloat16().float()
