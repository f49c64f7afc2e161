"""The kernels of `linear`: the time of rows, the epilogue of a product forward and backward, and the product fused."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorentz_kernels.configs import Config, generation, pick
from lorentz_kernels.dispatch import interpreting
from lorentz_kernels.launch import Remembered, cdiv, next_power_of_2
from lorentz_kernels.linear.activation import FROM_OUTPUT


@Remembered
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
def activate(y, NAME: tl.constexpr):
    """The activation of y, float32; libdevice has a tanh, the interpreter has not."""
    if NAME == "relu":
        y = tl.where(y < 0, 0.0, y)
    elif NAME == "gelu":
        y = 0.5 * y * (1 + tl.erf(y * 0.7071067811865476))
    elif NAME == "silu":
        y = y / (1 + tl.exp(-y))
    elif NAME == "tanh":
        square = y * y
        series = 1 - square * (0.3333333333333333 - square * (0.13333333333333333 - square * 0.05396825396825397))
        y = tl.where(square < 0.01, y * series, 1 - 2 / (1 + tl.exp(2 * y)))
    return y


@triton.jit
def slope_of(kept, NAME: tl.constexpr):
    """The derivative of an activation, from its output for relu and tanh, else from its input."""
    if NAME == "relu":
        slope = tl.where(kept > 0, 1.0, 0.0)
    elif NAME == "gelu":
        density = tl.exp(-0.5 * kept * kept) * 0.3989422804014327
        slope = 0.5 * (1 + tl.erf(kept * 0.7071067811865476)) + kept * density
    elif NAME == "silu":
        share = 1 / (1 + tl.exp(-kept))
        slope = share * (1 + kept * (1 - share))
    else:
        slope = 1 - kept * kept
    return slope


@triton.jit
def finish(total, Y, KEPT, at, inside, ACTIVATION: tl.constexpr):
    """Store what comes before the activation, if it is to be kept, and what comes after; return that as stored."""
    dtype = Y.dtype.element_ty
    if KEPT is not None:
        total = total.to(dtype)
        tl.store(KEPT + at, total, mask=inside)
        total = total.to(tl.float32)
    y = activate(total, ACTIVATION).to(dtype)
    tl.store(Y + at, y, mask=inside)
    return y.to(tl.float32)


@Remembered
@triton.jit
def epilogue_rows(
    P, X0, WT, B, Y, KEPT, Y0, C, c, count, columns,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y = f(p + w_t x0 + b) and its time for BLOCK rows, WIDTH columns at a time."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x0 = tl.load(X0 + row, mask=row < count, other=0.0)
    square = tl.zeros([BLOCK, WIDTH], tl.float32)
    for start in range(tl.program_id(1) * WIDTH, columns, tl.num_programs(1) * WIDTH):
        column = start + tl.arange(0, WIDTH)
        total = x0[:, None] * tl.load(WT + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
        if B is not None:
            total += tl.load(B + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
        inside = (row < count)[:, None] & (column < columns)[None, :]
        at = row[:, None] * columns + column[None, :]
        total += tl.load(P + at, mask=inside, other=0.0).to(tl.float32)
        y = finish(total, Y, KEPT, at, inside, ACTIVATION)
        if Y0 is not None:
            square += tl.where(inside, y * y, 0.0)
    if Y0 is not None:
        if C is not None:
            c = tl.load(C).to(tl.float32)
        tl.store(Y0 + row, tl.sqrt(1 / c + tl.sum(square, 1)), mask=row < count)


@Remembered
@triton.jit
def product_rows(
    X, W, X0, WT, B, Y, KEPT, Y0, C, c, count, inner, columns,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """y = f(W x + w_t x0 + b) and its time for BLOCK whole rows: x (count, inner), W (columns, inner), contiguous."""
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
    y_at = row.to(tl.int64)[:, None] * columns + column[None, :]
    y = finish(total, Y, KEPT, y_at, inside, ACTIVATION)
    if Y0 is not None:
        if C is not None:
            c = tl.load(C).to(tl.float32)
        tl.store(Y0 + row, tl.sqrt(1 / c + tl.sum(tl.where(inside, y * y, 0.0), 1)), mask=row < count)


@Remembered
@triton.jit
def backward_rows(
    G, X0, WT, KEPT, Y0, TO_Y0, RATIO, SUMS, BEFORE, count, columns, programs,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """r = g . w_t / x0 of every `programs`-th block of rows, and this program's share of the sums of x0 g and of g.

    Where KEPT is given, g is first taken back through the time of the output and the activation, and stored.
    """
    program = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    weight = tl.load(WT + column, mask=column < columns, other=0.0).to(tl.float32)
    timed, plain = tl.zeros([BLOCK, WIDTH], tl.float32), tl.zeros([BLOCK, WIDTH], tl.float32)
    for block in range(program, tl.cdiv(count, BLOCK), programs):
        row = (block * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
        inside = (row < count)[:, None] & (column < columns)[None, :]
        at = row[:, None] * columns + column[None, :]
        g = tl.load(G + at, mask=inside, other=0.0).to(tl.float32)
        if KEPT is not None:
            dtype = BEFORE.dtype.element_ty
            kept = tl.load(KEPT + at, mask=inside, other=0.0).to(tl.float32)
            if TO_Y0 is not None:
                y = kept
                if ACTIVATION == "gelu" or ACTIVATION == "silu":
                    y = activate(kept, ACTIVATION).to(KEPT.dtype.element_ty).to(tl.float32)
                y0 = tl.load(Y0 + row, mask=row < count, other=1.0)
                g += (tl.load(TO_Y0 + row, mask=row < count, other=0.0) / y0)[:, None] * y
            if ACTIVATION != "":
                g *= slope_of(kept, ACTIVATION)
            tl.store(BEFORE + at, g.to(dtype), mask=inside)
            g = g.to(dtype).to(tl.float32)
        x0 = tl.load(X0 + row, mask=row < count, other=1.0)
        tl.store(RATIO + row, tl.sum(g * weight[None, :], 1) / x0, mask=row < count)
        timed += g * x0[:, None]
        plain += g
    share = SUMS + program.to(tl.int64) * 2 * columns + column
    tl.store(share, tl.sum(timed, 0), mask=column < columns)
    tl.store(share + columns, tl.sum(plain, 0), mask=column < columns)


@Remembered
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
        grid = (cdiv(len(x), shape["BLOCK"]),)
        time_rows[grid](x, x0, c, number, len(x), x.shape[1], x.stride(0), **shape, **options, enable_fp_fusion=True)
    return x0


def epilogue(
    product: Tensor,
    x0: Tensor,
    time_weight: Tensor,
    bias: Tensor | None,
    activation: str,
    timed: bool,
    c: Tensor | None,
    number: float,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return f(product + x0 w_t + b), (N, out), in the dtype of the product, what is to be kept, and its time."""
    product, x0, time_weight = product.contiguous(), x0.contiguous(), time_weight.contiguous()
    count, columns = product.shape
    y, kept, y0 = _outputs(product, columns, activation, timed)
    if y.numel():
        shape, options = _tile(config or pick("linear", "rows", product, width=columns), columns)
        # The time of a row is that of all its columns: one program takes them all.
        grid = (cdiv(count, shape["BLOCK"]), 1 if timed else cdiv(columns, shape["WIDTH"]))
        bias = None if bias is None else bias.contiguous()
        epilogue_rows[grid](
            product, x0, time_weight, bias, y, _filled(kept), _filled(y0), c, number, count, columns,
            ACTIVATION=activation, **shape, **options, enable_fp_fusion=True,
        )  # fmt: skip
    return y, kept, y0


def product(
    x: Tensor,
    weight: Tensor,
    x0: Tensor,
    time_weight: Tensor,
    bias: Tensor | None,
    activation: str,
    timed: bool,
    c: Tensor | None,
    number: float,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same of x W^T in the place of the product, for x (N, in) and W (out, in) of one dtype."""
    x, weight, x0, time_weight = (part.contiguous() for part in (x, weight, x0, time_weight))
    (count, inner), columns = x.shape, len(weight)
    y, kept, y0 = _outputs(x, columns, activation, timed)
    if y.numel():
        config = config or pick("linear", "product", x, width=columns, sm=generation())
        bias = None if bias is None else bias.contiguous()
        product_rows[(cdiv(count, config["BLOCK"]),)](
            x, weight, x0, time_weight, bias, y, _filled(kept), _filled(y0), c, number, count, inner, columns,
            ACTIVATION=activation, WIDTH=max(16, next_power_of_2(columns)), UPCAST=interpreting(), **config,
            enable_fp_fusion=True,
        )  # fmt: skip
    return y, kept, y0


def backward(
    grad: Tensor,
    x0: Tensor,
    time_weight: Tensor,
    kept: Tensor | None,
    y0: Tensor | None,
    to_y0: Tensor | None,
    activation: str,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return g . w_t / x0, (N, 1), the sums over rows of x0 g and of g, (2, out), all in float32, and g, (N, out).

    g is `grad` taken back through the time of the output and the activation; it is empty where that is `grad` itself.
    """
    grad, x0, time_weight = grad.contiguous(), x0.contiguous(), time_weight.contiguous()
    count, columns = grad.shape
    ratio = torch.empty(count, 1, dtype=torch.float32, device=grad.device)
    before = torch.empty(0 if kept is None else count, columns, dtype=grad.dtype, device=grad.device)
    if grad.numel() == 0:
        return ratio.zero_(), torch.zeros(2, columns, dtype=torch.float32, device=grad.device), before
    config = config or pick("linear", "backward", grad, width=columns)
    most = config.pop("PROGRAMS")
    width = next_power_of_2(columns)
    block = max(1, config.pop("TILE") // width)
    programs = min(most, cdiv(count, block))
    sums = torch.empty(programs, 2, columns, dtype=torch.float32, device=grad.device)
    backward_rows[(programs,)](
        grad, x0, time_weight, *(None if part is None else part.contiguous() for part in (kept, y0, to_y0)),
        ratio, sums, before, count, columns, programs,
        ACTIVATION=activation, BLOCK=block, WIDTH=width, **config, enable_fp_fusion=True,
    )  # fmt: skip
    return ratio, sums.sum(0), before


def _outputs(like: Tensor, columns: int, activation: str, timed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the empty outputs of an epilogue; of what nobody wants, one without numbers."""
    count = len(like)
    kept = (0, count) if activation in FROM_OUTPUT else (count, columns)
    y, before = (torch.empty(shape, dtype=like.dtype, device=like.device) for shape in ((count, columns), kept))
    return y, before, torch.empty(count if timed else 0, 1, dtype=torch.float32, device=like.device)


def _filled(x: Tensor) -> Tensor | None:
    return x if x.numel() else None


def add_time(product: Tensor, x: Tensor, ratio: Tensor, config: Config | None = None) -> Tensor:
    """Return product + ratio x, (N, in), in the dtype of x."""
    product, x = product.contiguous(), _by_columns(x)
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if total.numel():
        count, columns = x.shape
        shape, options = _tile(config or pick("linear", "rows", x, width=columns), columns)
        grid = (cdiv(count, shape["BLOCK"]), cdiv(columns, shape["WIDTH"]))
        add_rows[grid](product, x, ratio, total, count, columns, x.stride(0), **shape, **options, enable_fp_fusion=True)
    return total


def _by_columns(x: Tensor) -> Tensor:
    """Return x with neighbouring columns beside each other, itself where they are."""
    return x if x.stride(1) == 1 else x.contiguous()


def _tile(config: Config, columns: int) -> tuple[dict[str, int], Config]:
    """Return rows and columns of a tile of config["TILE"] numbers, and the rest of the configuration."""
    tile = config.pop("TILE")
    width = min(tile, next_power_of_2(columns))
    return {"BLOCK": tile // width, "WIDTH": width}, config
