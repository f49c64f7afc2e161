"""The kernel of `riemannian_adam`: reads x, g, w and v of a row once, writes x, w and v once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorentz_kernels.configs import Config, pick
from lorentz_kernels.launch import Remembered, cdiv, next_power_of_2

# The fourth root and the square root of the largest float32: how long vectors and times may become, and their squares.
LONGEST = tl.constexpr(torch.finfo(torch.float32).max ** 0.25)
LARGEST = tl.constexpr(torch.finfo(torch.float32).max ** 0.5)
TINY = tl.constexpr(torch.finfo(torch.float32).tiny)


@Remembered
@triton.jit
def adam_rows(
    X, GRAD, W, V, V_MAX, ROWS, SETTINGS, rate, bias2, c, decay1, share1, decay2, share2, eps,
    count, columns, x_stride, grad_stride, w_stride,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One step for BLOCK rows, each held whole in registers: naive.py, line for line, in float32.

    V and V_MAX hold a number for each row; ROWS the rows that GRAD holds, none if it holds all; SETTINGS (rate, bias2,
    c) where one of them is known on the device only.
    """
    if SETTINGS is not None:
        rate, bias2, c = tl.load(SETTINGS), tl.load(SETTINGS + 1), tl.load(SETTINGS + 2)
    slot = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = slot < count
    row = slot
    if ROWS is not None:
        row = tl.load(ROWS + slot, mask=live, other=0)
    column = tl.arange(0, WIDTH)[None, :]
    inside = live[:, None] & (column < columns)
    x_at, w_at = X + row[:, None] * x_stride + column, W + row[:, None] * w_stride + column
    x = tl.load(x_at, mask=inside, other=0.0)
    w = tl.load(w_at, mask=inside, other=0.0)
    grad = tl.load(GRAD + slot[:, None] * grad_stride + column, mask=inside, other=0.0)
    v = tl.load(V + row, mask=live, other=0.0)

    grad_square = tl.sum(grad * grad, 1)
    lost = grad_square == float("inf")  # products with it may be inf - inf
    grad_along = tl.where(lost, 0.0, tl.sum(x * grad, 1))
    grad_length = grad_square + c * grad_along * grad_along
    keep = cut(grad_length)
    share = share1 * keep
    w_next = decay1 * w + share[:, None] * grad
    along = decay1 * tl.sum(x * w, 1) + share * grad_along
    overlap = tl.where(lost, 0.0, tl.sum(w * grad, 1))
    kept_square = share * share * tl.where(lost, 0.0, grad_square)
    square = decay1 * decay1 * tl.sum(w * w, 1) + 2 * decay1 * share * overlap + kept_square
    v = decay2 * v + share2 * tl.minimum(grad_length, LARGEST, propagate_nan=tl.PropagateNan.ALL)
    tl.store(V + row, v, mask=live)
    if V_MAX is not None:
        v = tl.maximum(v, tl.load(V_MAX + row, mask=live, other=0.0), propagate_nan=tl.PropagateNan.ALL)
        tl.store(V_MAX + row, v, mask=live)
    pace = rate / (tl.sqrt(v / bias2) + eps)

    length = square + c * along * along
    t = pace * tl.sqrt(tl.maximum(c * length, 0.0, propagate_nan=tl.PropagateNan.ALL))
    time = tl.sqrt(1 / c + tl.sum(x * x, 1))
    room = tl.maximum(1 / (time / LONGEST) - 1, 0.0, propagate_nan=tl.PropagateNan.ALL)
    more = tl.minimum(expm1(t), room, propagate_nan=tl.PropagateNan.ALL)  # e^s - 1, s the share of t that is taken
    least = 1 / (1 + more)
    less = more * least  # 1 - e^-s
    sinh = pace * (more + less) / 2 / tl.maximum(t, TINY, propagate_nan=tl.PropagateNan.ALL)
    growth = 1 + more * less / 2 - c * sinh * along
    growth = tl.maximum(growth, least, propagate_nan=tl.PropagateNan.ALL)
    tl.store(x_at, growth[:, None] * x - sinh[:, None] * w_next, mask=inside)
    tl.store(w_at, (cut(length) / growth)[:, None] * w_next, mask=inside)


@triton.jit
def cut(squared):
    """The factor that cuts vectors of this squared length to the longest."""
    return 1 / tl.sqrt(tl.maximum(squared, LARGEST, propagate_nan=tl.PropagateNan.ALL) / LARGEST)


@triton.jit
def expm1(t):
    """e^t - 1 for t >= 0, by its series to the ninth power below 1/2."""
    z = tl.minimum(t, 0.5)
    series = 1.0 + z / 9
    for k in tl.static_range(8, 1, -1):
        series = 1.0 + z / k * series
    bounded = tl.minimum(t, 80.0, propagate_nan=tl.PropagateNan.ALL)  # far beyond the longest time, and representable
    return tl.where(t < 0.5, z * series, tl.exp(bounded) - 1)


def step_rows(
    x: Tensor,
    grad: Tensor,
    w: Tensor,
    v: Tensor,
    v_max: Tensor | None,
    rows: Tensor | None,
    settings: Tensor | None,
    rate: float,
    bias2: float,
    c: float,
    betas: tuple[float, float],
    eps: float,
    config: Config | None = None,
) -> None:
    """Step in place: x and w (N, n) with unit column stride, v and v_max (N, 1); grad of all rows, or those listed."""
    count, columns = grad.shape
    if grad.numel() == 0:
        return
    beta1, beta2 = betas
    config = config or pick("riemannian_adam", "rows", x, width=columns)
    block = config.pop("BLOCK")
    adam_rows[(cdiv(count, block),)](
        x, grad, w, v, v_max, rows, settings, rate, bias2, c, beta1, 1 - beta1, beta2, 1 - beta2, eps,
        count, columns, x.stride(0), grad.stride(0), w.stride(0),
        BLOCK=block, WIDTH=next_power_of_2(columns), **config, enable_fp_fusion=True,
    )  # fmt: skip
