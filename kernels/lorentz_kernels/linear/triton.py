"""The kernels of `linear`: the time of rows, the epilogue of a product forward and backward, and the product fused."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorentz_kernels.configs import Config, pick
from lorentz_kernels.dispatch import interpreting


@triton.jit
def time_rows(X, X0, C, c, count, columns, stride, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """x0 = sqrt(1/c + |x|^2) for BLOCK rows."""
    if C is not None:
        c = tl.load(C).to(tl.float32)
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK, WIDTH], tl.float32)
    for start in range(0, columns, WIDTH):
        column = start + tl.arange(0, WIDTH)[None, :]
        inside = (row < count)[:, None] & (column < columns)
        x = tl.load(X + row[:, None] * stride + column, mask=inside, other=0.0).to(tl.float32)
        total += x * x
    tl.store(X0 + row, tl.sqrt(1 / c + tl.sum(total, 1)), mask=row < count)


@triton.jit
def epilogue_rows(P, X0, WT, B, Y, count, columns, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """y = p + w_t x0 + b for BLOCK rows and WIDTH columns."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    x0 = tl.load(X0 + row, mask=row < count, other=0.0)
    y = x0[:, None] * tl.load(WT + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    if B is not None:
        y += tl.load(B + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    inside = (row < count)[:, None] & (column < columns)[None, :]
    at = row[:, None] * columns + column[None, :]
    y += tl.load(P + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(Y + at, y.to(Y.dtype.element_ty), mask=inside)


@triton.jit
def product_rows(
    X, W, X0, WT, B, Y, count, inner, columns,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """y = W x + w_t x0 + b for BLOCK whole rows: x (count, inner), W (columns, inner), contiguous."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column, depth = tl.arange(0, WIDTH), tl.arange(0, DEPTH)
    x_row = X + row.to(tl.int64)[:, None] * inner
    total = tl.zeros([BLOCK, WIDTH], tl.float32)
    for start in range(0, inner, DEPTH):
        at = start + depth
        x = tl.load(x_row + at[None, :], mask=(row < count)[:, None] & (at < inner)[None, :], other=0.0)
        weight_inside = (column < columns)[None, :] & (at < inner)[:, None]
        weight = tl.load(W + column[None, :] * inner + at[:, None], mask=weight_inside, other=0.0)
        if UPCAST:
            x, weight = x.to(tl.float32), weight.to(tl.float32)
        total = tl.dot(x, weight, total, input_precision="ieee")
    x0 = tl.load(X0 + row, mask=row < count, other=0.0)
    total += x0[:, None] * tl.load(WT + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    if B is not None:
        total += tl.load(B + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    inside = (row < count)[:, None] & (column < columns)[None, :]
    y_at = Y + row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(y_at, total.to(Y.dtype.element_ty), mask=inside)


@triton.jit
def backward_rows(
    G, X0, WT, RATIO, SUMS, count, columns, programs,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """r = g . w_t / x0 of every `programs`-th block of rows, and this program's share of the sums of x0 g and of g."""
    program = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    weight = tl.load(WT + column, mask=column < columns, other=0.0).to(tl.float32)
    timed, plain = tl.zeros([BLOCK, WIDTH], tl.float32), tl.zeros([BLOCK, WIDTH], tl.float32)
    for block in range(program, tl.cdiv(count, BLOCK), programs):
        row = (block * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
        inside = (row < count)[:, None] & (column < columns)[None, :]
        g = tl.load(G + row[:, None] * columns + column[None, :], mask=inside, other=0.0).to(tl.float32)
        x0 = tl.load(X0 + row, mask=row < count, other=1.0)
        tl.store(RATIO + row, tl.sum(g * weight[None, :], 1) / x0, mask=row < count)
        timed += g * x0[:, None]
        plain += g
    share = SUMS + program.to(tl.int64) * 2 * columns + column
    tl.store(share, tl.sum(timed, 0), mask=column < columns)
    tl.store(share + columns, tl.sum(plain, 0), mask=column < columns)


@triton.jit
def add_rows(P, X, RATIO, OUT, count, columns, stride, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """p + r x for BLOCK rows and WIDTH columns."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = (row < count)[:, None] & (column < columns)[None, :]
    ratio = tl.load(RATIO + row, mask=row < count, other=0.0)
    x = tl.load(X + row[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    at = row[:, None] * columns + column[None, :]
    total = tl.load(P + at, mask=inside, other=0.0).to(tl.float32) + ratio[:, None] * x
    tl.store(OUT + at, total.to(OUT.dtype.element_ty), mask=inside)


def time_of(x: Tensor, c: Tensor | None, number: float, config: Config | None = None) -> Tensor:
    """Return the times (N, 1) of x (N, in), for the curvature in c, or, without, in `number`."""
    x = _by_columns(x)
    x0 = torch.empty(len(x), 1, dtype=torch.float32, device=x.device)
    if len(x):
        shape, options = _tile(config or pick("linear", "rows", x, width=x.shape[1]), x.shape[1])
        grid = (triton.cdiv(len(x), shape["BLOCK"]),)
        time_rows[grid](x, x0, c, number, len(x), x.shape[1], x.stride(0), **shape, **options, enable_fp_fusion=True)
    return x0


def epilogue(
    product: Tensor, x0: Tensor, time_weight: Tensor, bias: Tensor | None, config: Config | None = None
) -> Tensor:
    """Return product + x0 w_t + b, (N, out), in the dtype of the product."""
    product, time_weight = product.contiguous(), time_weight.contiguous()
    y = torch.empty(product.shape, dtype=product.dtype, device=product.device)
    if y.numel():
        count, columns = y.shape
        shape, options = _tile(config or pick("linear", "rows", product, width=columns), columns)
        grid = (triton.cdiv(count, shape["BLOCK"]), triton.cdiv(columns, shape["WIDTH"]))
        bias = None if bias is None else bias.contiguous()
        epilogue_rows[grid](
            product, x0, time_weight, bias, y, count, columns, **shape, **options, enable_fp_fusion=True
        )
    return y


def product(
    x: Tensor, weight: Tensor, x0: Tensor, time_weight: Tensor, bias: Tensor | None, config: Config | None = None
) -> Tensor:
    """Return x W^T + x0 w_t + b, (N, out), in the dtype of x, for x (N, in) and W (out, in) of one dtype."""
    x, weight, time_weight = x.contiguous(), weight.contiguous(), time_weight.contiguous()
    (count, inner), columns = x.shape, len(weight)
    y = torch.empty(count, columns, dtype=x.dtype, device=x.device)
    if y.numel():
        config = config or pick("linear", "product", x, width=columns)
        bias = None if bias is None else bias.contiguous()
        product_rows[(triton.cdiv(count, config["BLOCK"]),)](
            x, weight, x0, time_weight, bias, y, count, inner, columns,
            WIDTH=max(16, triton.next_power_of_2(columns)), UPCAST=interpreting(), **config, enable_fp_fusion=True,
        )  # fmt: skip
    return y


def backward(grad: Tensor, x0: Tensor, time_weight: Tensor, config: Config | None = None) -> tuple[Tensor, Tensor]:
    """Return grad . w_t / x0, (N, 1), and the sums over rows of x0 grad and of grad, (2, out), all in float32."""
    grad, time_weight = grad.contiguous(), time_weight.contiguous()
    count, columns = grad.shape
    ratio = torch.empty(count, 1, dtype=torch.float32, device=grad.device)
    if grad.numel() == 0:
        return ratio.zero_(), torch.zeros(2, columns, dtype=torch.float32, device=grad.device)
    config = config or pick("linear", "backward", grad, width=columns)
    most = config.pop("PROGRAMS")
    width = triton.next_power_of_2(columns)
    block = max(1, config.pop("TILE") // width)
    programs = min(most, triton.cdiv(count, block))
    sums = torch.empty(programs, 2, columns, dtype=torch.float32, device=grad.device)
    backward_rows[(programs,)](
        grad, x0, time_weight, ratio, sums, count, columns, programs,
        BLOCK=block, WIDTH=width, **config, enable_fp_fusion=True,
    )  # fmt: skip
    return ratio, sums.sum(0)


def add_time(product: Tensor, x: Tensor, ratio: Tensor, config: Config | None = None) -> Tensor:
    """Return product + ratio x, (N, in), in the dtype of x."""
    product, x = product.contiguous(), _by_columns(x)
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if total.numel():
        count, columns = x.shape
        shape, options = _tile(config or pick("linear", "rows", x, width=columns), columns)
        grid = (triton.cdiv(count, shape["BLOCK"]), triton.cdiv(columns, shape["WIDTH"]))
        add_rows[grid](product, x, ratio, total, count, columns, x.stride(0), **shape, **options, enable_fp_fusion=True)
    return total


def _by_columns(x: Tensor) -> Tensor:
    """Return x with neighbouring columns beside each other, itself where they are."""
    return x if x.stride(1) == 1 else x.contiguous()


def _tile(config: Config, columns: int) -> tuple[dict[str, int], Config]:
    """Return rows and columns of a tile of config["TILE"] numbers, and the rest of the configuration."""
    tile = config.pop("TILE")
    width = min(tile, triton.next_power_of_2(columns))
    return {"BLOCK": tile // width, "WIDTH": width}, config
