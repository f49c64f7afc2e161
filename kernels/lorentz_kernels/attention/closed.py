"""The columns of attention with their first derivative in closed form.

Autograd would revisit all intermediate results of `columns`, which on a CPU takes as long as the attention itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lorentz_kernels.attention.columns import Columns
from lorentz_kernels.precision import Curvature, curvature


def with_time(x: Tensor, sign: int, c: Curvature) -> Tensor:
    """Return `columns.with_time`."""
    rows: Tensor = _WithTime.apply(x, sign, c)
    return rows


def with_height(x: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    """Return `columns.with_height`; the gradient in R is left out, since it cancels against that of the mean."""
    rows: Tensor = _WithHeight.apply(x, reference, c)
    return rows


def mean_to_point(mean: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    """Return `columns.mean_to_point`; the gradient in R is left out."""
    point: Tensor = _MeanToPoint.apply(mean, reference, c)
    return point


CLOSED = Columns(with_time, with_height, mean_to_point)


class _WithTime(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sign: int, c: Curvature) -> Tensor:
        rows, x0 = _rows(x), _time(x, c)
        rows[..., :-1], rows[..., -1:] = x, sign * x0
        ctx.sign = sign
        _put(ctx, x, x0, c)
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, x0, c = _get(ctx)
        slope = ctx.sign * grad[..., -1:]
        to_x = torch.addcmul(grad[..., :-1], x, slope / x0)
        return to_x, None, _through_time(slope, x0, c) if ctx.needs_input_grad[2] else None


class _WithHeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, reference: Tensor, c: Curvature) -> Tensor:
        rows = _rows(x)
        seen = see(torch.sub(x, reference, out=rows[..., :-1]), reference, c)
        rows[..., -1:] = seen.height
        _put(ctx, seen.turn, seen.time, c)
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        turn, x0, c = _get(ctx)
        slope = grad[..., -1:]
        to_x = torch.addcmul(grad[..., :-1], turn, slope / x0)  # dh/dx = x / x0 - u = turn / x0
        return to_x, None, _through_time(slope, x0, c) if ctx.needs_input_grad[2] else None


class _MeanToPoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, reference: Tensor, c: Curvature) -> Tensor:
        seen = see(mean[..., :-1], reference, c)
        excess = (mean[..., -1:] - seen.height).clamp_min_(0)  # the sheet is convex; rounding is not
        factor = (1 + curvature(c, excess) * excess * (2 * seen.time + excess)).rsqrt_()
        point = seen.point.mul_(factor)
        rise, m0 = seen.rise.add_(excess), seen.time.add_(excess)
        _put(ctx, point, mean, reference, rise, m0, factor, c)
        return point

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # The point is homogeneous in (m0, m) of degree 0: dy = dm f - y f^2 c (m0 dm0 - m . dm), m0 = h + R0 + u . d.
        point, mean, reference, rise, m0, factor, c = _get(ctx)
        k, along, to_mean = curvature(c, m0), _dot(grad, point), torch.empty_like(mean)
        slope = k * factor.square() * along
        space = torch.mul(grad, factor, out=to_mean[..., :-1])
        space.addcmul_(mean[..., :-1], slope)
        space.addcmul_(reference, slope * rise / _time(reference, c), value=-1)
        torch.mul(slope, m0, out=to_mean[..., -1:]).neg_()
        to_c = (along / (-2 * k)).sum_to_size(c.shape).to(c.dtype) if ctx.needs_input_grad[2] else None
        return to_mean, None, to_c


class Seen(NamedTuple):
    """A point as seen from R."""

    point: Tensor  # x, (..., n)
    turn: Tensor  # d - delta u, (..., n)
    rise: Tensor  # delta, (..., 1)
    time: Tensor  # x0, (..., 1)
    height: Tensor  # h, (..., 1)


def see(gap: Tensor, reference: Tensor, c: Curvature) -> Seen:
    """Return R + d as seen from R."""
    x = gap + reference  # rounded alike for a value and for the mean that selects it, whose heights then agree
    x0, r0 = _time(x, c), _time(reference, c)
    rise = (_square(gap) + 2 * _dot(gap, reference)) / (x0 + r0)
    turn = torch.addcmul(gap, rise, reference / r0, value=-1)
    radial = (rise / r0).square() / curvature(c, r0)
    return Seen(x, turn, rise, x0, (_square(turn) + radial) / (2 * x0))


def _rows(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], x.shape[-1] + 1)


def _time(x: Tensor, c: Curvature) -> Tensor:
    return (1 / curvature(c, x) + _square(x)).sqrt_()


def _square(x: Tensor) -> Tensor:
    """Return x . x as a column, in one pass that stores no products."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


def _through_time(grad: Tensor, x0: Tensor, c: Tensor) -> Tensor:
    """Return the gradient in c of what depends on it through times x0 = sqrt(1/c + |x|^2)."""
    return (-grad / (2 * c.square() * x0)).sum_to_size(c.shape).to(c.dtype)


def _put(ctx: Any, *values: Any) -> None:
    """Save tensors, of which the last, c, may be a number."""
    *tensors, c = values
    ctx.number = None if isinstance(c, Tensor) else c
    ctx.save_for_backward(*tensors, *([c] if ctx.number is None else []))


def _get(ctx: Any) -> tuple[Any, ...]:
    return (*ctx.saved_tensors, *([] if ctx.number is None else [ctx.number]))
