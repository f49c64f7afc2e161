r"""One step of each optimiser on rows of points: pure functions of tensors, without data-dependent control flow.

With the Euclidean gradient g at x, the Riemannian gradient is :math:`r = g + c\,x\,(x \cdot g)` and the square of its
length :math:`|r|_L^2 = |g|^2 + c\,(x \cdot g)^2`, a sum of squares. A step of -a m ends at the end y of its geodesic.
There m is still a multiple of the velocity, so its parallel transport costs no product with the new point:

.. math::
    y = \cosh(t)\,x - a \tfrac{\sinh t}{t} m, \quad
    m_y = \cosh(t)\,m - c\,a\,|m|_L^2 \tfrac{\sinh t}{t} x, \quad t = \sqrt c\,a\,|m|_L.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz._chart import time
from lorentz._precision import Curvature
from lorentz._tangent import metric, norm


def adam_step(
    x: Tensor,
    grad: Tensor,
    m: Tensor,
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
        m: first moments, tangent vectors at x, (..., n).
        v: second moments, one number per point, (..., 1).
        step: number of this step, from 1.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        c: the curvature is -c.
        v_max: the largest second moment so far, (..., 1), for AMSGrad.

    Returns:
        x, m, v, and v_max if it was given; m is a tangent vector at the new x.

    Source: Becigneul and Ganea, Riemannian Adaptive Optimization Methods, ICLR 2019, with the exponential map and
    parallel transport.
    """
    beta1, beta2 = betas
    along, keep, squared = _measure(x, grad, c)
    share = (1 - beta1) * keep
    m = (beta1 * m).addcmul_(grad, share).addcmul_(x, share * c * along)
    v = torch.add(beta2 * v, squared, alpha=1 - beta2)
    largest = v if v_max is None else torch.maximum(v, v_max)
    bias1, bias2 = (1 - beta ** (step.double() if isinstance(step, Tensor) else step) for beta in betas)
    pace = lr / bias1 / ((largest / bias2).sqrt() + eps)
    y, m = _coast(x, m, pace, c)
    return (y, m, v) if v_max is None else (y, m, v, largest)


def sgd_step(
    x: Tensor,
    grad: Tensor,
    m: Tensor | None = None,
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

    and m is carried to y. The first moment is r itself, as in `torch.optim.SGD`. Long gradients as in `adam_step`.

    Args:
        x: points, (..., n), in float32 or float64, as all that follows.
        grad: Euclidean gradients, (..., n).
        m: momentum, tangent vectors at x, (..., n); None at the first step.
        lr: learning rate.
        momentum: decay of m; 0 needs none.
        dampening: what new gradients lose in m.
        nesterov: look ahead.
        c: the curvature is -c.

    Returns:
        x, and m unless `momentum` is 0, a tangent vector at the new x.

    Source: Bonnabel, Stochastic Gradient Descent on Riemannian Manifolds, IEEE TAC 2013; the momentum of
    `torch.optim.SGD`.
    """
    along, keep, _ = _measure(x, grad, c)
    r = (keep * grad).addcmul_(x, keep * c * along)
    if momentum == 0:
        return _coast(x, r, lr, c)[:1]
    m = r if m is None else torch.add(momentum * m, r, alpha=1 - dampening)
    return _carry(x, torch.add(r, m, alpha=momentum), m, lr, c) if nesterov else _coast(x, m, lr, c)


def _measure(x: Tensor, grad: Tensor, c: Curvature) -> tuple[Tensor, Tensor, Tensor]:
    """Return x . g, the share of the gradient that is kept, and the square of its length then: three columns."""
    largest = _longest(x) ** 2
    along = _dot(x, grad).clamp(-largest, largest)
    squared = _dot(grad, grad) + c * along.square()
    return along, _cut(squared), squared.clamp_max(largest)


def _coast(x: Tensor, m: Tensor, pace: float | Tensor, c: Curvature) -> tuple[Tensor, Tensor]:
    """Return the end y of the geodesic from x with velocity -pace m, and m carried there."""
    time_squared = 1 / c + _dot(x, x)
    rise = _dot(x, m) / time_squared
    turn = torch.addcmul(m, x, -rise)  # as in `metric`, with the products that are at hand
    squared = _dot(turn, turn) + rise.square() / c
    cosh, sinh = _hyperbolic(pace * (c * squared).sqrt(), time_squared.sqrt())
    sinh, keep = pace * sinh, _cut(squared)  # rounding, not gradients, makes momentum longer
    return (cosh * x).addcmul_(m, -sinh), (keep * cosh * m).addcmul_(x, -c * keep * squared * sinh)


def _carry(x: Tensor, u: Tensor, m: Tensor, pace: float | Tensor, c: Curvature) -> tuple[Tensor, Tensor]:
    """Return the end y of the geodesic from x with velocity -pace u, and m carried there by the form of `transp`."""
    cosh, sinh = _hyperbolic(pace * (c**0.5 * norm(x, u, c, keepdim=True)), time(x, c, keepdim=True))
    sinh = pace * sinh
    y, m = (cosh * x).addcmul_(u, -sinh), _cut(metric(x, m, m, c, keepdim=True)) * m
    return y, torch.addcmul(m, x + y, -c * metric(x, u, m, c, keepdim=True) * sinh / (1 + cosh))


def _longest(x: Tensor) -> float:
    """Return the fourth root of the largest number: products of two lengths and two times can then be represented."""
    return torch.finfo(x.dtype).max ** 0.25


def _cut(squared: Tensor) -> Tensor:
    """Return the factor that cuts vectors of this squared length to the longest."""
    largest = _longest(squared) ** 2
    return (largest / squared.clamp_min(largest)).sqrt()


def _hyperbolic(t: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosh(s) and sinh(s) / t, where s is t, or less where a step from time x0 would pass the longest time.

    For values only: one exponential without series, whose derivatives would not survive t = 0.
    """
    more = torch.minimum(t.expm1(), (_longest(x0) / x0 - 1).clamp_min(0))  # e^s - 1
    less = more / (1 + more)  # 1 - e^-s
    return 1 + more * less / 2, (more + less) / 2 / t.clamp_min(torch.finfo(t.dtype).tiny)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x, y).unsqueeze(-1)
