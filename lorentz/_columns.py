r"""The columns that attention adds to rows of space coordinates: times, and heights of the sheet over a plane.

Values are measured from a reference point R, so that sums over them are as small as their spread. With
:math:`u = R / R_0`, the gap d = x - R and the time gap :math:`\delta = x_0 - R_0 = d \cdot (x + R) / (x_0 + R_0)`, the
height of the sheet over its tangent plane at R is

.. math::
    h(x) = \delta - u \cdot d = \frac{|x - R|_L^2}{2 R_0}
         = \frac{1}{2 x_0} \left( |d - \delta u|^2 + \frac{\delta^2}{c R_0^2} \right),

exact near R, where differences of times cancel. Any plane would do, so derivatives hold R and :math:`R_0` constant.

Each function is there twice: plain, with every derivative, and with its first derivative in closed form, because
autograd would revisit all intermediate results, which on a CPU takes as long as the attention itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lorentz._precision import Curvature, curvature


def with_time(x: Tensor, scale: Tensor | float, sign: int, c: Curvature) -> Tensor:
    """Return scale (x, sign x0), the rows of a Minkowski product: (..., L, n) to (..., L, n + 1).

    `scale` is a float or broadcasts to (..., L, 1).
    """
    return _rows(x, _time(x, c), scale, sign)


def with_height(x: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    """Return (x - R, h(x)): (..., S, n), (..., 1, n) to (..., S, n + 1)."""
    gap = x - reference
    return _join(gap, _see(gap, reference, c).height)


def mean_to_point(mean: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    r"""Return the point on the ray through a mean m of points, from the mean of their (x - R, h(x)).

    .. math::
        \frac{m}{\sqrt c \sqrt{m_0^2 - |m|^2}} = \frac{m}{\sqrt{1 + c\,e\,(2 \mu_0 + e)}}, \quad
        \mu_0 = \sqrt{1/c + |m|^2}, \; e = m_0 - \mu_0 = \bar h - h(m).

    Shapes (..., L, n + 1), (..., 1, n) to (..., L, n).
    """
    seen, _, factor = _above(mean, reference, c)
    return factor * seen.point


class Columns(NamedTuple):
    """The three functions, in one of their two forms."""

    with_time: Callable[[Tensor, Tensor | float, int, Curvature], Tensor]
    with_height: Callable[[Tensor, Tensor, Curvature], Tensor]
    mean_to_point: Callable[[Tensor, Tensor, Curvature], Tensor]


class _Seen(NamedTuple):
    """A point as seen from R, in columns but for the first two."""

    point: Tensor  # x, (..., n)
    turn: Tensor  # d - delta u, (..., n)
    rise: Tensor  # delta
    time: Tensor  # x0
    height: Tensor  # h


def _see(gap: Tensor, reference: Tensor, c: Curvature) -> _Seen:
    x = gap + reference  # rounded alike for a value and for the mean that selects it, whose heights then agree
    x0, r0 = _time(x, c), _time(reference, c)
    rise = (_square(gap) + 2 * _dot(gap, reference)) / (x0 + r0)
    turn = torch.addcmul(gap, rise, reference / r0, value=-1)
    radial = (rise / r0) * (rise / r0) / curvature(c, r0)
    return _Seen(x, turn, rise, x0, (_square(turn) + radial) / (2 * x0))


def _above(mean: Tensor, reference: Tensor, c: Curvature) -> tuple[_Seen, Tensor, Tensor]:
    """Return m as seen from R, e, and the factor of m."""
    seen = _see(mean[..., :-1].contiguous(), reference, c)  # so that sums round as those of the values do
    excess = (mean[..., -1:] - seen.height).clamp_min(0)  # the sheet is convex; rounding is not
    return seen, excess, (1 + curvature(c, excess) * excess * (2 * seen.time + excess)).rsqrt()


def _rows(x: Tensor, x0: Tensor, scale: Tensor | float, sign: int) -> Tensor:
    rows = _join(x, sign * x0)
    return rows if _is_one(scale) else scale * rows


def _join(space: Tensor, column: Tensor) -> Tensor:
    """Return rows of n + 1 numbers; without a graph to keep, faster than torch.cat copies so short a last row."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.cat([space, column], dim=-1)
    rows = space.new_empty(*space.shape[:-1], space.shape[-1] + 1)
    rows[..., :-1], rows[..., -1:] = space, column
    return rows


def _is_one(scale: Tensor | float) -> bool:
    return not isinstance(scale, Tensor) and scale == 1


def _time(x: Tensor, c: Curvature) -> Tensor:
    return (1 / curvature(c, x) + _square(x)).sqrt()


def _square(x: Tensor) -> Tensor:
    """Return x . x as a column; without a graph to keep, in one pass that stores no products."""
    if torch.is_grad_enabled():
        return _dot(x, x)
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


class _WithTime(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | float, sign: int, c: Curvature) -> Tensor:
        x0 = _time(x, c)
        _put(ctx, x, x0, scale, sign, c)
        return _rows(x, x0, scale, sign)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, x0, scale, sign, c = _get(ctx)
        space, slope = grad[..., :-1], sign * grad[..., -1:]
        to_x = torch.addcmul(space, x, slope / x0)
        to_x = to_x if _is_one(scale) else to_x.mul_(scale)
        to_scale = (_dot(space, x) + slope * x0).sum_to_size(scale.shape) if ctx.needs_input_grad[1] else None
        to_c = _through_time(scale * slope, x0, c) if ctx.needs_input_grad[3] else None
        return to_x, to_scale, None, to_c


class _WithHeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, reference: Tensor, c: Curvature) -> Tensor:
        gap = x - reference
        seen = _see(gap, reference, c)
        _put(ctx, seen.turn, seen.time, c)
        return _join(gap, seen.height)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        turn, x0, c = _get(ctx)
        space, slope = grad[..., :-1], grad[..., -1:]
        to_c = _through_time(slope, x0, c) if ctx.needs_input_grad[2] else None
        return torch.addcmul(space, turn, slope / x0), None, to_c  # dh/dx = x / x0 - u = turn / x0


class _MeanToPoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, reference: Tensor, c: Curvature) -> Tensor:
        seen, excess, factor = _above(mean, reference, c)
        point = seen.point.mul_(factor)
        _put(ctx, point, mean, reference, seen.rise + excess, seen.time + excess, factor, c)
        return point

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # The point is homogeneous in (m0, m) of degree 0: dy = dm f - y f^2 c (m0 dm0 - m . dm), m0 = h + R0 + u . d.
        point, mean, reference, rise, m0, factor, c = _get(ctx)
        k, along = curvature(c, m0), _dot(grad, point)
        slope = k * factor * factor * along
        slant = slope * rise / _time(reference, c)
        space = (factor * grad).addcmul_(mean[..., :-1], slope).addcmul_(reference, slant, value=-1)
        to_c = (along / (-2 * k)).sum_to_size(c.shape).to(c.dtype) if ctx.needs_input_grad[2] else None
        return _join(space, -slope * m0), None, to_c


def _through_time(grad: Tensor, x0: Tensor, c: Tensor) -> Tensor:
    """Return the gradient in c of what depends on it through times x0 = sqrt(1/c + |x|^2)."""
    return (-grad / (2 * c.square() * x0)).sum_to_size(c.shape).to(c.dtype)


def _put(ctx: Any, *values: Any) -> None:
    """Save tensors and numbers for `_get`."""
    ctx.save_for_backward(*(value if isinstance(value, Tensor) else None for value in values))
    ctx.numbers = [None if isinstance(value, Tensor) else value for value in values]


def _get(ctx: Any) -> list[Any]:
    return [
        value if value is not None else number for value, number in zip(ctx.saved_tensors, ctx.numbers, strict=True)
    ]


def _closed_with_time(x: Tensor, scale: Tensor | float, sign: int, c: Curvature) -> Tensor:
    rows: Tensor = _WithTime.apply(x, scale, sign, c)
    return rows


def _closed_with_height(x: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    rows: Tensor = _WithHeight.apply(x, reference, c)
    return rows


def _closed_mean_to_point(mean: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    point: Tensor = _MeanToPoint.apply(mean, reference, c)
    return point


PLAIN = Columns(with_time, with_height, mean_to_point)
CLOSED = Columns(_closed_with_time, _closed_with_height, _closed_mean_to_point)
