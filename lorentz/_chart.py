"""The chart: a Lorentz point is its space part, and how it reads in the other models of hyperbolic space.

The hyperboloid of curvature -c, { (x0, x) : -x0^2 + |x|^2 = -1/c, x0 > 0 }, is the graph of `time` over R^n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz._precision import Curvature, curvature, per_row, transforming, widen


def time(x: Tensor, c: Curvature = 1.0, *, keepdim: bool = False) -> Tensor:
    r"""Return the time coordinate :math:`x_0 = \sqrt{1/c + |x|^2}`, in float32 or better.

    Args:
        x: space coordinates, (..., n).
        c: the curvature is -c.
        keepdim: keep the last dimension, with size 1.

    Returns:
        (...), or (..., 1) with `keepdim`.

    Source: Nickel and Kiela, Learning Continuous Hierarchies in the Lorentz Model, ICML 2018.
    """
    x = widen(x)
    x0 = (1 / curvature(c, x) + (x * x).sum(-1, keepdim=True)).sqrt()
    return per_row(x0, keepdim)


def to_ambient(x: Tensor, c: Curvature = 1.0) -> Tensor:
    """Return the points of Minkowski space, time first: (..., n) to (..., n + 1), in float32 or better.

    This is the convention of the literature and of `geoopt.Lorentz(k=1/c)`.
    """
    return torch.cat([time(x, c, keepdim=True), widen(x)], dim=-1)


def from_ambient(p: Tensor, c: Curvature = 1.0, *, check: bool = True) -> Tensor:
    """Return the space part of ambient points, time first: (..., n + 1) to (..., n).

    Args:
        p: ambient points.
        c: the curvature is -c (`k = 1/c` in geoopt, `K = -c` in Chen et al. 2022).
        check: verify that the points lie on the upper sheet, up to the square root of the dtype's precision. The
            values are looked at in eager mode only: a traced, transformed or meta tensor has none.

    Raises:
        ValueError: a point has no space coordinate, or lies off the hyperboloid.
    """
    if p.shape[-1] < 2:
        raise ValueError(f"expected ambient points (..., n + 1) with n >= 1, got (..., {p.shape[-1]})")
    if check and _has_values(p):
        _check_on_sheet(p, c)
    return p[..., 1:]


def _has_values(p: Tensor) -> bool:
    return not (torch.compiler.is_compiling() or p.is_meta or transforming())


def _check_on_sheet(p: Tensor, c: Curvature) -> None:
    with torch.no_grad():
        wide = widen(p)
        p0, x0 = wide[..., :1], time(wide[..., 1:], c, keepdim=True)
        off = ((p0 - x0).abs() / x0).max().item() if p.numel() else 0.0
    if not off <= torch.finfo(p.dtype).eps ** 0.5:
        raise ValueError(
            f"expected ambient points with p0 = sqrt(1/c + |p|^2) for c = {torch.as_tensor(c).tolist()}, "
            f"got times off by a share of {off:.2g}: is time the first coordinate, and is c = 1/k?"
        )


def to_poincare(x: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the points of the Poincare ball of radius :math:`1/\sqrt c`: :math:`x / (1 + \sqrt c\,x_0)`.

    Shapes (..., n) to (..., n), as in `geoopt.PoincareBall(c=c)`. Distances agree with `dist`.

    Source: Nickel and Kiela, ICML 2018.
    """
    root = curvature(c, widen(x)) ** 0.5
    return (widen(x) / (1 + root * time(x, c, keepdim=True))).to(x.dtype)


def from_poincare(p: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the Lorentz points of points of the Poincare ball: :math:`2 p / (1 - c |p|^2)`.

    Shapes (..., n) to (..., n). A point that rounding has put on the boundary goes to the largest radius that the
    ball can hold in this dtype, not to infinity. Source: Nickel and Kiela, ICML 2018.
    """
    wide = widen(p)
    return (2 * wide / _inside(wide, c, p.dtype)).to(p.dtype)


def to_klein(x: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the points of the Klein ball of radius :math:`1/\sqrt c`: :math:`x / (\sqrt c\,x_0)`.

    Shapes (..., n) to (..., n). Geodesics become straight chords.

    Source: Gulcehre et al., Hyperbolic Attention Networks, ICLR 2019.
    """
    root = curvature(c, widen(x)) ** 0.5
    return (widen(x) / (root * time(x, c, keepdim=True))).to(x.dtype)


def from_klein(k: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the Lorentz points of points of the Klein ball: :math:`k / \sqrt{1 - c |k|^2}`.

    Shapes (..., n) to (..., n); the boundary as in `from_poincare`. Source: Gulcehre et al., ICLR 2019.
    """
    wide = widen(k)
    return (wide / _inside(wide, c, k.dtype).sqrt()).to(k.dtype)


def _inside(p: Tensor, c: Curvature, dtype: torch.dtype) -> Tensor:
    """Return 1 - c |p|^2, at least the spacing of numbers below 1 in the dtype that the point was stored in."""
    return (1 - curvature(c, p) * (p * p).sum(-1, keepdim=True)).clamp_min(torch.finfo(dtype).eps)
