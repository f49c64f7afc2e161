"""One step of gradient descent on rows of points: a pure function of tensors, without data-dependent control flow."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz._precision import Curvature
from lorentz_kernels.riemannian_adam.geodesic import coast, cut, dot, gauge, step


def sgd_step(
    x: Tensor,
    grad: Tensor,
    w: Tensor | None = None,
    *,
    lr: float | Tensor = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    c: Curvature = 1.0,
) -> tuple[Tensor, ...]:
    r"""Return the points, and with momentum the moments, after one step of Riemannian gradient descent.

    .. math::
        m \leftarrow momentum\,m + (1 - dampening)\,r, \quad
        y = \exp_x(-lr\,m), \text{ or } \exp_x(-lr\,(r + momentum\,m)) \text{ with nesterov},

    and m is carried to y. The first is r itself, as in `torch.optim.SGD`. Long gradients as in `adam_step`.

    Args:
        x: points, (..., n), in float32 or float64, as all that follows.
        grad: Euclidean gradients, (..., n).
        w: momentum, the covectors G m at x, (..., n); None at the first step.
        lr: learning rate.
        momentum: decay of the momentum; 0 needs none.
        dampening: what new gradients lose in the momentum.
        nesterov: look ahead.
        c: the curvature is -c.

    Returns:
        x, and w unless `momentum` is 0, a covector at the new x.

    Source: Bonnabel, Stochastic Gradient Descent on Riemannian Manifolds, IEEE TAC 2013; the momentum of
    `torch.optim.SGD`.
    """
    measured = gauge(x, grad, c)
    g = measured.keep * grad
    if momentum == 0:
        return coast(x, g, measured.keep * measured.along, measured.keep.square() * measured.square, lr, c)[:1]
    w = g if w is None else torch.add(momentum * w, g, alpha=1 - dampening)
    if nesterov:
        return _carry(x, torch.add(g, w, alpha=momentum), w, lr, c)
    return coast(x, w, dot(x, w), dot(w, w), lr, c)


def _carry(x: Tensor, u: Tensor, w: Tensor, pace: float | Tensor, c: Curvature) -> tuple[Tensor, Tensor]:
    """Return the end y of the geodesic from x with covector -pace u, and any covector w carried there.

    The part of w along u carries as u does; the rest is orthogonal to the plane of the geodesic, and constant in it.
    """
    u_along, w_along, squared = dot(x, u), dot(x, w), dot(u, u) + c * dot(x, u).square()
    taken = step(pace * (c * squared).sqrt(), x, c)
    sinh = pace * taken.sinh
    growth = torch.maximum(taken.cosh - c * sinh * u_along, taken.least)
    share = (dot(w, u) + c * w_along * u_along) / squared.clamp_min(torch.finfo(x.dtype).tiny)
    rest = w - share * u
    carried = torch.addcmul(rest, u, (share + c * sinh * (w_along - share * u_along)) / growth)
    return (growth * x).addcmul_(u, -sinh), cut(dot(w, w) + c * w_along.square()) * carried
