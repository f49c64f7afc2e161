"""The specification of `riemannian_adam`: one step on rows of points, a pure function."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz_kernels.riemannian_adam.geodesic import Curvature, coast, dot, gauge


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

    then the step of -a m along the geodesic (`geodesic.py`). So that points and moments stay finite, the fourth root of
    the largest number bounds the length of a gradient, which is cut (one whose square cannot be represented counts in v
    only), and the time at the end of a step (radius 22 in float32, 178 in float64).

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
    rate, bias2 = rates(step, lr, betas)
    return adam_rows(x, grad, w, v, v_max, rate, bias2, c, betas, eps)


def rates(
    step: float | Tensor, lr: float | Tensor, betas: tuple[float, float]
) -> tuple[float | Tensor, float | Tensor]:
    """Return lr / (1 - beta1^step) and 1 - beta2^step, which are the same for all rows."""
    bias1, bias2 = (1 - beta ** (step.double() if isinstance(step, Tensor) else step) for beta in betas)
    return lr / bias1, bias2


def adam_rows(
    x: Tensor,
    grad: Tensor,
    w: Tensor,
    v: Tensor,
    v_max: Tensor | None,
    rate: float | Tensor,
    bias2: float | Tensor,
    c: Curvature,
    betas: tuple[float, float],
    eps: float,
) -> tuple[Tensor, ...]:
    """Return what `adam_step` does, given what `rates` returns."""
    beta1, beta2 = betas
    measured = gauge(x, grad, c)
    share = (1 - beta1) * measured.keep
    w_next = (beta1 * w).addcmul_(grad, share)
    along = beta1 * dot(x, w) + share * measured.along
    overlap = torch.where(measured.lost, 0.0, dot(w, grad))
    square = beta1**2 * dot(w, w) + 2 * beta1 * share * overlap + share.square() * measured.square
    v = torch.add(beta2 * v, measured.length_squared, alpha=1 - beta2)
    largest = v if v_max is None else torch.maximum(v, v_max)
    pace = rate / ((largest / bias2).sqrt() + eps)
    y, w = coast(x, w_next, along, square, pace, c)
    return (y, w, v) if v_max is None else (y, w, v, largest)
