"""The kernels of `scaled_direction`: whole rows in registers, one pass forward and one backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorentz_kernels.configs import Config, pick
from lorentz_kernels.launch import Remembered, cdiv, next_power_of_2

ZERO = tl.constexpr(torch.finfo(torch.float32).tiny ** 0.5)  # shorter vectors count as zero


@Remembered
@triton.jit
def forward_rows(V, RADIUS, Y, LENGTH, count, columns, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """y = radius v / |v| for BLOCK rows, and |v|: 1, and negative as a sign, where v counts as zero."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)[None, :]
    inside = (row < count)[:, None] & (column < columns)
    at = row[:, None] * columns + column
    v = tl.load(V + at, mask=inside, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(v), 1)
    largest = tl.where(largest > 0, largest, 1.0)
    scaled = v / largest[:, None]  # so that no square underflows
    length = largest * tl.sqrt(tl.sum(scaled * scaled, 1))
    length = tl.where(length < ZERO, -1.0, length)
    radius = tl.load(RADIUS + row, mask=row < count, other=0.0)
    tl.store(LENGTH + row, length, mask=row < count)
    tl.store(Y + at, (v * (radius / tl.abs(length))[:, None]).to(Y.dtype.element_ty), mask=inside)


@Remembered
@triton.jit
def backward_rows(G, V, RADIUS, LENGTH, DV, DRADIUS, count, columns, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """dradius = g . u and dv = radius / |v| (g - u (g . u)), u = v / |v|, for BLOCK rows."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)[None, :]
    inside = (row < count)[:, None] & (column < columns)
    at = row[:, None] * columns + column
    length = tl.load(LENGTH + row, mask=row < count, other=1.0)
    radius = tl.load(RADIUS + row, mask=row < count, other=0.0)
    unit = tl.load(V + at, mask=inside, other=0.0).to(tl.float32) / tl.abs(length)[:, None]
    g = tl.load(G + at, mask=inside, other=0.0).to(tl.float32)
    along = tl.sum(g * unit, 1)
    tl.store(DRADIUS + row, along, mask=row < count)
    across = g - unit * tl.where(length < 0, 0.0, along)[:, None]
    of_v = (radius / tl.abs(length))[:, None] * across
    tl.store(DV + at, of_v.to(DV.dtype.element_ty), mask=inside)


def forward(v: Tensor, radius: Tensor, config: Config | None = None) -> tuple[Tensor, Tensor]:
    """Return radius v / |v|, (N, n), and the lengths as `forward_rows` says, (N, 1), for a radius (N, 1) in float32."""
    v, radius = v.contiguous(), radius.contiguous()
    y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    length = torch.empty(radius.shape, dtype=torch.float32, device=v.device)
    if v.numel():
        grid, options = _grid(v, config)
        forward_rows[grid](v, radius, y, length, *v.shape, **options, enable_fp_fusion=True)
    return y, length


def backward(
    grad: Tensor, v: Tensor, radius: Tensor, length: Tensor, config: Config | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v, (N, n), and radius, (N, 1)."""
    grad, v, radius, length = (t.contiguous() for t in (grad, v, radius, length))
    of_v = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    of_radius = torch.empty(radius.shape, dtype=torch.float32, device=v.device)
    if v.numel():
        grid, options = _grid(v, config)
        backward_rows[grid](grad, v, radius, length, of_v, of_radius, *v.shape, **options, enable_fp_fusion=True)
    return of_v, of_radius


def _grid(v: Tensor, config: Config | None) -> tuple[tuple[int], Config]:
    count, columns = v.shape
    options = dict(config or pick("scaled_direction", "rows", v, width=columns))
    width = next_power_of_2(columns)
    block = max(1, options.pop("TILE") // width)
    return (cdiv(count, block),), {**options, "BLOCK": block, "WIDTH": width}
