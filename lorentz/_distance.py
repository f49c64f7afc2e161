r"""Distances without cancellation.

The textbook form arccosh(-c <x, y>) loses half of its digits for neighbours and all of them from radius 8. Here the
Minkowski square of the difference X - Y is written as a sum of two squares. With :math:`d = x - y`, the time gap
:math:`\delta = x_0 - y_0 = d \cdot (x + y) / (x_0 + y_0)`, and (near0, near), (far0, far) the two points in the order
of their times,

.. math::
    |X - Y|_L^2 = \frac{near_0}{far_0} \left| d - \frac{\delta}{near_0} near \right|^2
        + \frac{\delta^2}{c\, near_0 far_0}.

The first term is what is left of d once the radial motion is taken out (the angle), the second is the radial motion.
Times take the place of radii, so there is no pole: the form is smooth at the origin and at coincident points.
"""

from __future__ import annotations

import torch
from torch import Tensor

import lorentz_kernels.pairwise_dist
from lorentz._chart import time
from lorentz._precision import Curvature, curvature, full_precision, per_row, same_width, sqrt0, widen


def inner(x: Tensor, y: Tensor, c: Curvature = 1.0, *, keepdim: bool = False) -> Tensor:
    r"""Return the Minkowski form of two points, :math:`\langle x, y\rangle = x \cdot y - x_0 y_0 \le -1/c`.

    Evaluated as :math:`-1/c - |x - y|_L^2 / 2`, a sum of terms of one sign. Shapes (..., n), (..., n) to (...).

    Source: Chen et al., Fully Hyperbolic Neural Networks, ACL 2022.
    """
    s = sqdist(x, y, c, keepdim=True)
    product = -1 / curvature(c, s) - s / 2
    return per_row(product, keepdim)


def sqdist(x: Tensor, y: Tensor, c: Curvature = 1.0, *, keepdim: bool = False) -> Tensor:
    r"""Return the squared Lorentzian distance :math:`|x - y|_L^2 = -2/c - 2 \langle x, y\rangle`.

    It is not the squared geodesic distance: :math:`|x - y|_L^2 = \frac 4c \sinh^2(\sqrt c\,dist(x, y) / 2)`. The form
    that is evaluated stands at the head of this file. Shapes (..., n), (..., n) to (...), in float32 or better.

    Source: Law et al., Lorentzian Distance Learning for Hyperbolic Representations, ICML 2019.
    """
    same_width(x, y)
    x, y = widen(x), widen(y)
    x0, y0 = time(x, c, keepdim=True), time(y, c, keepdim=True)
    gap = x - y
    time_gap = (gap * (x + y)).sum(-1, keepdim=True) / (x0 + y0)
    # By the sign of the gap, which is exact, not by the times: the distance is then symmetric to the bit. One mask for
    # all three: minimum and maximum would halve their gradients where the radii are equal.
    inward = time_gap < 0
    near, near0, far0 = torch.where(inward, x, y), torch.where(inward, x0, y0), torch.where(inward, y0, x0)
    turn = gap - (time_gap / near0) * near
    radial = (time_gap / near0) * (time_gap / far0) / curvature(c, x0)
    s = (near0 / far0) * (turn * turn).sum(-1, keepdim=True) + radial
    return per_row(s, keepdim)


def dist(x: Tensor, y: Tensor, c: Curvature = 1.0, *, keepdim: bool = False) -> Tensor:
    r"""Return the geodesic distance :math:`\frac{2}{\sqrt c} \operatorname{asinh}(\frac{\sqrt c}{2} |x - y|_L)`.

    Zero, with zero gradient, where the points coincide. Shapes (..., n), (..., n) to (...), in float32 or better.

    Source: Nickel and Kiela, ICML 2018, through cosh t - 1 = 2 sinh^2(t / 2).
    """
    s = sqdist(x, y, c, keepdim=True)
    root = curvature(c, s) ** 0.5
    return per_row(2 / root * (root / 2 * sqrt0(s)).asinh(), keepdim)


def dist0(x: Tensor, c: Curvature = 1.0, *, keepdim: bool = False) -> Tensor:
    r"""Return the distance from the origin, :math:`\operatorname{asinh}(\sqrt c\,|x|) / \sqrt c`.

    Zero, with zero gradient, at the origin. Shapes (..., n) to (...), in float32 or better.
    """
    x = widen(x)
    root = curvature(c, x) ** 0.5
    return per_row((root * sqrt0((x * x).sum(-1, keepdim=True))).asinh() / root, keepdim)


def pairwise_inner(x: Tensor, y: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return :math:`\langle x_i, y_j\rangle = x_i \cdot y_j - x_{i0} y_{j0}`: one matrix product and a rank-1 term.

    Shapes (..., N, n), (..., M, n) to (..., N, M), in float32 or better also under autocast, because the two terms
    cancel. The error is that of a product, eps * x0 * y0; take `pairwise_sqdist` where neighbours matter.
    """
    same_width(x, y)
    x, y = widen(x), widen(y)
    with full_precision(x.device):
        return x @ y.mT - time(x, c, keepdim=True) * time(y, c, keepdim=True).mT


def pairwise_sqdist(x: Tensor, y: Tensor, c: Curvature = 1.0) -> Tensor:
    """Return `sqdist` of every pair, as exact as that of one: (..., N, n), (..., M, n) to (..., N, M).

    With one `c` for all points a tile of pairs is held at a time, also in the backward.
    """
    same_width(x, y)
    if isinstance(c, Tensor) and c.numel() != 1:
        return sqdist(x.unsqueeze(-2), y.unsqueeze(-3), c)
    return lorentz_kernels.pairwise_dist.pairwise_sqdist(x, y, c)


def pairwise_dist(x: Tensor, y: Tensor, c: Curvature = 1.0) -> Tensor:
    """Return `dist` of every pair, as exact as that of one: (..., N, n), (..., M, n) to (..., N, M).

    With one `c` for all points a tile of pairs is held at a time, also in the backward.
    """
    same_width(x, y)
    if isinstance(c, Tensor) and c.numel() != 1:
        return dist(x.unsqueeze(-2), y.unsqueeze(-3), c)
    return lorentz_kernels.pairwise_dist.pairwise_dist(x, y, c)
