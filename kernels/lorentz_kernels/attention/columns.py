r"""The columns that attention adds to rows of space coordinates: times, and heights of the sheet over a plane.

Values are measured from a reference point R, so that sums over them are as small as their spread. With
:math:`u = R / R_0`, the gap d = x - R and the time gap :math:`\delta = x_0 - R_0 = d \cdot (x + R) / (x_0 + R_0)`, the
height of the sheet over its tangent plane at R is

.. math::
    h(x) = \delta - u \cdot d = \frac{|x - R|_L^2}{2 R_0}
         = \frac{1}{2 x_0} \left( |d - \delta u|^2 + \frac{\delta^2}{c R_0^2} \right),

exact near R, where differences of times cancel. Any plane would do, so derivatives hold R and :math:`R_0` constant.

This is the definition, with every derivative; `closed` has the same functions without, and their gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz_kernels.precision import Curvature, curvature


def with_time(x: Tensor, sign: int, c: Curvature, slope: float | Tensor = 1.0) -> Tensor:
    """Return slope (x, sign x0), the rows of a Minkowski product: (..., L, n) to (..., L, n + 1)."""
    return slope * torch.cat([x, sign * _time(x, c)], dim=-1)


def with_height(x: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    """Return (x - R, h(x)): (..., S, n), (..., 1, n) to (..., S, n + 1)."""
    gap = x - reference
    return torch.cat([gap, _above(gap, reference, c)[2]], dim=-1)


def mean_to_point(mean: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    r"""Return the point on the ray through a mean m of points, from the mean of their (x - R, h(x)).

    .. math::
        \frac{m}{\sqrt c \sqrt{m_0^2 - |m|^2}} = \frac{m}{\sqrt{1 + c\,e\,(2 \mu_0 + e)}}, \quad
        \mu_0 = \sqrt{1/c + |m|^2}, \; e = m_0 - \mu_0 = \bar h - h(m).

    Shapes (..., L, n + 1), (..., 1, n) to (..., L, n).
    """
    point, mu0, height = _above(mean[..., :-1], reference, c)
    excess = (mean[..., -1:] - height).clamp_min(0)  # the sheet is convex; rounding is not
    return point * (1 + curvature(c, excess) * excess * (2 * mu0 + excess)).rsqrt()


def _above(gap: Tensor, reference: Tensor, c: Curvature) -> tuple[Tensor, Tensor, Tensor]:
    """Return the point R + d, its time and its height over the plane at R."""
    x = gap + reference  # rounded alike for a value and for the mean that selects it, whose heights then agree
    x0, r0 = _time(x, c), _time(reference, c)
    rise = (_dot(gap, gap) + 2 * _dot(gap, reference)) / (x0 + r0)
    turn = torch.addcmul(gap, rise, reference / r0, value=-1)
    radial = (rise / r0) * (rise / r0) / curvature(c, r0)
    return x, x0, (_dot(turn, turn) + radial) / (2 * x0)


def _time(x: Tensor, c: Curvature) -> Tensor:
    return (1 / curvature(c, x) + _dot(x, x)).sqrt()


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)
