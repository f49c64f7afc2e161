"""The smallest kernels: what the tests of the harness compile and interpret."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def scale_rows(X, Y, factor, columns, stride, column_stride, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    x = tl.load(X + row * stride + column * column_stride, mask=column < columns, other=0.0)
    tl.store(Y + row * columns + column, x * factor, mask=column < columns)


@triton.jit
def multiply(X, Y, Z, length, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column, inner = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    total = tl.zeros([M, N], tl.float32)
    for start in range(0, length, K):
        x = tl.load(X + row[:, None] * length + (start + inner)[None, :])
        y = tl.load(Y + column[None, :] * length + (start + inner)[:, None])
        total = tl.dot(x, y, total, input_precision="ieee")
    tl.store(Z + row[:, None] * N + column[None, :], total)


def scale(x: Tensor, factor: float, rows: int | None = None) -> Tensor:
    """`factor` x for the first `rows` rows of x (rows, columns); the rest is left as it was allocated."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    width = triton.next_power_of_2(x.shape[1])
    count = len(x) if rows is None else rows
    scale_rows[(count,)](x, y, factor, x.shape[1], *x.stride(), WIDTH=width, num_warps=1, enable_fp_fusion=True)
    return y


def product(x: Tensor, y: Tensor, *, warps: int = 4) -> Tensor:
    """X y^T for x (m, k) and y (n, k), in one program."""
    z = torch.empty(len(x), len(y), dtype=torch.float32, device=x.device)
    shape = {"M": len(x), "N": len(y), "K": 64}
    multiply[(1,)](x, y, z, x.shape[1], **shape, num_warps=warps, num_stages=3, enable_fp_fusion=True)
    return z
