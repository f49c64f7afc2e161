"""Isometries: every one that keeps the sheet and the orientation is a boost after a rotation (polar decomposition)."""

from __future__ import annotations

from torch import Tensor

from lorentz._chart import time
from lorentz._precision import Curvature, same_width, widen


def boost(x: Tensor, velocity: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the points seen from a frame that moves with velocity u, |u| < 1.

    .. math::
        x + \left(\frac{\gamma^2}{1 + \gamma} (x \cdot u) - \gamma x_0\right) u, \quad \gamma = 1 / \sqrt{1 - |u|^2}.

    The inverse is the boost by -u. The origin goes to :math:`-\gamma u / \sqrt c`, so a velocity of length tanh(s)
    moves it by s / sqrt(c).

    Args:
        x: points, (..., n).
        velocity: u, (..., n), shorter than 1; a longer one gives NaN.
        c: the curvature is -c.

    Source: Moretti, The interplay of the polar decomposition theorem and the Lorentz group, 2002; Chen et al.,
    ACL 2022.
    """
    same_width(x, velocity)
    wide, u = widen(x), widen(velocity)
    gamma = (1 - (u * u).sum(-1, keepdim=True)).rsqrt()
    along = (wide * u).sum(-1, keepdim=True)
    return (wide + (gamma * gamma / (1 + gamma) * along - gamma * time(x, c, keepdim=True)) * u).to(x.dtype)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Return the points R x; times do not change, whatever the curvature.

    Args:
        x: points, (..., n).
        rotation: orthogonal matrices R, (n, n) or (..., n, n) that broadcast as `x @ R^T` does.
    """
    return x @ rotation.mT


def isometry_inverse(velocity: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the inverse of x -> boost(rotate(x, R), u) as a pair of the same kind, :math:`(-R^T u, R^T)`.

    Because :math:`R^T B_{-u} = B_{-R^T u} R^T`: rotating a boost rotates its velocity.

    Args:
        velocity: u, (..., n).
        rotation: R, (..., n, n), orthogonal.

    Returns:
        The velocity and the rotation of the inverse.
    """
    return -(velocity.unsqueeze(-2) @ rotation).squeeze(-2), rotation.mT
