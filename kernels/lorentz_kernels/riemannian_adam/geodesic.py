r"""How a row moves along a geodesic, and how long it may become: what the rules of the optimisers are made of.

Moments are kept in the form that gradients have, as covectors w: the tangent vector is
:math:`m = G^{-1} w = w + c\,x\,(x \cdot w)`, and the square of its length :math:`|w|^2 + c\,(x \cdot w)^2`, a sum of
squares. Along a geodesic :math:`x_0 w` of its own velocity is conserved (it is the momentum of the boosts), so a step
of -a m carries m by a division. It ends at

.. math::
    y = A\,x - a \tfrac{\sinh t}{t} w, \quad w_y = w / A, \quad
    A = y_0 / x_0 = \cosh t - c\,a \tfrac{\sinh t}{t} (x \cdot w), \quad t = \sqrt c\,a\,|m|_L.

All that a step needs beside x, g and w is inner products of those three: one pass reads, one writes. The functions are
pure, for values only, and without data-dependent control flow.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

Curvature = float | Tensor
"""c of the curvature -c: a float, or a tensor that broadcasts against columns (..., 1)."""


class Gauge(NamedTuple):
    """Columns about a gradient g at x."""

    along: Tensor  # x . g
    square: Tensor  # g . g
    length_squared: Tensor  # of the Riemannian gradient, at most the square of the longest
    keep: Tensor  # the share of the gradient that is kept
    lost: Tensor  # whether its square cannot be represented: nothing is kept then


def gauge(x: Tensor, grad: Tensor, c: Curvature) -> Gauge:
    """Measure the gradient of each row."""
    square = dot(grad, grad)
    lost = square == float("inf")  # products with it may be inf - inf
    along = torch.where(lost, 0.0, dot(x, grad))
    squared = square + c * along.square()
    largest = longest(x) ** 2
    return Gauge(along, torch.where(lost, 0.0, square), squared.clamp_max(largest), cut(squared), lost)


def coast(
    x: Tensor, w: Tensor, along: Tensor, square: Tensor, pace: float | Tensor, c: Curvature
) -> tuple[Tensor, Tensor]:
    """Return the end y of the geodesic from x with covector -pace w, and w carried there, given x . w and w . w."""
    squared = square + c * along.square()
    taken = step(pace * (c * squared).clamp_min(0).sqrt(), x, c)
    sinh = pace * taken.sinh
    growth = torch.maximum(taken.cosh - c * sinh * along, taken.least)
    return (growth * x).addcmul_(w, -sinh), cut(squared) / growth * w


class Step(NamedTuple):
    """cosh(s), sinh(s) / t and e^-s, the least growth of a time, for a step of length t of which s is taken."""

    cosh: Tensor
    sinh: Tensor
    least: Tensor


def step(t: Tensor, x: Tensor, c: Curvature) -> Step:
    """Return the step of scaled length t from x, cut where it would pass the longest time.

    For values only: one exponential without series, whose derivatives would not survive t = 0.
    """
    time = (1 / c + dot(x, x)).sqrt()
    more = torch.minimum(t.expm1(), (longest(x) / time - 1).clamp_min(0))  # e^s - 1
    least = 1 / (1 + more)
    less = more * least  # 1 - e^-s
    return Step(1 + more * less / 2, (more + less) / 2 / t.clamp_min(torch.finfo(t.dtype).tiny), least)


def longest(x: Tensor) -> float:
    """Return the fourth root of the largest number: products of two lengths and two times can then be represented."""
    return torch.finfo(x.dtype).max ** 0.25


def cut(squared: Tensor) -> Tensor:
    """Return the factor that cuts vectors of this squared length to the longest."""
    largest = longest(squared) ** 2
    return (largest / squared.clamp_min(largest)).sqrt()


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner products of rows, as columns (..., 1)."""
    return torch.linalg.vecdot(x, y).unsqueeze(-1)
