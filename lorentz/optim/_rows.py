r"""One step of each optimiser on rows of points: pure functions of tensors, without data-dependent control flow.

Moments are kept in the form that gradients have, as covectors w: the tangent vector is
:math:`m = G^{-1} w = w + c\,x\,(x \cdot w)`, and the square of its length :math:`|w|^2 + c\,(x \cdot w)^2`, a sum of
squares. Along a geodesic :math:`x_0 w` of its own velocity is conserved (it is the momentum of the boosts), so a step
of -a m carries m by a division. It ends at

.. math::
    y = A\,x - a \tfrac{\sinh t}{t} w, \quad w_y = w / A, \quad
    A = y_0 / x_0 = \cosh t - c\,a \tfrac{\sinh t}{t} (x \cdot w), \quad t = \sqrt c\,a\,|m|_L.

All that the step needs beside x, g and w is inner products of those three: one pass reads, one writes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lorentz._precision import Curvature


def adam_step(
    x: Tensor,
    grad: Tensor,
    w: Tensor,
    v: Tensor,
    step: float | Tensor,
    *,
    lr: float | Tensor = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    c: Curvature = 1.0,
    v_max: Tensor | None = None,
) -> tuple[Tensor, ...]:
    r"""Return the points, first and second moments after one step of Riemannian Adam.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) r, \quad v \leftarrow \beta_2 v + (1 - \beta_2) |r|_L^2, \quad
        a = \frac{lr / (1 - \beta_1^{step})}{\sqrt{v / (1 - \beta_2^{step})} + eps},

    then the step above. So that points and moments stay finite, the fourth root of the largest number bounds the
    length of a gradient, which is cut (one whose square cannot be represented counts in v only), and the time at the
    end of a step (radius 22 in float32, 178 in float64).

    Args:
        x: points, (..., n), in float32 or float64, as all that follows.
        grad: Euclidean gradients, (..., n).
        w: first moments, the covectors G m at x, (..., n).
        v: second moments, one number per point, (..., 1).
        step: number of this step, from 1.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        c: the curvature is -c.
        v_max: the largest second moment so far, (..., 1), for AMSGrad.

    Returns:
        x, w, v, and v_max if it was given; w is a covector at the new x.

    Source: Becigneul and Ganea, Riemannian Adaptive Optimization Methods, ICLR 2019, with the exponential map and
    parallel transport.
    """
    beta1, beta2 = betas
    gauge = _gauge(x, grad, c)
    share = (1 - beta1) * gauge.keep
    w_next = (beta1 * w).addcmul_(grad, share)
    along = beta1 * _dot(x, w) + share * gauge.along
    overlap = torch.where(gauge.lost, 0.0, _dot(w, grad))
    square = beta1**2 * _dot(w, w) + 2 * beta1 * share * overlap + share.square() * gauge.square
    v = torch.add(beta2 * v, gauge.length_squared, alpha=1 - beta2)
    largest = v if v_max is None else torch.maximum(v, v_max)
    bias1, bias2 = (1 - beta ** (step.double() if isinstance(step, Tensor) else step) for beta in betas)
    pace = lr / bias1 / ((largest / bias2).sqrt() + eps)
    y, w = _coast(x, w_next, along, square, pace, c)
    return (y, w, v) if v_max is None else (y, w, v, largest)


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
    gauge = _gauge(x, grad, c)
    g = gauge.keep * grad
    if momentum == 0:
        return _coast(x, g, gauge.keep * gauge.along, gauge.keep.square() * gauge.square, lr, c)[:1]
    w = g if w is None else torch.add(momentum * w, g, alpha=1 - dampening)
    if nesterov:
        return _carry(x, torch.add(g, w, alpha=momentum), w, lr, c)
    return _coast(x, w, _dot(x, w), _dot(w, w), lr, c)


class _Gauge(NamedTuple):
    """Columns about a gradient g at x."""

    along: Tensor  # x . g
    square: Tensor  # g . g
    length_squared: Tensor  # of the Riemannian gradient, at most the square of the longest
    keep: Tensor  # the share of the gradient that is kept
    lost: Tensor  # whether its square cannot be represented: nothing is kept then


def _gauge(x: Tensor, grad: Tensor, c: Curvature) -> _Gauge:
    square = _dot(grad, grad)
    lost = square == float("inf")  # products with it may be inf - inf
    along = torch.where(lost, 0.0, _dot(x, grad))
    squared = square + c * along.square()
    largest = _longest(x) ** 2
    return _Gauge(along, torch.where(lost, 0.0, square), squared.clamp_max(largest), _cut(squared), lost)


def _coast(
    x: Tensor, w: Tensor, along: Tensor, square: Tensor, pace: float | Tensor, c: Curvature
) -> tuple[Tensor, Tensor]:
    """Return the end y of the geodesic from x with covector -pace w, and w carried there, given x . w and w . w."""
    squared = square + c * along.square()
    step = _step(pace * (c * squared).clamp_min(0).sqrt(), x, c)
    sinh = pace * step.sinh
    growth = torch.maximum(step.cosh - c * sinh * along, step.least)
    return (growth * x).addcmul_(w, -sinh), _cut(squared) / growth * w


def _carry(x: Tensor, u: Tensor, w: Tensor, pace: float | Tensor, c: Curvature) -> tuple[Tensor, Tensor]:
    """Return the end y of the geodesic from x with covector -pace u, and any covector w carried there.

    The part of w along u carries as u does; the rest is orthogonal to the plane of the geodesic, and constant in it.
    """
    u_along, w_along, squared = _dot(x, u), _dot(x, w), _dot(u, u) + c * _dot(x, u).square()
    step = _step(pace * (c * squared).sqrt(), x, c)
    sinh = pace * step.sinh
    growth = torch.maximum(step.cosh - c * sinh * u_along, step.least)
    share = (_dot(w, u) + c * w_along * u_along) / squared.clamp_min(torch.finfo(x.dtype).tiny)
    rest = w - share * u
    carried = torch.addcmul(rest, u, (share + c * sinh * (w_along - share * u_along)) / growth)
    return (growth * x).addcmul_(u, -sinh), _cut(_dot(w, w) + c * w_along.square()) * carried


def _longest(x: Tensor) -> float:
    """Return the fourth root of the largest number: products of two lengths and two times can then be represented."""
    return torch.finfo(x.dtype).max ** 0.25


def _cut(squared: Tensor) -> Tensor:
    """Return the factor that cuts vectors of this squared length to the longest."""
    largest = _longest(squared) ** 2
    return (largest / squared.clamp_min(largest)).sqrt()


class _Step(NamedTuple):
    """cosh(s), sinh(s) / t and e^-s, the least growth of a time, for a step of length t of which s is taken."""

    cosh: Tensor
    sinh: Tensor
    least: Tensor


def _step(t: Tensor, x: Tensor, c: Curvature) -> _Step:
    """Return the step of scaled length t from x, cut where it would pass the longest time.

    For values only: one exponential without series, whose derivatives would not survive t = 0.
    """
    time = (1 / c + _dot(x, x)).sqrt()
    more = torch.minimum(t.expm1(), (_longest(x) / time - 1).clamp_min(0))  # e^s - 1
    least = 1 / (1 + more)
    less = more * least  # 1 - e^-s
    return _Step(1 + more * less / 2, (more + less) / 2 / t.clamp_min(torch.finfo(t.dtype).tiny), least)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x, y).unsqueeze(-1)
