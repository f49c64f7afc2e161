r"""The specification of `pairwise_dist`: the Minkowski square of a difference as a sum of two squares.

With d = x - y, the time gap delta = x0 - y0 = d . (x + y) / (x0 + y0), and near, far the points in the order of times,

    |X - Y|_L^2 = near0 / far0 |d - delta / near0 near|^2 + delta^2 / (c near0 far0)

which has no pole and no difference of large numbers; `lorentz.functional.sqdist` is the same of single pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def sqdist(x: Tensor, y: Tensor, squared_radius: Tensor) -> Tensor:
    """Return |x_i - y_j|_L^2 of points (..., N, n) and (..., M, n), (..., N, M); `squared_radius` is 1/c."""
    return split(x, y, squared_radius).square.squeeze(-1)


class Split(NamedTuple):
    """What a pair comes down to; (..., N, M, 1), but for `turn` and `near`, (..., N, M, n)."""

    turn: Tensor  # d - delta / near0 near
    delta: Tensor
    inward: Tensor  # whether x is near
    near: Tensor
    near0: Tensor
    far0: Tensor
    square: Tensor


def split(x: Tensor, y: Tensor, squared_radius: Tensor) -> Split:
    """Return both parts of every pair, and their sum."""
    x, y = x.unsqueeze(-2), y.unsqueeze(-3)
    x0, y0 = time(x, squared_radius), time(y, squared_radius)
    gap = x - y
    delta = (gap * (x + y)).sum(-1, keepdim=True) / (x0 + y0)
    # One mask for all three: minimum and maximum would halve their gradients where the times are equal.
    inward = x0 < y0
    near, near0, far0 = torch.where(inward, x, y), torch.where(inward, x0, y0), torch.where(inward, y0, x0)
    turn = gap - (delta / near0) * near
    radial = squared_radius * (delta / near0) * (delta / far0)
    square = (near0 / far0) * (turn * turn).sum(-1, keepdim=True) + radial
    return Split(turn, delta, inward, near, near0, far0, square)


def dist(x: Tensor, y: Tensor, squared_radius: Tensor) -> Tensor:
    """Return the geodesic distances 2 R asinh(|x_i - y_j|_L / (2 R)), R = 1 / sqrt(c); zero has derivative zero."""
    return from_square(sqdist(x, y, squared_radius), squared_radius)


def from_square(s: Tensor, squared_radius: Tensor) -> Tensor:
    """Return geodesic distances from squared Lorentzian ones."""
    zero, diameter = s == 0, 2 * squared_radius.sqrt()
    length = torch.where(zero, 0.0, torch.where(zero, 1.0, s).sqrt())
    return diameter * (length / diameter).asinh()


def time(x: Tensor, squared_radius: Tensor) -> Tensor:
    """Return x0 = sqrt(1/c + |x|^2), (..., n) to (..., 1)."""
    return (squared_radius + x.square().sum(-1, keepdim=True)).sqrt()
