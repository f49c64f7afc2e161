"""The columns of attention, and their gradients in closed form, which make anew what is cheap to make.

Autograd would revisit all intermediate results of `columns`, which on a CPU takes as long as the attention itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lorentz_kernels.precision import Curvature, curvature


def with_time(x: Tensor, sign: int, c: Curvature, slope: float | Tensor = 1.0) -> Tensor:
    """Return `columns.with_time`."""
    rows = _rows(x)
    torch.mul(x, slope, out=rows[..., :-1])
    torch.mul(_time(x, c), sign * slope, out=rows[..., -1:])
    return rows


def time_gradient(
    grad: Tensor, x: Tensor, sign: int, c: Curvature, slope: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the gradient of `with_time` in x, and for each row that in c, (..., 1)."""
    x0, of_time = _time(x, c), sign * slope * grad[..., -1:]
    to_x = torch.mul(grad[..., :-1], slope).addcmul_(x, of_time / x0)
    return to_x, _through_time(of_time, x0, c)


def slope_gradient(grad: Tensor, x: Tensor, sign: int, c: Curvature) -> Tensor:
    """Return for each row the gradient of `with_time` in the slope, (..., 1)."""
    return _dot(grad[..., :-1], x) + sign * grad[..., -1:] * _time(x, c)


def with_height(x: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    """Return `columns.with_height`."""
    rows = _rows(x)
    rows[..., -1:] = see(torch.sub(x, reference, out=rows[..., :-1]), reference, c).height
    return rows


def height_gradient(grad: Tensor, x: Tensor, reference: Tensor, c: Curvature) -> tuple[Tensor, Tensor]:
    """Return the gradient of `with_height` in x, and for each row that in c; that in R cancels that of the mean."""
    seen = see(x - reference, reference, c)
    slope = grad[..., -1:]
    to_x = torch.addcmul(grad[..., :-1], seen.turn, slope / seen.time)  # dh/dx = x / x0 - u = turn / x0
    return to_x, _through_time(slope, seen.time, c)


def mean_to_point(mean: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    """Return `columns.mean_to_point`."""
    seen, _, factor = _scaled(mean, reference, c)
    return seen.point.mul_(factor)


def mean_gradient(grad: Tensor, mean: Tensor, reference: Tensor, c: Curvature) -> tuple[Tensor, Tensor]:
    """Return the gradient of `mean_to_point` in the mean, and for each row that in c; that in R is left out."""
    # The point is homogeneous in (m0, m) of degree 0: dy = dm f - y f^2 c (m0 dm0 - m . dm), m0 = h + R0 + u . d.
    seen, excess, factor = _scaled(mean, reference, c)
    k, to_mean = curvature(c, factor), _rows_before_heads(mean)
    along = _dot(grad, seen.point).mul_(factor)
    slope = k * factor.square() * along
    space = torch.mul(grad, factor, out=to_mean[..., :-1])
    space.addcmul_(mean[..., :-1], slope)
    space.addcmul_(reference, slope * (seen.rise + excess) / _time(reference, c), value=-1)
    torch.mul(slope, seen.time + excess, out=to_mean[..., -1:]).neg_()
    return to_mean, along / (-2 * k)


def _scaled(mean: Tensor, reference: Tensor, c: Curvature) -> tuple[Seen, Tensor, Tensor]:
    """Return the mean as seen from R, its height over the sheet, and the factor that puts it there."""
    seen = see(mean[..., :-1], reference, c)
    excess = (mean[..., -1:] - seen.height).clamp_min_(0)  # the sheet is convex; rounding is not
    return seen, excess, (1 + curvature(c, excess) * excess * (2 * seen.time + excess)).rsqrt_()


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


def _rows_before_heads(x: Tensor) -> Tensor:
    """Return an empty (B, H, L, n) in the order (B, L, H, n), to which torch's attention on a CPU would copy it."""
    return x.new_empty(x.transpose(1, 2).shape).transpose(1, 2)


def _time(x: Tensor, c: Curvature) -> Tensor:
    return (1 / curvature(c, x) + _square(x)).sqrt_()


def _square(x: Tensor) -> Tensor:
    """Return x . x as a column, in one pass that stores no products."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


def _through_time(grad: Tensor, x0: Tensor, c: Curvature) -> Tensor:
    """Return the gradient in c of what depends on it through times x0 = sqrt(1/c + |x|^2)."""
    k = curvature(c, x0)
    return grad / (-2 * k * k * x0)
