"""How the chart stays finite: dtypes, square roots at zero, series at the origin, the edge of the range.

The whole epsilon policy of the library: nothing is added to a denominator, and no length is kept away from zero,
because the formulas have no pole on the manifold. What is left is

* `sqrt0`, a square root whose derivative at zero is zero;
* `sinhc` and `asinhc`, smooth in the square of their argument, by series below `SERIES`;
* `reach`, the longest step that ends where squares of coordinates can still be represented;
* in `from_poincare` and `from_klein`, the boundary of the ball, which rounding reaches and points do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz_kernels.dispatch import transforming as transforming
from lorentz_kernels.precision import Curvature as Curvature
from lorentz_kernels.precision import curvature as curvature
from lorentz_kernels.precision import full_precision as full_precision
from lorentz_kernels.precision import widen as widen

SERIES = 0.01
"""Squares below this use the series: eight terms then reach float64, and derivatives keep 13 digits above it."""


def same_width(x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless both tensors have the same number of space coordinates.

    Broadcasting would otherwise hide the commonest mistake, mixing (..., n) points with (..., n + 1) ambient ones.
    """
    n, m = x.shape[-1], y.shape[-1]
    if n != m:
        hint = ": did you pass ambient points? use lorentz.from_ambient(x)" if abs(n - m) == 1 else ""
        raise ValueError(f"expected space coordinates (..., {n}), got (..., {m}){hint}")


def per_row(s: Tensor, keepdim: bool) -> Tensor:
    """Return the (..., 1) column `s` as asked for: columns until the end, so that `c` of shape (1,) broadcasts."""
    return s if keepdim else s.squeeze(-1)


def sqrt0(s: Tensor) -> Tensor:
    """Return the square root of s >= 0, with derivative zero (not infinity) at s = 0. NaN stays NaN."""
    zero = s == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, s).sqrt())


def sinhc(u: Tensor) -> Tensor:
    """Return sinh(t) / t for u = t^2 >= 0, smooth at u = 0 in every derivative."""
    small = u < SERIES
    z = torch.where(small, u, 0.0)
    series = 1 + z / 6 * (1 + z / 20 * (1 + z / 42 * (1 + z / 72 * (1 + z / 110 * (1 + z / 156)))))
    t = torch.where(small, 1.0, u).sqrt()
    return torch.where(small, series, t.sinh() / t)


def asinhc(u: Tensor) -> Tensor:
    """Return asinh(t) / t for u = t^2 >= 0, smooth at u = 0 in every derivative."""
    small = u < SERIES
    z = torch.where(small, u, 0.0)
    series = torch.ones_like(z)
    for k in range(7, -1, -1):  # Horner: the ratio of consecutive coefficients is -(2k + 1)^2 / ((2k + 2)(2k + 3))
        series = 1 - z * series * ((2 * k + 1) ** 2 / ((2 * k + 2) * (2 * k + 3)))
    t = torch.where(small, 1.0, u).sqrt()
    return torch.where(small, series, t.asinh() / t)


def reach(x0: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the longest scaled step t from a point of time x0 that ends inside the range of `dtype`.

    A step of scaled length t multiplies the time by at most e^t, so t <= log(R / x0) with R the largest radius whose
    square, and the square of the sum of two such, can be represented in the dtype that times are computed in.
    """
    wide = torch.finfo(x0.dtype).max ** 0.5 / 4
    largest = min(torch.finfo(dtype).max / 4, wide)
    return (largest / x0.detach()).log().clamp_min(torch.finfo(x0.dtype).tiny)
