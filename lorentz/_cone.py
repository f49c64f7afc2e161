r"""Entailment cones: at every point a geodesic cone that opens away from the origin, narrower the farther out.

y lies in the cone of x where `exterior_angle(x, y)`, the angle at x between the ray from the origin through x and the
geodesic to y, is at most `half_aperture(x)`. Outside the ball of space norm :math:`2 K / \sqrt c` the cones nest: the
cone of a point in the cone of x is a part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz._chart import time
from lorentz._direction import unit
from lorentz._distance import sqdist
from lorentz._precision import Curvature, curvature, per_row, sqrt0, widen


def half_aperture(x: Tensor, min_radius: float = 0.1, c: Curvature = 1.0, *, keepdim: bool = False) -> Tensor:
    r"""Return the half-aperture of the entailment cone at x, :math:`\arcsin \min(1, \frac{2 K}{\sqrt c\,|x|})`.

    Evaluated as the angle of the sides 2 K and :math:`\sqrt{c |x|^2 - 4 K^2}`. Pi / 2, with zero gradient, where
    :math:`\sqrt c\,|x| \le 2 K`; just outside, the derivative has a pole. Shapes (..., n) to (...), in float32 or
    better.

    Args:
        x: points, (..., n).
        min_radius: K > 0.
        c: the curvature is -c.
        keepdim: keep the last dimension, with size 1.

    Source: Ganea et al., Hyperbolic Entailment Cones, ICML 2018; in the Lorentz model Le et al., ACL 2019, and
    Desai et al., ICML 2023.
    """
    x = widen(x)
    side = 2 * min_radius
    squared = curvature(c, x) * _square(x) - side * side
    other = sqrt0(squared.clamp_min(0))
    return per_row(torch.atan2(torch.full_like(other, side), other), keepdim)


def exterior_angle(x: Tensor, y: Tensor, c: Curvature = 1.0, *, keepdim: bool = False) -> Tensor:
    r"""Return the angle at x, in [0, pi], between the ray from the origin through x and the geodesic from x to y.

    .. math::
        \arccos \frac{y_0 + x_0\,c\langle x, y\rangle}{|x| \sqrt{(c\langle x, y\rangle)^2 - 1}}
        = \operatorname{atan2}\Bigl(|d - (d \cdot \hat x)\,\hat x|,\;
          \frac{d \cdot \hat x - \frac q2 |x|}{\sqrt c\,x_0}\Bigr),
        \quad d = y - x, \; q = c\,|x - y|_L^2, \; \hat x = x / |x|.

    The second form, the sides of `logmap` across and along the ray, is evaluated: neighbours keep their angle, to
    about the rounding of their difference, eps * x0. Zero where y lies on the ray, at y = x, and for every y where x
    is the origin, whose cone is all of space; there the gradient is zero. Near y = x and x = 0 it grows as 1 / |d| and
    1 / |x|. Shapes (..., n), (..., n) to (...), in float32 or better.

    Source: Ganea et al., ICML 2018; in the Lorentz model Le et al., ACL 2019, and Desai et al., ICML 2023.
    """
    s, x0 = sqdist(x, y, c, keepdim=True), time(x, c, keepdim=True)
    k, x, y = curvature(c, s), widen(x), widen(y)
    axis, gap = unit(x), y - x
    along = (axis * gap).sum(-1, keepdim=True)
    share = 2 / (2 + k * s)  # 1 / cosh(t), by which the sides are multiplied: they stay in the range of the dtype
    fall = k * s / (2 + k * s) * (axis * x).sum(-1, keepdim=True)
    sides = unit(torch.cat([share * (gap - along * axis), (share * along - fall) / (k**0.5 * x0)], dim=-1))
    across, along = sqrt0(_square(sides[..., :-1])), sides[..., -1:]
    nowhere = (_square(axis) < 0.5) | (_square(sides) < 0.5)  # `unit` lets tiny vectors be
    angle = torch.atan2(torch.where(nowhere, 0.0, across), torch.where(nowhere, 1.0, along))
    return per_row(angle, keepdim)


def _square(v: Tensor) -> Tensor:
    return (v * v).sum(-1, keepdim=True)
