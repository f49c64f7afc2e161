r"""Tangent vectors: the metric of the chart, exponential and logarithmic maps, parallel transport.

A tangent vector at x is a plain (..., n) tensor v, the space part of the ambient vector (v0, v) with
v0 = x . v / x0. In the chart the metric is G = I - x x^T / x0^2, its inverse G^-1 = I + c x x^T.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz._chart import time
from lorentz._distance import sqdist
from lorentz._precision import Curvature, asinhc, curvature, per_row, reach, same_width, sinhc, sqrt0, widen


def metric(x: Tensor, u: Tensor, v: Tensor, c: Curvature = 1.0, *, keepdim: bool = False) -> Tensor:
    r"""Return the inner product of two tangent vectors at x, :math:`u^T G v = u \cdot v - u_0 v_0`.

    Evaluated without cancellation as :math:`(u - \tfrac{u_0}{x_0} x) \cdot (v - \tfrac{v_0}{x_0} x) +
    u_0 v_0 / (c x_0^2)`. Shapes (..., n) three times to (...), in float32 or better.
    """
    same_width(x, u)
    same_width(x, v)
    x, u, v = widen(x), widen(u), widen(v)
    x0 = time(x, c, keepdim=True)
    slope = x / x0
    u0, v0 = (slope * u).sum(-1, keepdim=True), (slope * v).sum(-1, keepdim=True)
    turn = ((u - (u0 / x0) * x) * (v - (v0 / x0) * x)).sum(-1, keepdim=True)
    return per_row(turn + (u0 / x0) * (v0 / x0) / curvature(c, x0), keepdim)


def norm(x: Tensor, v: Tensor, c: Curvature = 1.0, *, keepdim: bool = False) -> Tensor:
    r"""Return the length of the tangent vector v at x, :math:`|v|_L = \sqrt{|v|^2 - (x \cdot v)^2 / x_0^2}`.

    Evaluated as :math:`|v - \tfrac{v_0}{x_0} x|^2 + v_0^2 / (c x_0^2)`, a sum of squares. Zero, with zero gradient, at
    v = 0. Shapes (..., n), (..., n) to (...), in float32 or better.
    """
    return sqrt0(metric(x, v, v, c, keepdim=keepdim))


def egrad2rgrad(x: Tensor, grad: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the Riemannian gradient :math:`G^{-1} g = g + c\,x\,(x \cdot g)` of a Euclidean gradient g at x.

    Shapes (..., n), (..., n) to (..., n). Source: Sherman and Morrison applied to G.
    """
    same_width(x, grad)
    wide, g = widen(x), widen(grad)
    return (g + curvature(c, wide) * wide * (wide * g).sum(-1, keepdim=True)).to(grad.dtype)


def expmap(x: Tensor, v: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the end of the geodesic from x with velocity v: :math:`\cosh(t)\,x + \frac{\sinh t}{t} v`.

    Here :math:`t = \sqrt c\,|v|_L`. A step that would leave the range of the dtype stops at its edge, so finite
    vectors lead to finite points. Shapes (..., n), (..., n) to (..., n).

    Source: Nickel and Kiela, ICML 2018.
    """
    wide, x0 = widen(x), time(x, c, keepdim=True)
    cosh, sinh = _step(x0, curvature(c, x0) * metric(x, v, v, c, keepdim=True), x.dtype)
    return (cosh * wide + sinh * v).to(x.dtype)


def expmap0(v: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the exponential map at the origin, :math:`\frac{\sinh t}{t} v` with :math:`t = \sqrt c\,|v|`.

    Exact to rounding at every length, zero included; steps stop at the edge of the range as in `expmap`.
    Shapes (..., n) to (..., n). Source: Nickel and Kiela, ICML 2018, at x = 0.
    """
    wide = widen(v)
    squared = (wide * wide).sum(-1, keepdim=True)
    x0 = time(wide[..., :0], c, keepdim=True)  # of the origin, whatever its width
    return (_step(x0, curvature(c, squared) * squared, v.dtype)[1] * wide).to(v.dtype)


def _step(x0: Tensor, squared: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosh(t) and sinh(t) / t for t^2 = `squared`, with t cut at the `reach` of a point of time x0."""
    limit = reach(x0, dtype)
    cut = limit / torch.maximum(sqrt0(squared), limit)
    squared = cut * cut * squared
    half = sinhc(squared / 4)
    return 1 + squared / 2 * half * half, cut * half * (1 + squared / 4 * half * half).sqrt()


def logmap(x: Tensor, y: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the velocity at x of the geodesic that reaches y at time 1: :math:`\frac{t}{\sinh t}(y - \cosh(t)\,x)`.

    Here :math:`t = \sqrt c\,dist(x, y)`. Evaluated through :math:`q = c\,|x - y|_L^2 = 4 \sinh^2(t/2)` as
    :math:`y - x - \frac q2 x` times :math:`\operatorname{asinh}(\sqrt q/2) / (\sqrt q/2) / \sqrt{1 + q/4}`, which is
    smooth at y = x. Shapes (..., n), (..., n) to (..., n).

    Source: Nickel and Kiela, ICML 2018.
    """
    quarter = _scaled_sqdist(x, y, c) / 4
    cosh = (1 + quarter).sqrt()  # of t / 2
    return _towards(x, y, asinhc(quarter) / cosh, asinhc(quarter) * (2 * quarter / cosh)).to(y.dtype)


def logmap0(x: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the logarithmic map at the origin, :math:`\frac{\operatorname{asinh} r}{r} x`, :math:`r = \sqrt c |x|`.

    The inverse of `expmap0`, exact to rounding at every radius. Shapes (..., n) to (..., n).
    """
    wide = widen(x)
    return (asinhc(curvature(c, wide) * (wide * wide).sum(-1, keepdim=True)) * wide).to(x.dtype)


def transp(x: Tensor, y: Tensor, v: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the parallel transport of v from x to y along their geodesic, in closed form.

    .. math::
        V + \frac{\langle Y, V\rangle}{1/c - \langle X, Y\rangle} (X + Y), \quad\text{space part.}

    The product <Y, V> is that of V with the direction of `logmap` at x, and so keeps its digits where the ambient
    product cancels. Shapes (..., n) three times to (..., n).

    Source: Chami et al., Hyperbolic Graph Convolutional Neural Networks, NeurIPS 2019, with the log maps
    eliminated.
    """
    q = _scaled_sqdist(x, y, c)
    k = curvature(c, q)
    direction = _towards(x, y, 2 * k / (4 + q), k * (q / (4 + q)))
    return (v + metric(x, direction, v, c, keepdim=True) * (widen(x) + widen(y))).to(v.dtype)


def transp0(y: Tensor, v: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the parallel transport of v from the origin to y, :math:`v + \frac{c\,(y \cdot v)}{1 + \sqrt c\,y_0} y`.

    Shapes (..., n), (..., n) to (..., n). Source: `transp` at x = 0.
    """
    same_width(y, v)
    wide, y0 = widen(y), time(y, c, keepdim=True)
    k = curvature(c, y0)
    along = (wide * v).sum(-1, keepdim=True)
    return (v + k * along / (1 + k**0.5 * y0) * wide).to(v.dtype)


def geodesic(t: float | Tensor, x: Tensor, y: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the point at fraction t of the way from x (t = 0) to y (t = 1).

    .. math::
        \frac{\sinh((1 - t) D)}{\sinh D} x + \frac{\sinh(t D)}{\sinh D} y, \quad D = \sqrt c\,dist(x, y).

    Shapes (...) or a float, (..., n), (..., n) to (..., n); t broadcasts over points and may lie outside [0, 1].
    Source: the hyperbolic form of Shoemake's spherical interpolation, SIGGRAPH 1985.
    """
    q = _scaled_sqdist(x, y, c)
    squared = q * asinhc(q / 4) ** 2
    to_y = torch.as_tensor(t, dtype=q.dtype, device=q.device).unsqueeze(-1)
    to_x = 1 - to_y
    share_x, share_y = (s * sinhc(s * s * squared) / sinhc(squared) for s in (to_x, to_y))
    return (share_x * x + share_y * y).to(x.dtype)


def _scaled_sqdist(x: Tensor, y: Tensor, c: Curvature) -> Tensor:
    """Return q = c |x - y|_L^2 = 4 sinh^2(t / 2) as a column."""
    s = sqdist(x, y, c, keepdim=True)
    return curvature(c, s) * s


def _towards(x: Tensor, y: Tensor, scale: Tensor, fall: Tensor) -> Tensor:
    """Return a multiple of y - cosh(t) x as scale (y - x) - fall x, fall = scale q / 2: formed whole, it overflows."""
    return scale * (widen(y) - widen(x)) - fall * widen(x)
