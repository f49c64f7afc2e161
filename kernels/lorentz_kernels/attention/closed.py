"""The columns of attention, and their gradients in closed form, which make anew what is cheap to make.

Autograd would revisit all intermediate results of `columns`, which on a CPU takes as long as the attention itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lorentz_kernels.precision import Curvature, curvature, widen


def time_rows(x: Tensor, x0: Tensor, sign: int, slope: float | Tensor = 1.0) -> Tensor:
    """Return `columns.with_time`, given the times."""
    rows = _rows(x)
    torch.mul(x, slope, out=rows[..., :-1])
    torch.mul(x0, sign * slope, out=rows[..., -1:])
    return rows


def time_gradient(
    grad: Tensor, x: Tensor, x0: Tensor, sign: int, c: Curvature, slope: float | Tensor = 1.0, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of `time_rows` in x, through the times as well, and for each row that in c, (..., 1)."""
    of_time = sign * grad[..., -1:]
    to_x = torch.addcmul(grad[..., :-1], x, of_time / x0, out=out)
    return to_x if isinstance(slope, float) and slope == 1 else to_x.mul_(slope), _through_time(slope * of_time, x0, c)


def slope_gradient(grad: Tensor, x: Tensor, x0: Tensor, sign: int) -> Tensor:
    """Return for each row the gradient of `time_rows` in the slope, (..., 1)."""
    return dot(grad[..., :-1], x) + sign * grad[..., -1:] * x0


class Heights(NamedTuple):
    """What is kept of points seen from R, each (..., 1)."""

    rise: Tensor
    time: Tensor
    height: Tensor


def heights(x: Tensor, reference: Tensor, c: Curvature) -> Heights:
    """Return what `columns.with_height` has of each row beside the gap."""
    seen = see(x - reference, reference, c)
    return Heights(seen.rise, seen.time, seen.height)


def height_rows(x: Tensor, reference: Tensor, at: Heights) -> Tensor:
    """Return `columns.with_height`, given the heights."""
    rows = _rows(x)
    torch.sub(x, reference, out=rows[..., :-1])
    rows[..., -1:] = at.height
    return rows


def height_gradient(
    grad: Tensor, x: Tensor, reference: Tensor, at: Heights, c: Curvature, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of `height_rows` in x, and for each row that in c; that in R cancels that of the mean."""
    turn = (x - reference).addcmul_(at.rise, reference / time(reference, c), value=-1)
    slope = grad[..., -1:]
    to_x = torch.addcmul(grad[..., :-1], turn, slope / at.time, out=out)  # dh/dx = x / x0 - u = turn / x0
    return to_x, _through_time(slope, at.time, c)


class Factors(NamedTuple):
    """What is kept of means: their rise and time, and what puts them on the sheet, each (..., 1)."""

    rise: Tensor
    time: Tensor
    factor: Tensor


def mean_to_point(mean: Tensor, reference: Tensor, c: Curvature, out: Tensor | None = None) -> tuple[Tensor, Factors]:
    """Return `columns.mean_to_point`."""
    seen = see(mean[..., :-1], reference, c)
    excess = (mean[..., -1:] - seen.height).clamp_min_(0)  # the sheet is convex; rounding is not
    factor = (1 + curvature(c, excess) * excess * (2 * seen.time + excess)).rsqrt_()
    return torch.mul(seen.point, factor, out=out), Factors(seen.rise.add_(excess), seen.time.add_(excess), factor)


def mean_gradient(grad: Tensor, mean: Tensor, reference: Tensor, at: Factors, c: Curvature) -> tuple[Tensor, Tensor]:
    """Return the gradient of `mean_to_point` in the mean, and for each row that in c; that in R is left out."""
    # The point is homogeneous in (m0, m) of degree 0: dy = dm f - y f^2 c (m0 dm0 - m . dm), m0 = h + R0 + u . d.
    k, to_mean = curvature(c, at.factor), _rows_before_heads(mean)
    along = dot(grad, mean[..., :-1] + reference).mul_(at.factor)
    slope = k * at.factor.square() * along
    space = torch.mul(grad, at.factor, out=to_mean[..., :-1])
    space.addcmul_(mean[..., :-1], slope)
    space.addcmul_(reference, slope * at.rise / time(reference, c), value=-1)
    torch.mul(slope, at.time, out=to_mean[..., -1:]).neg_()
    return to_mean, along / (-2 * k)


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
    x0, r0 = time(x, c), time(reference, c)
    rise = (square(gap) + 2 * dot(gap, reference)) / (x0 + r0)
    turn = torch.addcmul(gap, rise, reference / r0, value=-1)
    radial = (rise / r0).square() / curvature(c, r0)
    return Seen(x, turn, rise, x0, (square(turn) + radial) / (2 * x0))


def _rows(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], x.shape[-1] + 1)


def _rows_before_heads(x: Tensor) -> Tensor:
    """Return an empty (B, H, L, n) in the order (B, L, H, n), to which torch's attention on a CPU would copy it."""
    return x.new_empty(x.transpose(1, 2).shape).transpose(1, 2)


def time(x: Tensor, c: Curvature) -> Tensor:
    """Return x0 = sqrt(1/c + |x|^2), (..., 1)."""
    return (1 / curvature(c, x) + square(x)).sqrt_()


def square(x: Tensor) -> Tensor:
    """Return x . x as a column, in one pass that stores no products."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return x . y as a column."""
    return (x * y).sum(-1, keepdim=True)


def _through_time(grad: Tensor, x0: Tensor, c: Curvature) -> Tensor:
    """Return the gradient in c of what depends on it through times x0 = sqrt(1/c + |x|^2)."""
    k = curvature(c, x0)
    return grad / (-2 * k * k * x0)


def through_radius(x: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of x from that of `naive.at_one_radius(x)`: r g - r^3 x (x . g) / n, r = sqrt(n) / |x|."""
    wide, grad = widen(x), widen(grad)
    rate = (square(wide) / x.shape[-1] + torch.finfo(wide.dtype).eps).rsqrt_()
    return rate * (grad - rate.square() * wide * (dot(wide, grad) / x.shape[-1]))
